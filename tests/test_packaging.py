"""What C{make release}, which C{make check} runs, takes for a whole release."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / ".ci/release.py"


@pytest.fixture
def release() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def wheel() -> set[str]:
    """The names in a wheel that is whole."""
    paths = [path for kind in ("py", "html") for path in (ROOT / "sockserve").rglob(f"*.{kind}")]
    sources = {path.relative_to(ROOT).as_posix() for path in paths}
    about = {f"sockserve-1.dist-info/{name}" for name in ("METADATA", "licenses/LICENSE")}
    data = {"sockserve/py.typed", "sockserve/sockserve.schema.json"}
    plugins = {f"twisted/plugins/sockserve_{name}.py" for name in ("plugin", "reactors")}
    return sources | about | data | plugins


@pytest.fixture
def source(release: ModuleType) -> set[str]:
    """The names in a source distribution that is whole."""
    paths = [path for folder in release.FOLDERS for path in (ROOT / folder).rglob("*")]
    names = [path.relative_to(ROOT).as_posix() for path in paths if "__pycache__" not in path.parts]
    return {f"sockserve-1/{name}" for name in [*names, *release.FILES, "PKG-INFO"]}


def test_release_is_built_into_an_empty_folder_only(release: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "sockserve-0.0.1.tar.gz").touch()
    with pytest.raises(SystemExit, match="not empty"):
        release.main(tmp_path)


def test_whole_distributions_pass(release: ModuleType, wheel: set[str], source: set[str]) -> None:
    release.check_wheel(wheel)
    release.check_source(source)


@pytest.mark.parametrize(
    "name",
    [
        "sockserve/py.typed",
        "sockserve/sockserve.schema.json",
        "sockserve/http/__init__.py",
        "sockserve/http/templates/listing.html",
        "sockserve-1.dist-info/licenses/LICENSE",
        "twisted/plugins/sockserve_plugin.py",
        "twisted/plugins/sockserve_reactors.py",
    ],
)
def test_wheel_that_lacks_a_file_is_refused(
    name: str, release: ModuleType, wheel: set[str]
) -> None:
    with pytest.raises(SystemExit, match="missing"):
        release.check_wheel(wheel - {name})


@pytest.mark.parametrize("name", ["twisted/__init__.py", "tests/tools.py", "sockserve/notes.txt"])
def test_wheel_with_a_file_too_many_is_refused(
    name: str, release: ModuleType, wheel: set[str]
) -> None:
    with pytest.raises(SystemExit, match=f"too much.*{name}"):
        release.check_wheel(wheel | {name})


@pytest.mark.parametrize(
    "name", ["CHANGELOG.md", "LICENSE", "docs/README.md", "tests/tools.py", "sockserve/py.typed"]
)
def test_source_that_lacks_a_file_is_refused(
    name: str, release: ModuleType, source: set[str]
) -> None:
    with pytest.raises(SystemExit, match=f"missing.*{name}"):
        release.check_source(source - {f"sockserve-1/{name}"})


@pytest.mark.parametrize("name", ["build/api/index.html", "tests/__pycache__/tools.pyc", ".env"])
def test_source_with_a_file_too_many_is_refused(
    name: str, release: ModuleType, source: set[str]
) -> None:
    with pytest.raises(SystemExit, match="too much"):
        release.check_source(source | {f"sockserve-1/{name}"})
