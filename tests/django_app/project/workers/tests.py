"""The tests of a project that uses sockserve, which Django runs."""

import io
import os
import queue
import re
import signal
import socket
import threading
from contextlib import closing, contextmanager
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from django.core.management import CommandError, call_command
from django.test import TransactionTestCase

from workers.models import Result

LOOPBACK = "tcp:0:interface=127.0.0.1"


@contextmanager
def serving(command, **options):
    """Run a command on a thread of its own; gives what its C{ready} is called with."""
    ready = queue.SimpleQueue()
    options = {"listen": LOOPBACK, "ready": ready.put, **options}
    thread = threading.Thread(target=call_command, args=[command], kwargs=options)
    thread.start()
    running = ready.get(timeout=30)
    try:
        yield running
    finally:
        running.stop()
        thread.join(30)
        assert not thread.is_alive()


def ask(running, name):
    with closing(socket.create_connection(running.addresses[0], 30)) as client:
        client.sendall(name.encode() + b"\n")
        return client.makefile().read()


class CallCommandTest(TransactionTestCase):
    def test_it_is_called_twice_on_threads(self):
        for name in ("one", "two"):
            with serving("sockserve", handler="workers.handlers:Blocking") as running:
                assert ask(running, name).endswith(" False\n")
        assert sorted(Result.objects.values_list("name", flat=True)) == ["one", "two"]

    def test_two_are_there_at_once(self):
        with (
            serving("sockserve", handler="workers.handlers:Blocking") as one,
            serving("sockserve", handler="workers.handlers:Coroutine") as two,
        ):
            assert one.addresses != two.addresses
            assert ask(one, "one") == "1 False\n"
            assert ask(two, "two") == "2 False\n"

    def test_it_is_called_on_the_main_thread(self):
        answers = []

        def talk(running):
            def ask_and_stop():
                try:
                    answers.append(ask(running, "one"))
                finally:  # else the command would serve on for ever
                    running.stop()

            threading.Thread(target=ask_and_stop).start()

        call_command("sockserve", "--listen", LOOPBACK, "--handler", "workers.handlers:Coroutine",
                     ready=talk)  # fmt: skip
        assert answers == ["1 False\n"]

    def test_signals_on_the_main_thread_stop_it(self):
        """The first; the second ends what it waits for, too."""
        began = threading.Event()
        waiting = re.compile("waiting for 1 request, oldest Waiting [0-9]+ s; SIGTERM again")

        def talk(running):
            def kill_twice():
                with closing(socket.create_connection(running.addresses[0], 30)) as client:
                    client.makefile().readline()  # it has begun
                    os.kill(os.getpid(), signal.SIGTERM)
                    began.wait(30)
                    os.kill(os.getpid(), signal.SIGTERM)

            threading.Thread(target=kill_twice).start()

        class Lines(io.StringIO):
            def write(self, text):
                if waiting.search(text):
                    began.set()
                return super().write(text)

        before = signal.getsignal(signal.SIGTERM)
        with pytest.raises(SystemExit) as end:
            call_command("sockserve", listen=LOOPBACK, handler="workers.handlers:Waiting",
                         ready=talk, stdout=Lines())  # fmt: skip
        assert began.is_set()
        assert end.value.code == 128 + signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) == before

    def test_an_exception_on_the_main_thread_stops_it(self):
        addresses = []

        def interrupt(*_):
            raise KeyboardInterrupt

        def talk(running):
            addresses.extend(running.addresses)
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()

        before = signal.signal(signal.SIGINT, interrupt)
        try:
            with pytest.raises(KeyboardInterrupt):
                call_command("sockserve", listen=LOOPBACK, handler="workers.handlers:Waiting",
                             ready=talk)  # fmt: skip
        finally:
            signal.signal(signal.SIGINT, before)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(addresses[0], 30)

    def test_a_connection_is_closed_after_each_request(self):
        """With one thread for all of them, and a C{CONN_MAX_AGE} of 0."""
        with serving("sockserve", handler="workers.handlers:Blocking", threads=1) as running:
            answers = [ask(running, str(number)) for number in range(3)]
        assert answers == ["1 False\n", "2 False\n", "3 False\n"]

    def test_a_connection_is_kept_until_it_is_old(self):
        with (
            self.settings_of_database(CONN_MAX_AGE=60),
            serving("sockserve", handler="workers.handlers:Blocking", threads=1) as running,
        ):
            answers = [ask(running, str(number)) for number in range(2)]
        assert answers == ["1 False\n", "2 True\n"]

    def test_it_forks(self):
        options = {"handler": "workers.handlers:Blocking", "concurrency": "fork"}
        with serving("sockserve", **options) as running:
            assert ask(running, "one") == "1 False\n"

    def test_messages_go_where_the_caller_says(self):
        stdout, stderr = io.StringIO(), io.StringIO()
        options = {"handler": "workers.handlers:Failing", "stdout": stdout, "stderr": stderr}
        with serving("sockserve", no_color=True, **options) as running:
            url = "http://{}:{}/".format(*running.addresses[0])
            with self.assertRaisesMessage(HTTPError, "500") as failed:
                urlopen(url, timeout=30)
            failed.exception.close()
        assert f"Failing: serving {url}\n" in stdout.getvalue()
        assert "ValueError: on purpose\n" in stderr.getvalue()

    def test_mistakes_are_errors(self):
        with self.assertRaisesMessage(CommandError, "threads: 'many' is not a whole number"):
            call_command("sockserve", threads="many")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            where = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            with self.assertRaisesMessage(CommandError, f"listen '{where}': Address already in"):
                call_command("receive", listen=where)

    @contextmanager
    def settings_of_database(self, **settings):
        """Have other settings of the database for threads that connect from now on."""
        from django.db import connections

        usual = connections.settings["default"].copy()
        connections.settings["default"].update(settings)
        try:
            yield
        finally:
            connections.settings["default"].update(usual)
