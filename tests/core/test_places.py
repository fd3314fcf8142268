"""Where to listen, in the ways of other servers."""

import re

import pytest

from sockserve.core.places import canonical, quoted


@pytest.mark.parametrize(
    ("written", "description"),
    [
        ("8080", "tcp:8080"),
        (":8080", "tcp:8080"),
        ("*:8080", "tcp:8080"),
        ("0.0.0.0:8080", "tcp:8080:interface=0.0.0.0"),
        ("127.0.0.1:8080", "tcp:8080:interface=127.0.0.1"),
        ("localhost:8080", "tcp:8080:interface=localhost"),
        ("www.example.org:80", "tcp:80:interface=www.example.org"),
        ("[::1]:8080", r"tcp6:8080:interface=\:\:1"),
        ("[::]:8080", r"tcp6:8080:interface=\:\:"),
        ("[fe80::1%eth0]:80", r"tcp6:80:interface=fe80\:\:1%eth0"),
        ("http://127.0.0.1:8080/", "tcp:8080:interface=127.0.0.1"),
        ("http://127.0.0.1:8080", "tcp:8080:interface=127.0.0.1"),
        ("HTTP://[::1]:8080/", r"tcp6:8080:interface=\:\:1"),
        ("http://localhost", "tcp:80:interface=localhost"),
        ("http://:8080", "tcp:8080"),
        ("tcp://127.0.0.1:7000", "tcp:7000:interface=127.0.0.1"),
        ("haproxy:8080", "haproxy:tcp:8080"),
        ("haproxy:[::1]:80", r"haproxy:tcp6:80:interface=\:\:1"),
        # What is a description, or is to be told what it is not.
        *[
            (same, same)
            for same in (
                "tcp:8080", "TCP:8080", "tcp:80:interface=127.0.0.1", "unix:80", "unix:a.sock",
                "udp:53", "fd:3", "tpc:8080", "http:8080", "::1:8080", "", ":", "haproxy:",
                "127.0.0.1", "127.0.0.1:", "127.0.0.1:http", "plugin:80", "\u0668\u0660",
            )
        ],
    ],
)  # fmt: skip
def test_a_short_way_is_written_out(written: str, description: str) -> None:
    assert canonical(written) == description


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            "https://127.0.0.1:8443/",
            "https needs a certificate: write tls:8443:FOLDER, or ssl:",
        ),
        ("https://localhost", "write tls:443:FOLDER"),
        ("ftp://localhost", "a URL of ftp is no place to listen at; write tcp:PORT"),
        ("http://localhost/a/b", "'/a/b' is no part of where to listen; leave it out"),
        ("http://localhost:80?x", "'?x' is no part of where to listen"),
        ("tcp://localhost", "the port is missing"),
        ("haproxy:https://localhost", "https needs a certificate"),
    ],
)
def test_a_url_that_is_no_place_to_listen_at(written: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        canonical(written)


def test_what_is_special_within_a_description_is_quoted() -> None:
    assert quoted(r"a:b\c") == r"a\:b\\c"
