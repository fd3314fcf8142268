"""Where keys and values of a text of TOML stand."""

import tomllib
from collections.abc import Iterator

import pytest

from sockserve.run.positions import Path, Positions

TEXT = """\
title = "x" # [[server]]
[[server]]
listen = [ "tcp:0", # first, "second"
  'a]b', '''c
]d''', ]
"quo\\u0074ed".'dotted key'. bare = 1979-05-27 07:32:00
inline = { a = 1.5, b.c = [ { d = "," }, {}, [] ], "e" = true }
[server.timeout]
idle = 5
[server . 'x.y']
z = \"\"\"
]]\"\"\"
[[server]]
[[server.part]]
a = 1
[[server.part]]
a = 2
[server.part.deep]
b = 3
[other.table]
c = [
  [1, 2],
  [3],
]
"""


def at(text: str, path: Path) -> tuple[str, str]:
    """What of a text begins where a key is, and where its value is."""
    positions = Positions(text)
    lines = text.split("\n")
    found = []
    for line, column in (positions.of_key(path), positions.of_value(path)):
        found.append(lines[line - 1][column - 1 :])
    return found[0], found[1]


@pytest.mark.parametrize(
    ("path", "key", "value"),
    [
        (("title",), "title", '"x"'),
        (("server", 0), "[[server]]", "[[server]]"),
        (("server", 0, "listen"), "listen", "[ "),
        (("server", 0, "listen", 0), '"tcp:0"', '"tcp:0"'),
        (("server", 0, "listen", 1), "'a]b'", "'a]b'"),
        (("server", 0, "listen", 2), "'''c", "'''c"),
        (("server", 0, "quoted"), '"quo', '"quo'),
        (("server", 0, "quoted", "dotted key"), "'dotted", "'dotted"),
        (("server", 0, "quoted", "dotted key", "bare"), "bare", "1979"),
        (("server", 0, "inline"), "inline", "{ a"),
        (("server", 0, "inline", "a"), "a =", "1.5"),
        (("server", 0, "inline", "b", "c"), "c =", "[ {"),
        (("server", 0, "inline", "b", "c", 0, "d"), "d =", '","'),
        (("server", 0, "inline", "b", "c", 1), "{}", "{}"),
        (("server", 0, "inline", "b", "c", 2), "[] ]", "[] ]"),
        (("server", 0, "inline", "e"), '"e"', "true"),
        (("server", 0, "timeout"), "timeout]", "[server.timeout]"),
        (("server", 0, "timeout", "idle"), "idle", "5"),
        (("server", 0, "x.y"), "'x.y']", "[server . "),
        (("server", 0, "x.y", "z"), "z =", '"""'),
        (("server", 1, "part", 0, "a"), "a = 1", "1"),
        (("server", 1, "part", 1, "a"), "a = 2", "2"),
        (("server", 1, "part", 1, "deep", "b"), "b", "3"),
        (("other", "table", "c", 1, 0), "3]", "3]"),
        # What is not there is where it would be.
        (("server", 0, "nothing"), "[[server]]", "[[server]]"),
        (("server", 0, "listen", 9), "[ ", "[ "),
        (("nothing", 5, "x"), "title", "title"),
    ],
    ids=str,
)
def test_a_key_and_its_value_are_found(path: Path, key: str, value: str) -> None:
    found_key, found_value = at(TEXT, path)
    assert found_key.startswith(key)
    assert found_value.startswith(value)


def paths(value: object, path: Path = ()) -> Iterator[tuple[Path, object]]:
    """The way to each value that is no table, in what C{tomllib} has read."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from paths(each, (*path, key))
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from paths(each, (*path, place))
    else:
        yield path, value


def test_each_number_and_short_text_is_where_it_is_written() -> None:
    """All of them, against the library that reads the text."""
    for path, value in paths(tomllib.loads(TEXT)):
        found = at(TEXT, path)[1]
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert found.startswith(str(value)), path
        elif isinstance(value, str):
            assert found[0] in "'\"", path


def test_a_long_list_takes_no_long_time() -> None:
    """As each item costs the same: 200,000 take seconds otherwise, not hours."""
    items = "".join(f"  '{number}',\n" for number in range(50_000))
    assert Positions(f"a = [\n{items}]\n").of_value(("a", 49_999)) == (50_001, 3)
