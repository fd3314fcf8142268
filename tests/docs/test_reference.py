"""What is made of the table of options is as the table says now."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / ".ci/reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_the_command_line_has_the_tables_of_all_options(reference: ModuleType) -> None:
    page = reference.PAGE.read_text()
    assert page == reference.page_with_tables(page), "due: make reference"


def test_the_schema_that_is_packaged_is_the_one_of_the_table(reference: ModuleType) -> None:
    assert reference.SCHEMA.read_text() == reference.file_schema(), "due: make reference"
