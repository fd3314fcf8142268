"""What the site has besides the pages in docs/: the API reference, made from the docstrings."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
API = ROOT / "build" / "api"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the API reference, which C{make api} has made."""
    for path in sorted(API.rglob("*")):
        if path.is_file():
            name = f"api/{path.relative_to(API).as_posix()}"
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files
