"""docs/tools.md itself: each of its rows is run, and what tests add to it belongs to a row."""

import re
from collections import Counter
from pathlib import Path

from tests.mount.tools.contents import CONTENTS, GONE
from tests.mount.tools.table import read_cells, read_row, read_sections


def test_every_section_is_run() -> None:
    """No row is left out: the sections of the document are those that tests name."""
    tests = Path(__file__).parent.glob("test_*.py")
    run = re.findall(r'^@rows_of\("(.+)"\)$', "".join(path.read_text() for path in tests), re.M)
    assert sorted(run) == sorted(read_sections())


def test_actions_have_names_of_their_own() -> None:
    """An action's name is enough to find its row, and what tests say of it."""
    counted = Counter(row.action for rows in read_sections().values() for row in rows)
    assert max(counted.values()) == 1, counted.most_common(3)
    assert CONTENTS.keys() | GONE.keys() <= counted.keys()


def test_cells_are_read() -> None:
    """Bars within a cell, lines of a command, links, directories and exit codes are understood."""
    line = r"| a | `x \| y`<br>`z` | 2 | `f` old, `#f#` other, `D/`, `g` -> `f` | exit code 3: so |"
    row = read_row(read_cells(line))
    assert (row.action, row.command, row.versions, row.exit_code) == ("a", "x | y\nz", 2, 3)
    assert row.leaves == {"f": "old", "#f#": "other", "D/": "", "g": "-> f"}
