"""C{manage.py sockserve} and a project's own commands, as their users see them."""

import json
import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import django
import pytest

from tests.django_app.running import Project, Running
from tests.patience import PATIENCE_SECONDS
from tests.postgresql import running_cluster

pytestmark = pytest.mark.usefixtures("no_leaks")

LOOPBACK = "tcp:0:interface=127.0.0.1"
GET = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
BLOCKING = ("sockserve", "--listen", LOOPBACK, "--handler", "workers.handlers:Blocking")

#: Django's LTS, which the oldest Python has, brings none yet.
needs_tasks = pytest.mark.skipif(django.VERSION < (6, 0), reason="Django before 6.0 has no tasks")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database in which all migrations are applied."""
    project = Project(tmp_path_factory.mktemp("migrated"))
    assert project.manage("migrate", "--verbosity", "0").returncode == 0
    return project.folder / "project.sqlite3"


@pytest.fixture
def migrated(project: Project, database: Path) -> Project:
    shutil.copy(database, project.folder)
    return project


@contextmanager
def running(project: Project, *arguments: str) -> Iterator[Running]:
    command = project.start(*arguments)
    try:
        yield command
    finally:
        command.kill()


# What it costs others


def test_commands_that_serve_nothing_import_nothing_that_serves(project: Project) -> None:
    code = "import sys; print('imported:', {*sys.modules} & {'twisted', 'sockserve.handlers'})"
    done = project.manage("shell", "--command", code)
    assert done.stdout.splitlines()[-1] == "imported: set()", done.stderr


# What it serves


def test_a_projects_folder_is_not_served_for_want_of_a_word(migrated: Project) -> None:
    """It has the settings, with their key, and often the database."""
    done = migrated.manage("sockserve", "--listen", LOOPBACK)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "CommandError: nothing says what is served: give --handler MODULE:CLASS, or --path FOLDER"
        " for files\n"
    )


def test_the_options_say_what_is_served(migrated: Project) -> None:
    with running(migrated, *BLOCKING) as command:
        assert command.ask("one\n") == "1 False\n"
        assert command.ask("two\n") == "2 False\n"
        assert command.end() == 0
        assert re.fullmatch(f"Blocking: serving {LOOPBACK} \\(port [0-9]+\\)\n", command.stdout), (
            command.stdout
        )
        assert command.stderr == ""


def test_a_coroutine_stores_on_a_thread(migrated: Project) -> None:
    handler = "workers.handlers:Coroutine"
    with running(migrated, "sockserve", "-l", LOOPBACK, "-H", handler) as command:
        assert [command.ask("x\n") for _ in range(2)] == ["1 False\n", "2 False\n"]
        assert command.end() == 0


def test_the_settings_say_what_the_options_do_not(migrated: Project) -> None:
    settings = {"handler": "workers.handlers:Blocking", "listen": ["tcp:1"], "max_connections": 7}
    migrated.environ["SOCKSERVE"] = json.dumps(settings)
    done = migrated.manage("sockserve", "--listen", "tcp:2", "--timeout", "idle=9", "--check")
    assert done.stdout.startswith(
        "listen tcp:2: Blocking on threads\ndeadlines handshake=10 idle=9 "
    )
    # What is served by the options, instead of what the settings say.
    done = migrated.manage("sockserve", "--path", ".", "--check")
    assert done.stdout.startswith("listen tcp:1: FileRequestHandler on the reactor\n")


@pytest.mark.parametrize(
    ("timeout", "deadlines"),
    [
        ({"idle": 9, "handle": 5, "keepalive": 7}, "handle=5 lifetime=none drain=10"),
        (["idle=9", "drain=none"], "handle=none lifetime=none drain=none"),
    ],
)
def test_of_the_settings_rows_have_those_that_are_not_for_clients(
    migrated: Project, timeout: object, deadlines: str
) -> None:
    settings = {"max-connections": 7, "timeout": timeout}
    migrated.environ["SOCKSERVE"] = json.dumps(settings)
    words = ("--source", "sqlite:///jobs.db", "--handler", "socketserver:BaseRequestHandler")
    done = migrated.manage("sockserve", *words, "--check")
    assert done.stdout.splitlines()[:2] == [
        "source sqlite:///jobs.db?table=jobs: BaseRequestHandler on threads",
        f"deadlines {deadlines}",
    ]
    migrated.environ["SOCKSERVE"] = json.dumps({"timeout": {"idel": 9}})
    done = migrated.manage("sockserve", *words, "--check")
    assert done.stderr.startswith("CommandError: settings.SOCKSERVE: timeout: 'idel' is not one of")


def test_a_command_of_the_projects_own(migrated: Project) -> None:
    assert "Receives results from the workers" in migrated.manage("receive", "--help").stdout
    with running(migrated, "receive") as command:
        assert command.ask(GET).endswith("\r\n\r\nfirst\n")
        assert command.end(signal.SIGINT) == 0
        assert command.stdout.startswith("ServerHandler: serving http://127.0.0.1:")
    # What it serves is said by its class.
    refused = migrated.manage("receive", "--handler", "x:Y")
    assert refused.stderr == "CommandError: unrecognized arguments: --handler x:Y\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_end(migrated: Project, number: signal.Signals) -> None:
    slow = ("sockserve", "--listen", LOOPBACK, "--handler", "workers.handlers:Slow")
    with running(migrated, *slow) as command, command.connect() as client:
        client.sendall(GET.encode())
        command.wait_for("slow: began")
        assert command.end(number) == 0
        assert client.makefile().read().endswith("after half a second\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(migrated: Project, number: signal.Signals) -> None:
    stuck = ("sockserve", "--listen", LOOPBACK, "--handler", "workers.handlers:Stuck")
    with running(migrated, *stuck) as command, command.connect() as client:
        client.sendall(GET.encode())
        command.wait_for("stuck: began")
        command.process.send_signal(signal.SIGHUP)
        command.wait_for("Received SIGHUP: nothing is reloaded")
        command.process.send_signal(signal.SIGUSR1)
        command.process.send_signal(number)
        again = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
        command.wait_for(f"waiting for 1 request, oldest GET / [0-9]+ s; {again} again to end it")
        assert command.end(number) == 128 + number
        # In half a second at most, which a busy machine may take to write the line.
        assert command.stderr in (f"Received {number.name} again, ending at once.\n", "")


@pytest.mark.parametrize("modules", ["stdlib", "sockserve"])
def test_the_module_that_it_is_made_after(migrated: Project, modules: str) -> None:
    """
    It runs as it is but for what it imports.  A client that says nothing stops it, as it did in the
    standard library; not any more.
    """
    module = migrated.folder / "workers/management/commands/start_receive_from_workers.py"
    if modules == "sockserve":
        text = module.read_text()
        text = text.replace("from http.server", "from sockserve.http.server")
        module.write_text(text.replace("from socketserver", "from sockserve.socketserver"))
    post = GET.replace("GET", "POST").replace("Host", "Content-Length: 3\r\nHost") + "one"
    migrated.environ["PYTHONUNBUFFERED"] = "1"
    with running(migrated, "start_receive_from_workers") as command, command.connect() as silent:
        if modules == "stdlib":
            silent.close()
        assert command.ask(post).endswith("\r\nContent-type: text/plain\r\n\r\nOK")
        assert " 404 " in command.ask(GET)
        assert command.end(signal.SIGINT) == 0
        assert command.stdout.endswith("Stopped\n")


# What is said


def test_a_handlers_error_is_told_on_standard_error(migrated: Project) -> None:
    handler = "workers.handlers:Failing"
    options = ("--listen", LOOPBACK, "--handler", handler, "--no-color")
    with running(migrated, "sockserve", *options) as command:
        assert " 500 " in command.ask(GET)
        assert command.end() == 0
        assert command.stderr.startswith("Failing: exception while serving GET / for 127.0.0.1:")
        assert command.stderr.count("ValueError: on purpose\n") == 1


def test_verbosity_says_how_much_is_told(migrated: Project) -> None:
    where = migrated.folder / "listening.sock"
    quiet = ("sockserve", "--handler", "workers.handlers:Slow", "--verbosity", "0")
    with running(migrated, *quiet, "--listen", f"unix:{where}") as command:
        with socket.socket(socket.AF_UNIX) as client:
            while client.connect_ex(str(where)):
                assert command.process.poll() is None
                time.sleep(0.02)
            client.sendall(GET.encode())
            command.wait_for("slow: began")
            assert command.end() == 0
        assert command.stdout == "slow: began\n"


def test_migrations_that_are_not_applied_are_told_of(project: Project) -> None:
    with running(project, *BLOCKING) as command:
        command.wait_for("serving")
        assert re.search(r"You have \d unapplied migration.* workers\.", command.stdout)
        assert command.end() == 0


def test_system_checks_come_first(migrated: Project) -> None:
    with (migrated.folder / "workers/models.py").open("a") as models:
        models.write(
            "\n\nclass Wrong(models.Model):\n    name = models.CharField(max_length='x')\n"
        )
    done = migrated.manage(*BLOCKING)
    assert done.returncode == 1
    assert "SystemCheckError: System check identified some issues" in done.stderr
    assert "serving" not in done.stdout
    with running(migrated, *BLOCKING, "--skip-checks") as command:
        command.wait_for("serving")
        assert command.end() == 0


# PostgreSQL


@pytest.fixture
def on_postgresql(project: Project) -> Iterator[Project]:
    """The project with a database on a server of its own, whose connections it keeps for good."""
    with running_cluster() as cluster:
        project.environ |= {"PGHOST": str(cluster.folder), "PGUSER": "tests"}
        assert project.manage("migrate", "--verbosity", "0").returncode == 0
        yield project


def test_a_connection_that_is_broken_is_replaced(on_postgresql: Project) -> None:
    with running(on_postgresql, *BLOCKING, "--threads", "1") as command:
        assert command.ask("one\n") == "1 False\n"
        assert command.ask("two\n") == "2 True\n"
        host, user = (on_postgresql.environ[name] for name in ("PGHOST", "PGUSER"))
        psycopg = pytest.importorskip("psycopg")
        with psycopg.connect(host=host, user=user, dbname="postgres") as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
        assert command.ask("three\n") == ""  # this one finds out
        assert command.ask("four\n").startswith("3 ")
        assert command.end() == 0


def test_the_table_of_tasks_is_found_by_all_that_the_settings_say(on_postgresql: Project) -> None:
    """A service, options of the server's, a role to assume: as Django itself connects."""
    psycopg = pytest.importorskip("psycopg")
    host, user = (on_postgresql.environ.pop(name) for name in ("PGHOST", "PGUSER"))
    with psycopg.connect(host=host, user=user, dbname="postgres") as connection:
        connection.execute('CREATE ROLE "of tasks"')
    services = on_postgresql.folder / "services"
    services.write_text(f"[app]\nhost={host}\nuser={user}\ndbname=postgres\n")
    on_postgresql.environ["PGSERVICEFILE"] = str(services)
    options = {
        "service": "app",
        "options": "-c statement_timeout=77s -c search_path=other",
        "assume_role": "of tasks",
        "isolation_level": 3,
        "pool": False,
        "sslmode": "disable",
    }
    (on_postgresql.folder / "with_options.py").write_text(
        "from settings import *\n"
        "DATABASES = {'default': {'ENGINE': 'django.db.backends.postgresql',"
        f" 'NAME': '', 'OPTIONS': {options!r}}}}}\n"
    )
    code = (
        "from sockserve.django.tasks.table import table_url\n"
        "from sockserve.sql.url import store_and_settings\n"
        "store, _ = store_and_settings(table_url('default'))\n"
        "names = 'role', 'statement_timeout', 'search_path', 'client_encoding'\n"
        "with store.connected() as connection:\n"
        "    for name in names:\n"
        "        print(*connection.execute('SHOW ' + name).fetchone())\n"
    )
    done = on_postgresql.manage("shell", "--settings", "with_options", "-c", code)
    assert done.stdout.splitlines()[-4:] == ["of tasks", "77s", "other", "UTF8"], done.stderr


def test_a_database_that_is_not_there_is_one_line(project: Project) -> None:
    pytest.importorskip("psycopg")
    project.environ |= {"PGHOST": str(project.folder), "PGUSER": "tests"}
    done = project.manage(*BLOCKING)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch("CommandError: database: .*No such file or directory.*\n", done.stderr)


# Mistakes


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (
            "--max-conections 9",
            "unrecognized arguments: --max-conections 9; did you mean '--max-connections'?",
        ),
        ("--threads", "argument --threads: expected one argument"),
        ("--threads many", "threads: 'many' is not a whole number"),
        (
            "--handler workers.handlers:Blockin",
            "handler 'workers.handlers:Blockin': no 'Blockin' in workers.handlers;"
            " did you mean 'Blocking'?",
        ),
        ("--handler nowhere:Handler", "handler 'nowhere:Handler': no module 'nowhere'"),
        ("--listen tcp:x", None),
        ("--timeout idel=9", None),
        ("--verbosity 9", None),
        ("--config nothing.toml", "config 'nothing.toml': No such file or directory"),
        ("stray", "unrecognized arguments: stray"),
    ],
)
def test_a_mistake_is_one_line(migrated: Project, options: str, fault: str | None) -> None:
    done = migrated.manage("sockserve", *options.split())
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch("CommandError: .*\n", done.stderr)
    assert fault is None or done.stderr == f"CommandError: {fault}\n"


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"max-conections": 9}, "unknown word 'max-conections'; did you mean 'max-connections'?"),
        ({"max_connections": "x"}, "max-connections: 'x' is not a whole number"),
        (["tcp:1"], "write a dict of options, not list"),
        ({"reload": True}, "'reload' is for the command line only, as --reload"),
        ({"skip_checks": True}, "'skip_checks' is for the command line only, as --skip-checks"),
        ({"rpcbind": "yes"}, "rpcbind: write True or False, not 'yes'"),
        ({"threads": 0}, None),
    ],
)
def test_a_mistake_in_the_settings_is_told_to_be_there(
    migrated: Project, settings: object, fault: str | None
) -> None:
    migrated.environ["SOCKSERVE"] = json.dumps(settings)
    done = migrated.manage("sockserve")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch("CommandError: settings.SOCKSERVE: .*\n", done.stderr)
    assert fault is None or done.stderr == f"CommandError: settings.SOCKSERVE: {fault}\n"


def test_the_flag_for_rpcbind_is_heeded(migrated: Project) -> None:
    """It is a mistake for a handler that has no program, wherever it is said."""
    fault = "rpcbind: handler Blocking is no sockserve.sunrpc.RPCRequestHandler with a program\n"
    done = migrated.manage(*BLOCKING, "--rpcbind")
    assert done.stderr == f"CommandError: {fault}"
    migrated.environ["SOCKSERVE"] = json.dumps({"rpcbind": True})
    done = migrated.manage(*BLOCKING)
    assert done.stderr == f"CommandError: settings.SOCKSERVE: {fault}"


def test_a_port_that_is_taken_is_one_line(migrated: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        done = migrated.manage("receive", "--listen", "unix:first.sock", "--listen", where)
    assert done.returncode == 1
    assert done.stderr == f"CommandError: listen '{where}': Address already in use\n"
    assert not (migrated.folder / "first.sock").exists()


def test_a_database_that_cannot_be_opened_is_one_line(project: Project) -> None:
    (project.folder / "project.sqlite3").mkdir()
    done = project.manage(*BLOCKING)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "CommandError: database: unable to open database file\n"


# Development


def test_it_starts_anew_when_code_has_changed(migrated: Project) -> None:
    with running(migrated, "receive", "--reload") as command:
        assert command.ask(GET).endswith("\r\n\r\nfirst\n")
        module = migrated.folder / "workers/versions.py"
        module.write_text('VERSION = "second, longer"\n')
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not (answer := command.ask_newest(GET)).endswith("\r\n\r\nsecond, longer\n"):
            assert time.monotonic() < give_up, answer
            # Django looks at what has changed since its first look, which may be to come.
            if answer.endswith("\r\n\r\nfirst\n"):
                module.touch()
            time.sleep(0.02)
        assert command.end() in (0, -signal.SIGTERM)


# Tests of a project's own


@needs_tasks
def test_tasks_are_stored_and_done(project: Project) -> None:
    """As those in L{tests.django_app.project.workers.task_tests} have it."""
    done = project.manage("test", "workers.task_tests")
    assert done.returncode == 0, done.stderr
    assert "\nOK\n" in done.stderr


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ("--tasks other", "tasks: settings.TASKS has no 'other', but default"),
        ("--tasks --path .", "path: does not go with --tasks"),
    ],
)
@needs_tasks
def test_a_mistake_about_tasks_is_one_line(migrated: Project, options: str, fault: str) -> None:
    done = migrated.manage("sockserve", *options.split())
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"CommandError: {fault}\n"


@needs_tasks
def test_a_missing_table_of_tasks_is_made_by_djangos_command(project: Project) -> None:
    done = project.manage("sockserve", "--tasks")
    assert done.returncode == 1
    fault = "the database 'default' has no table sockserve_tasks; what makes it: manage.py migrate"
    assert done.stderr.splitlines()[-1] == f"CommandError: tasks: {fault}"


def test_tasks_need_a_django_that_has_them(migrated: Project) -> None:
    if django.VERSION < (6, 0):
        done = migrated.manage("sockserve", "--tasks")
        fault = f"tasks: they need Django 6.0 or newer, and this is {django.get_version()}"
        assert done.stderr == f"CommandError: {fault}\n"


def test_it_is_called_by_a_projects_tests(project: Project) -> None:
    """Those in L{tests.django_app.project.workers.tests}."""
    done = project.manage("test")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("\nOK\n") == 1
    assert not re.search("Traceback|Unhandled|Warning", done.stderr)
