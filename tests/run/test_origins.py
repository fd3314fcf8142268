"""Where a mistake was made: what an error carries leads to it, whatever its message says."""

from collections.abc import Mapping

import pytest

from sockserve import ConfigurationError
from sockserve.core.messages import about
from sockserve.run.asked import servers_asked_for
from sockserve.run.config_file import read_toml
from sockserve.run.origins import Origins, Table
from sockserve.run.positions import Positions
from sockserve.run.together import check_together

TEXT = "listen = [\n  'tcp:1',\n  'tcp:2']\ntimeout = { idle = 1 }\nport = 3\nurl = 'x'\n"
WORDS: Mapping[str, object] = {
    "listen": ["tcp:1", "tcp:2"],
    "timeout": {"idle": 1},
    "port": 3,
    "url": "x",
}


@pytest.mark.parametrize(
    ("error", "place"),
    [
        (ConfigurationError("any"), "1:1"),
        (ConfigurationError("any", "listen"), "1:10"),
        (ConfigurationError("any", "listen", 1), "3:3"),
        (ConfigurationError("any", "timeout", "idle"), "4:20"),
        (ConfigurationError("any", "timeout", "idle", is_name=True), "4:13"),
        (ConfigurationError("any", "port", is_name=True), "5:1"),
        (ConfigurationError("any", "port", 0), "5:8"),
        (ConfigurationError("any", "source", 0), "6:7"),  # which is url in a table
        (ConfigurationError("any", "path"), "1:1"),
    ],
)
def test_an_error_is_led_to_its_place_in_a_file(error: ConfigurationError, place: str) -> None:
    table = Table("a.toml", lambda: Positions(TEXT), ())
    Origins(WORDS, table=table).locate(error)
    assert str(error) == f"a.toml:{place}: any"


def test_an_error_is_about_the_innermost_word() -> None:
    with pytest.raises(ConfigurationError) as caught, about("listen", 1), about("handler"):
        raise ConfigurationError("any")
    assert (caught.value.word, caught.value.item) == ("handler", None)
    with pytest.raises(ConfigurationError) as caught, about("listen", 1), about("handler"):
        raise ConfigurationError("any", "listen")
    assert (caught.value.word, caught.value.item) == ("listen", 1)


def test_a_variable_is_named_where_a_message_is_about_what_it_stands_for() -> None:
    words: dict[str, object] = {"handler": "socketserver:StreamRequestHandler"}
    ones = [servers_asked_for(words, {"port": "7070"})[0] for _ in range(2)]
    with pytest.raises(ConfigurationError, match=r"^SOCKSERVE_PORT: listen 'tcp:7070:.*: port 70"):
        check_together(ones)  # type: ignore[arg-type]


def test_a_short_way_to_say_where_is_found_in_its_list(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text("[[server]]\nlisten = ['tcp:7070',\n  ':7070']\n")
    with pytest.raises(ConfigurationError, match=r"^a\.toml:3:3: listen 'tcp:7070': port 7070 is"):
        check_together(read_toml("a.toml"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "variables"),
    [
        ({"listen": ["tcp:0"]}, {"certfile": "c.pem"}),
        ({"certfile": "c.pem"}, {"listen": ["tcp:0"]}),
        ({"unix": "s"}, {"certfile": "c.pem"}),
    ],
)
def test_tls_that_one_place_asks_for_is_not_dropped_by_another(options, variables):
    with pytest.raises(ConfigurationError, match=r"does not go with (listen|unix)"):
        servers_asked_for(options, variables)
