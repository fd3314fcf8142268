"""
What is made of the table of options: the tables of the page of the command line, and the schema of
configuration files.

C{make reference} runs it.  A test says when that is due.
"""

import re
import sys
from pathlib import Path

from sockserve.run.options.schema import file_schema
from sockserve.run.options.words import OPTIONS, OWN_OPTIONS, Option

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/reference/command-line.md"
SCHEMA = ROOT / "sockserve/sockserve.schema.json"

BEGIN = "<!-- options: written by make reference -->\n"
END = "<!-- options: end -->\n"

#: What is code in a description, which has no markup: options, and what stands for a value.
_CODE = re.compile(
    r"(--[a-z-]+(?: fork)?|\[\[\w+\]\]|\b[a-z]+:(?:///?[\w/?=]+|[A-Z:]+)|\b[A-Z]+[:/][A-Z]+\b)"
)


def row(option: Option) -> str:
    """The row of an option."""
    notes = option.notes
    names = [f"`--{option.word} {notes.metavar}`".replace(" `", "`")]
    names += [f"`-{notes.short}`"] if notes.short else []
    told = option.description + ("; repeatable" if notes.is_list else "")
    # Words of a command line, and what stands for something in them, are code.
    told = _CODE.sub(r"`\1`", told)
    more = f". {notes.page}" if notes.page else ""
    default = "" if notes.default is None else f"`{notes.default}`"
    return f"| {', '.join(names)} | {default} | {told}{more} |\n"


def tables() -> str:
    """The tables of all options, one for each group."""
    found: dict[str, list[Option]] = {}
    for option in (*OPTIONS.values(), *OWN_OPTIONS.values()):
        found.setdefault(option.notes.group.value, []).append(option)
    head = "| option | default | meaning |\n|---|---|---|\n"
    return "\n".join(
        f"### {heading}\n\n{head}{''.join(map(row, options))}" for heading, options in found.items()
    )


def page_with_tables(page: str) -> str:
    """The page with these tables in the place of those that it has."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


def main() -> None:
    """Write what is made of the table."""
    PAGE.write_text(page_with_tables(PAGE.read_text()))
    SCHEMA.write_text(file_schema())
    print(f"written: {PAGE.relative_to(ROOT)}, {SCHEMA.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
