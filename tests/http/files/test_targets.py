"""What a request's target names: decoding, dots, slashes, and links back."""

import os
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sockserve.http.files.targets import link_to, parse_target, shown


@pytest.mark.parametrize(
    ("target", "impossible"), [("/a%00b/c", True), ("/a/b%000", True), ("/a%20", False)]
)
def test_a_name_with_a_null_is_impossible(target, impossible):
    assert parse_target(target).is_impossible is impossible


@pytest.mark.parametrize(
    ("target", "words", "as_folder", "query"),
    [
        ("/", [], True, ""),
        ("/a/b", ["a", "b"], False, ""),
        ("/a/b/", ["a", "b"], True, ""),
        ("//a///b", ["a", "b"], False, ""),
        ("/a?b/c?d", ["a"], False, "?b/c?d"),
        ("/a#b", ["a"], False, ""),
        ("/a%20b%2Fc", ["a b", "c"], False, ""),
        ("/a%2f", ["a"], True, ""),
        ("/a%3Fb%23c", ["a?b#c"], False, ""),
        ("/100%", ["100%"], False, ""),
        ("/%zz%4", ["%zz%4"], False, ""),
        ("/a+b;c=d", ["a+b;c=d"], False, ""),
        # dots
        ("/a/./b/../c", ["a", "c"], False, ""),
        ("/../../etc/passwd", ["etc", "passwd"], False, ""),
        ("/a/%2e%2E/%2e./b", ["b"], False, ""),
        ("/a/..", [], True, ""),
        ("/a/.", ["a"], True, ""),
        ("/a/...", ["a", "..."], False, ""),
        ("/a/..%5c..%5cb", ["a", "..\\..\\b"], False, ""),
        # another form, and none
        ("http://example.com/a?b", ["a"], False, "?b"),
        ("http://example.com", [], True, ""),
        ("http://example.com?b", [], True, "?b"),
        ("*", ["*"], False, ""),
        ("", [], True, ""),
        # bytes
        ("/caf%C3%A9", ["café"], False, ""),
        ("/caf\u00c3\u00a9", ["café"], False, ""),
        ("/caf%E9", ["caf\udce9"], False, ""),
        ("/\u65e5", ["\u65e5"], False, ""),
    ],
)
def test_targets(target, words, as_folder, query):
    assert parse_target(target) == (tuple(words), as_folder, query)


@pytest.mark.parametrize(
    ("target", "hidden"),
    [
        ("/a/b.txt", False),
        ("/.env", True),
        ("/.git/config", True),
        ("/a/.b/c", True),
        ("/%2egit/config", True),
        ("/...", True),
        ("/.hidden/../a", False),
        ("/.well-known/acme-challenge/token", False),
        ("/.well-known", False),
        ("/.well-known/.git/config", True),
        ("/.well-known-not", True),
        ("/a/.well-known/b", True),
    ],
)
def test_dotfiles(target, hidden):
    assert parse_target(target).is_hidden is hidden


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("/a", "/a/"),
        ("/a/b?c=d&e", "/a/b/?c=d&e"),
        ("//evil.example/..", "/"),
        ("//evil.example", "/evil.example/"),
        ("//evil.example//x/..//a?//b", "/evil.example/a/?//b"),
        ("/%2f%2fevil.example", "/evil.example/"),
        ("/\\evil.example", "/%5Cevil.example/"),
        ("http://evil.example/a", "/a/"),
        ("/a%0d%0ab:%20c", "/a%0D%0Ab:%20c/"),
        ("/caf%E9/%25", "/caf%E9/%25/"),
    ],
)
def test_where_a_folder_is(target, location):
    assert parse_target(target).folder_location == location


@given(st.text(st.characters(max_codepoint=255)))
def test_no_target_leads_up_or_to_another_host(target):
    parsed = parse_target("/" + target)
    assert {"", ".", ".."}.isdisjoint(parsed.segments)
    assert not any("/" in name for name in parsed.segments)
    location = urlsplit(urljoin("http://here/", parsed.folder_location.partition("?")[0]))
    assert (location.scheme, location.netloc) == ("http", "here")


@given(st.binary(min_size=1).filter(lambda name: name not in (b".", b"..") and b"/" not in name))
def test_a_link_leads_to_its_name(raw):
    name = os.fsdecode(raw)
    url = urlsplit(urljoin("http://here/folder/", link_to(name)))
    assert (url.netloc, url.query, url.fragment) == ("here", "", "")
    assert unquote_to_bytes(url.path) == b"/folder/" + raw
    assert parse_target(url.path).segments == ("folder", name)


def test_what_cannot_be_shown_is_replaced():
    assert shown("caf\udce9") == "caf\ufffd"
    assert shown("café") == "café"
