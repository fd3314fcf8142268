"""URLs of sources: what they may say, and the mistakes in them."""

import pytest

from sockserve import ConfigurationError
from sockserve.sql.settings import RetryPolicy, SourceSettings
from sockserve.sql.sqlite import SQLiteStore
from sockserve.sql.url import store_and_settings


def test_three_slashes_are_for_a_path_from_here_and_four_from_the_root() -> None:
    for url, path in (("sqlite:///a%20b.db", "a b.db"), ("sqlite:////srv/a.db", "/srv/a.db")):
        store, settings = store_and_settings(url)
        assert isinstance(store, SQLiteStore)
        assert (store.path, store.table, settings) == (path, "jobs", SourceSettings())


def test_what_follows_the_table_says_how_it_is_asked() -> None:
    words = "table=mails&batch=7&lease=2.5&poll=1&attempts=3&first=0.5&longest=60"
    store, settings = store_and_settings(f"sqlite:///x.db?{words}")
    assert store.table == "mails"
    policy = RetryPolicy(attempts=3, first=0.5, longest=60.0)
    assert settings == SourceSettings(batch=7, lease=2.5, poll=1.0, policy=policy)


def test_what_is_libpqs_is_left_to_it() -> None:
    pytest.importorskip("psycopg")
    from sockserve.sql.postgresql import PostgreSQLStore

    url = "postgresql://me:secret@db.example:5433/app?sslmode=require&table=app.jobs&batch=9"
    store, settings = store_and_settings(url)
    assert isinstance(store, PostgreSQLStore)
    assert store.url == "postgresql://me:secret@db.example:5433/app?sslmode=require"
    assert (store.table, settings.batch) == ("app.jobs", 9)
    assert store.description == "postgresql://db.example:5433/app?table=app.jobs"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("jobs.db", r"'jobs.db' is not sqlite:///PATH"),
        ("postgres:x", r"is not sqlite:///PATH"),
        ("postgesql://h/d", r"did you mean|postgresql"),
        ("sqlite://jobs.db", r"write sqlite:///PATH"),
        ("sqlite:///", r"write sqlite:///PATH"),
        ("sqlite:///x.db?tabel=jobs", r"'tabel' is not one of table, batch"),
        ("sqlite:///x.db?table=a-b", r"table 'a-b': write NAME"),
        ("sqlite:///x.db?table=a%22b", r"table 'a\"b': write NAME"),
        ("sqlite:///x.db?table=app.jobs", r"table 'app.jobs': a table of SQLite's has no schema"),
        ("sqlite:///x.db?batch=many", r"batch='many' is not a whole number"),
        ("sqlite:///x.db?batch=0", r"batch: 0 is not a number above 0"),
        ("sqlite:///x.db?lease=-1", r"lease: -1.0 is not a number above 0"),
        ("sqlite:///x.db?attempts=0", r"attempts: 0 is not a number above 0"),
        ("sqlite:///x.db?lease=nan", r"lease: nan is not a number above 0"),
        ("sqlite:///x.db?lease=inf", r"lease: inf is more than 31622400"),
        ("sqlite:///x.db?batch=99999999999", r"batch: 99999999999 is more than 2147483647"),
        ("sqlite:///x.db?longest=inf", r"longest: inf is more than 31622400"),
        ("sqlite:///x.db?table=a&table=b", r"table is given twice"),
        ("postgresql://h/x?tabel=jobs", r"'tabel' is not one of .*; did you mean 'table'"),
        ("postgresql://h/x?sslmod=require", r"'sslmod' is not one of .*libpq knows"),
        ("postgresql://", r"is not sqlite:///PATH"),
        ("postgresql://[::1/x", r"write postgresql://USER:PASSWORD@HOST:PORT/DATABASE"),
        ("sqlite:///x.db?poll=1e15", r"poll: 1000000000000000.0 is more than 31622400"),
    ],
)
def test_a_mistake_is_named(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        store_and_settings(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:se@cret@127.0.0.1:1/x",
        "postgresql://u:/secret@127.0.0.1:1/x",
        "postgresql://u:?secret@127.0.0.1:1/x",
        "postgresql://u:secret%zz@127.0.0.1:1/x",
        "postgresql://u:secret@[::1/x",
        "postgresql://h/x?password=secret&tabel=y",
        "postgresql://h/x?password=secret&batch=none",
        "mysql://u:secret@h/x",
        "mysql://h/x?password=secret",
    ],
)
def test_no_part_of_a_password_is_told(url: str) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(ConfigurationError) as caught:
        store_and_settings(url)
    assert "cret" not in str(caught.value)


def test_a_file_may_have_any_name() -> None:
    store, _ = store_and_settings("sqlite:///a#b%3f@.db?table=jobs")
    assert isinstance(store, SQLiteStore)
    assert store.path == "a#b?@.db"
