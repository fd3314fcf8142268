"""Accept: who is sent JSON."""

import pytest

from sockserve.http.accept import asks_for_json


@pytest.mark.parametrize(
    "accept",
    [
        "application/json",
        "application/problem+json",
        "Application/JSON",
        "application/vnd.github+json",
        "application/*",
        "application/json, text/plain, */*",  # axios
        "application/json;q=0.5, text/html;q=0.4",
        "text/html;q=0, application/json",
        "text/html;q=0.2, */*;q=0.1, application/json;q=0.3",
        'application/json;profile="a, b;q=0"',
        "application/json ; charset=utf-8 ; q=0.9",
        "text/*;q=0.5, application/json",
        "nonsense, application/json",
        "application/json;q=1.000",
        ",, application/json,",
    ],
)
def test_a_client_that_asks_for_json(accept: str) -> None:
    assert asks_for_json(accept, "text/html;charset=utf-8")


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "text/html",
        "text/plain",
        "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",  # browsers
        "text/html, application/json",
        "text/html, application/json;q=0.9",
        "application/json;q=0",
        "application/json;q=0, */*",
        "application/json;q=0, text/plain",
        "application/json;q=2",
        "application/json;q=high",
        "application/json;q=-1",
        "application/jsonp",
        "json",
        '"application/json"',
        'text/plain;a=", application/json',
        "application/*;q=0.5, text/html",
    ],
)
def test_a_client_that_does_not(accept: str) -> None:
    assert not asks_for_json(accept, "text/html;charset=utf-8")


def test_a_class_whose_own_form_is_json_keeps_it() -> None:
    assert not asks_for_json("application/json", "application/json; charset=utf-8")
    assert not asks_for_json("*/*", "application/json")
    assert asks_for_json("application/problem+json", "application/json")


def test_a_long_field_is_read_as_fast_as_a_short_one() -> None:
    """In time that grows with its length: 64 KiB, which is what a head may have."""
    for piece in (",", ";", '"', '\\"', "a/b;q=", '";"'):
        assert not asks_for_json(piece * (2**16 // len(piece)), "text/html")
