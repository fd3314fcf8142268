"""Clients that take a large response slowly, or not at all: they hold no thread."""

import hashlib
from contextlib import ExitStack

import pytest

from sockserve.listeners.stream_factory import StreamFactory
from tests.integration.http_clients import client, get
from tests.integration.http_handlers import both_bases, one_of_each_kind, place
from tests.integration.servers import description, in_thread, serving, until

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")

LARGE = b"".join(map(b"%015d ".__mod__, range(2**19)))  # 8 MiB


class WithoutFiles(StreamFactory):
    max_spool_bytes = 0


def answering(base):
    class Answers(base):
        def do_GET(self):
            if self.path == "/pieces":
                self.send_response(200)
                self.send_header("Content-Length", len(LARGE))
                self.end_headers()
                for start in range(0, len(LARGE), 10_000):
                    self.wfile.write(LARGE[start : start + 10_000])
            else:
                self.answer(LARGE if self.path == "/large" else b"small")

    return Answers


@both_bases
@one_of_each_kind
@pytest.mark.parametrize("path", ["/large", "/pieces"])
async def test_slow_readers_leave_the_threads_to_others(base, kind, path, tmp_path):
    """Six of them on two threads, and what they get is whole when they take it at last."""

    def talk(address):
        with ExitStack() as held:
            slow = [held.enter_context(client(address, kind)) for _ in range(6)]
            for each in slow:
                each.say(get(path))
            with client(address, kind) as good:
                assert good.ask(get("/small")).body == b"small"
            got = [hashlib.sha256(each.answer().body).digest() for each in slow]
            assert [each.ask(get("/small")).body for each in slow] == [b"small"] * 6
            return set(got)

    executor = place("threads", threads=2)
    async with serving(answering(base), description(kind, tmp_path), concurrency=executor) as made:
        assert await in_thread(talk, made.server_address) == {hashlib.sha256(LARGE).digest()}
        await until(lambda: made.statistics.active == 0)
        assert made.statistics.errors == 0


@both_bases
@one_of_each_kind
async def test_without_room_in_files_the_thread_waits_for_its_client(base, kind, tmp_path):
    def talk(address):
        with client(address, kind) as slow, client(address, kind) as good:
            slow.say(get("/large"))
            assert slow._file.peek(1)  # it has the thread
            good.say(get("/small"))
            good.socket.settimeout(1)
            with pytest.raises(TimeoutError):
                good.socket.recv(1)
            good.socket.settimeout(10)
            assert slow.answer().body == LARGE
            assert b"small" in good.socket.recv(65536)

    executor = place("threads", threads=1)
    options = {"concurrency": executor, "factory": WithoutFiles}
    async with serving(answering(base), description(kind, tmp_path), **options) as server:
        await in_thread(talk, server.server_address)
