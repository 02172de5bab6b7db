"""docs/tools.md, read: its tables say what is done, and what comes of it."""

import re
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).parents[3] / "docs" / "tools.md"
HEADER = ["action", "command", "versions", "leaves", "why"]
_SECTION = re.compile(r"^## (.+)\n((?:(?!## ).*\n)*)", re.MULTILINE)
_CODE = re.compile(r"`([^`]*)`")
_LEFT = re.compile(r"`([^`]+)`(?: -> `([^`]+)`| (\w+))?")
_EXIT_CODE = re.compile(r"\bexit code (\d+)")


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    action: str
    command: str
    versions: int
    leaves: dict[str, str]
    """By name, what is there: a word for its content, `-> TARGET`, or nothing for a directory."""
    exit_code: int


def read_sections() -> dict[str, list[Row]]:
    """The rows of the document by the headings that they stand under."""
    text = DOCUMENT.read_text(encoding="utf-8")
    sections = {heading: read_rows(body) for heading, body in _SECTION.findall(text)}
    return {heading: rows for heading, rows in sections.items() if rows}


def read_rows(text: str) -> list[Row]:
    """The rows of the table in a text."""
    lines = [read_cells(line) for line in text.splitlines() if line.startswith("|")]
    if not lines:
        return []
    assert lines[0] == HEADER, f"a table with the columns {lines[0]}"
    return [read_row(cells) for cells in lines[2:]]


def read_cells(line: str) -> list[str]:
    r"""The cells of a line; `\|` is a bar within one."""
    cells = re.split(r"(?<!\\)\|", line)[1:-1]
    return [cell.strip().replace("\\|", "|") for cell in cells]


def read_row(cells: list[str]) -> Row:
    """A row from its cells."""
    action, command, versions, leaves, why = cells
    # <br> stands between the lines of a command.
    assert re.fullmatch(r"`[^`]+`(<br>`[^`]+`)*", command), f"{action}: the command {command!r}"
    found = {name: f"-> {target}" if target else word
             for name, target, word in _LEFT.findall(leaves)}  # fmt: skip
    assert _LEFT.sub("", leaves).strip(", ") == "", f"{action}: what is {leaves!r}?"
    exit_code = _EXIT_CODE.search(why)
    return Row(
        action, "\n".join(_CODE.findall(command)), int(versions), found,
        int(exit_code[1]) if exit_code else 0,
    )  # fmt: skip
