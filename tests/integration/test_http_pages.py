"""The pages that are shown to people, as a browser has them: listings and errors."""

import json
import os
import re

import pytest

from sockserve.http import FileRequestHandler
from tests.integration.servers import serving
from tests.integration.test_http_clients import run, url

pytestmark = pytest.mark.usefixtures("no_leaks", "errors")

#: Chromium's numbers for C{prefers-color-scheme}.
SCHEMES = {"dark": 0, "light": 1}

#: A page beside the listing, which looks at that in a frame of a width, by a script; those that it
#: shows have none.
PROBE = """<!doctype html><meta name=color-scheme content="light dark">
<iframe src="%(target)s" width=%(width)d height=600 style="border:0"></iframe><p id=seen></p>
<script>
onload = async () => {
    const page = document.querySelector("iframe").contentDocument
    const style = element => getComputedStyle(element)
    const edge = element => element.getBoundingClientRect()
    const all = selector => [...page.querySelectorAll(selector)]
    const texts = selector => all(selector).map(one => one.textContent)
    const files = all("li a").filter(link => link.pathname.endsWith(".txt"))
    const seen = {
        width: page.documentElement.scrollWidth,
        ink: style(page.body).color,
        paper: style(page.body).backgroundColor,
        heading: page.querySelector("h1").textContent.trim(),
        names: texts("li a"),
        details: texts("li time"),
        order: all("nav a").map(link => link.search),
        low: all("li a, nav a").filter(link => edge(link).height < 24).length,
        far: all("a, span, time").filter(one => edge(one).right > %(width)d).length,
        bodies: await Promise.all(files.map(async link => (await fetch(link.href)).text())),
        scripts: page.scripts.length,
        styled: all("li").every(row => style(row).display == "grid"),
    }
    document.getElementById("seen").textContent = JSON.stringify(seen)
}
</script>
"""

NAMES = ["a?b.txt", "a#b.txt", "100%.txt", '"a".txt', "<b>.txt", "new\nline.txt", "caf\udce9.txt"]
LONG = "long-" * 40 + ".log"


@pytest.fixture
def site(tmp_path):
    site = tmp_path / "site"
    folder = site / "list"
    (folder / "sub").mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_bytes(os.fsencode(name))
    (folder / LONG).write_bytes(b"x" * 5000)
    os.utime(folder / LONG, (1e9, 1e9))
    return site


async def look(site, tmp_path, target, width=320, scheme="light"):
    """What a browser makes of a page in a frame of C{width} pixels."""
    (site / "probe.html").write_text(PROBE % {"target": target, "width": width})
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000"]
    options += [f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}"]

    class Site(FileRequestHandler):
        directory = str(site)

    async with serving(Site) as server:
        dom = await run("chromium", *options, "--dump-dom", url(server, "/probe.html"))
    seen = re.search('<p id="seen">(.+?)</p>', dom.decode(), re.DOTALL)
    assert seen is not None, dom.decode()
    text = seen[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    return json.loads(text)


def brightness(color):
    return sum(map(int, re.findall("[0-9]+", color)[:3])) / 3


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [320, 1200])
async def test_a_listing_is_to_be_read_on_any_screen(site, tmp_path, width, scheme):
    seen = await look(site, tmp_path, "/list/?sort=size", width, scheme)
    assert seen["width"] <= width, "it needs no scrolling to the side"
    assert seen["far"] == 0
    assert seen["low"] == 0, "what is touched is as high as WCAG 2.2 asks for, 24 pixels"
    paper, ink = brightness(seen["paper"]), brightness(seen["ink"])
    assert (paper > 200 > 60 > ink) if scheme == "light" else (paper < 60 < 200 < ink)
    assert seen["heading"] == "Index of /list/"
    assert seen["names"][:3] == ["../", "sub/", LONG]
    assert sorted(seen["names"][3:]) == sorted(
        name.replace("\n", "\\x0a").replace("\udce9", "\ufffd") for name in NAMES
    )
    assert seen["details"][1] == "2001-09-09 01:46 UTC"
    assert seen["order"] == [
        "?sort=name&order=asc",
        "?sort=size&order=asc",
        "?sort=time&order=desc",
    ]
    assert sorted(seen["bodies"]) == sorted(name.replace("\udce9", "\ufffd") for name in NAMES)
    assert seen["scripts"] == 0
    assert seen["styled"], "its policy allows its own style"


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_so_is_an_error(site, tmp_path, scheme):
    seen = await look(site, tmp_path, "/nothing", 320, scheme)
    assert seen["width"] <= 320
    paper, ink = brightness(seen["paper"]), brightness(seen["ink"])
    assert (paper > 200 > 60 > ink) if scheme == "light" else (paper < 60 < 200 < ink)
    assert seen["heading"] == "Error 404 Not Found"
