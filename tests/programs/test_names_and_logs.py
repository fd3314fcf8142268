"""Name servers and log servers, and others of few words: dig, logging, redis-cli, Modbus."""

import json
import logging
import logging.handlers
import socket
import struct
import threading

import pytest

from tests.integration.servers import connect, read_all, read_exactly, read_line
from tests.programs.running import on_both, output, running

pytestmark = [pytest.mark.usefixtures("no_leaks"), on_both]


def dig(program, *words):
    return output("dig", "@127.0.0.1", "-p", program.port, "+tries=1", "+time=15", *words)


def test_dnslib(modules):
    with running("dns", modules) as program:
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.sendto(b"no query", program.address)
        with connect(program.address) as client:
            client.sendall(b"\0\x08no query")
            assert read_all(client) == b""
        for way in ("+notcp", "+tcp"):
            assert dig(program, "+short", way, "a.test") == "192.0.2.7\n"
            assert "status: NXDOMAIN" in dig(program, way, "absent.test")
        # What is too much for a datagram is asked for again over TCP.
        printed = dig(program, "large.test", "TXT")
        assert "Truncated, retrying in TCP mode" in printed
        assert printed.count("IN\tTXT\t") == 60
        # One after another, from one client.
        names = [f"{number}.test" for number in range(100)]
        assert dig(program, "+short", *names) == "192.0.2.7\n" * 100
        assert program.interrupt().splitlines()[-1] == "alive False False"


def test_logging_config_listen(modules):
    config = json.dumps({"version": 1, "loggers": {"configured": {"level": 17}}}).encode()
    with running("logging_config", modules) as program:
        with connect(program.address) as client:
            client.sendall(struct.pack(">L", len(config)))
            client.sendall(config)
            assert read_all(client) == b""  # it is done
        assert program.interrupt() == "17\n"


def test_the_cookbooks_log_receiver(modules):
    records = [
        logging.LogRecord("a", logging.INFO, "", 0, "%s", ("x" * 10_000,), None),
        logging.LogRecord("b", logging.ERROR, "", 0, "second", None, None),
    ]
    with running("logging_receiver", modules) as program:
        handlers = [logging.handlers.SocketHandler(*program.address) for _ in range(3)]
        for handler in handlers:  # whose connections stay
            for record in records:
                handler.emit(record)
        lines = [program.read_line() for _ in range(6)]
        for handler in handlers:
            handler.close()
        assert sorted(lines) == [f"a INFO {'x' * 10_000}"] * 3 + ["b ERROR second"] * 3


def test_a_syslog_server(modules):
    with running("syslog", modules) as program:
        handler = logging.handlers.SysLogHandler(program.address)
        handler.append_nul = False
        for number in range(3):
            handler.emit(logging.LogRecord("a", logging.INFO, "", 0, f"n{number}", None, None))
            assert program.read_line() == f"127.0.0.1 : <14>n{number}"
        handler.close()
        assert program.interrupt() == "Crtl+C Pressed. Shutting down.\n"


def test_fakeredis(modules):
    with running("redis_server", modules) as program:

        def redis(*words):
            return output("redis-cli", "-p", program.port, *words).strip()

        assert redis("SET", "key", "a b") == "OK"
        assert redis("GET", "key") == "a b"
        assert redis("-r", "3", "INCR", "counter").split() == ["1", "2", "3"]
        # A large value, and one that somebody waits for on a connection of its own.
        assert redis("SET", "large", "x" * 100_000) == "OK"
        assert redis("GET", "large") == "x" * 100_000
        popped = []
        waiting = threading.Thread(target=lambda: popped.append(redis("BLPOP", "list", "15")))
        waiting.start()
        redis("RPUSH", "list", "element")
        waiting.join()
        assert popped == ["list\nelement"]


class Modbus:
    """A client that keeps its connection."""

    def __init__(self, connection):
        self._connection = connection
        self._transaction = 0

    def ask(self, pdu):
        self._transaction += 1
        header = struct.pack(">HHHB", self._transaction, 0, len(pdu) + 1, 7)
        for piece in (header[:3], header[3:] + pdu[:1], pdu[1:]):  # as slow lines have it
            self._connection.sendall(piece)
        answer = read_exactly(self._connection, 7)
        transaction, protocol, length, unit = struct.unpack(">HHHB", answer)
        assert (transaction, protocol, unit) == (self._transaction, 0, 7)
        return read_exactly(self._connection, length - 1)


def test_a_modbus_server(modules):
    with (
        running("modbus", modules) as program,
        connect(program.address) as one,
        connect(program.address) as two,
    ):
        first, second = Modbus(one), Modbus(two)
        values = [0, 10, 13, 0xFFFF, 0x0D0A]
        write = struct.pack(">BHHB5H", 16, 90, 5, 10, *values)
        assert first.ask(write) == struct.pack(">BHH", 16, 90, 5)
        assert second.ask(struct.pack(">BHH", 6, 0, 1)) == struct.pack(">BHH", 6, 0, 1)
        read = struct.pack(">BHH", 3, 90, 5)
        assert second.ask(read) == struct.pack(">BB5H", 3, 10, *values)
        assert first.ask(struct.pack(">BHH", 3, 99, 2)) == b"\x83\x02"
        assert first.ask(b"\x2b\x0e\x01\x00") == b"\xab\x01"
        two.sendall(b"\0\1\0\1\0\6\7\3\0\0\0\1")  # another protocol
        assert read_all(two) == b""
        assert first.ask(read) == struct.pack(">BB5H", 3, 10, *values)


def test_a_chat_server(modules):
    """Each of sixty connections has its thread all the time."""
    with running("chat", modules) as program:
        clients = []
        try:
            for number in range(60):
                client = connect(program.address)
                clients.append(client)
                client.sendall(b"n%d\n" % number)
                assert read_line(client) == b"%d here\n" % (number + 1)
            clients[0].sendall(b"hello\n")
            for number, client in enumerate(clients):
                while (line := read_line(client)).endswith(b"here\n"):
                    pass
                assert line == b"n0: hello\n", number
        finally:
            for client in clients:
                client.close()
