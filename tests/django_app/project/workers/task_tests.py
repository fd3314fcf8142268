"""Tests of tasks, which need Django 6.0."""

import json
import queue
import time
from datetime import timedelta
from urllib.parse import parse_qsl

from django.db import connection, connections, transaction
from django.tasks import task_backends
from django.tasks.signals import task_finished
from django.test import TransactionTestCase
from django.utils import timezone

from sockserve.django.tasks.table import table_url
from workers.models import Result
from workers.tasks import add, store, store_at_second_attempt, wait
from workers.tests import serving


def rows():
    with connection.cursor() as cursor:
        cursor.execute("SELECT payload FROM sockserve_tasks")
        return [json.loads(payload)["args"] for (payload,) in cursor.fetchall()]


def wait_until(condition):
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


class TasksTest(TransactionTestCase):
    available_apps = None

    def tearDown(self):
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM sockserve_tasks")

    def test_a_task_is_there_with_what_else_is_stored_or_not_at_all(self):
        with transaction.atomic():
            store.enqueue("kept")
        with self.assertRaisesMessage(ValueError, "on purpose"), transaction.atomic():
            store.enqueue("lost")
            raise ValueError("on purpose")
        assert rows() == [["kept"]]

    def test_tasks_are_done_and_removed(self):
        with serving("sockserve", listen=None, tasks="default"):
            result = store.enqueue("one", times=2)
            assert len(result.id) == 32
            store_at_second_attempt.enqueue("two")
            wait.enqueue(0)
            wait_until(lambda: rows() == [])
        names = sorted(Result.objects.values_list("name", flat=True))
        assert names == ["one", "one", "two"]

    def test_a_task_is_not_done_before_its_time(self):
        with serving("sockserve", listen=None, tasks="default"):
            store.using(run_after=timezone.now() + timedelta(hours=1)).enqueue("later")
            store.enqueue("now")
            wait_until(lambda: rows() == [["later"]])
        assert list(Result.objects.values_list("name", flat=True)) == ["now"]

    def test_the_table_is_found_by_the_options_of_its_database(self):
        settings = {
            **connections.settings["default"],
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "a b",
            "USER": "us/er",
            "PASSWORD": "p@ss",
            "HOST": "/run/pg",
            "PORT": 5433,
            "OPTIONS": {"sslmode": "require", "prepare_threshold": 3, "isolation_level": 4},
        }
        connections.settings["elsewhere"] = settings
        try:
            url = table_url("elsewhere")
            settings.update({"NAME": "", "USER": "", "PASSWORD": "", "HOST": "", "PORT": ""})
            settings["OPTIONS"] = {"service": "tasks"}
            by_service = table_url("elsewhere")
        finally:
            del connections["elsewhere"], connections.settings["elsewhere"]
        where, _, words = url.partition("?")
        assert where == "postgresql://us%2Fer:p%40ss@/a%20b"
        assert dict(parse_qsl(words)) == {
            "sslmode": "require",
            "client_encoding": "UTF8",
            "host": "/run/pg",
            "port": "5433",
            "table": "sockserve_tasks",
        }
        words = "service=tasks&client_encoding=UTF8&table=sockserve_tasks"
        assert by_service == f"postgresql:///?{words}"

    def test_what_a_task_returns_is_told_and_not_kept(self):
        backend = task_backends["default"]
        assert not backend.supports_get_result
        finished = queue.SimpleQueue()

        def hear(sender, task_result, **_):
            finished.put((sender, task_result.status, task_result.return_value))

        task_finished.connect(hear)
        try:
            with serving("sockserve", listen=None, tasks="default"):
                result = add.enqueue(2, 3)
                assert finished.get(timeout=30) == (type(backend), "SUCCESSFUL", 5)
        finally:
            task_finished.disconnect(hear)
        says = "This backend does not support retrieving or refreshing results."
        for ask in (result.refresh, lambda: add.get_result(result.id)):
            with self.assertRaisesMessage(NotImplementedError, says):
                ask()
        assert (result.status, result.is_finished) == ("READY", False)
