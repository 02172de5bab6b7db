"""docs/invariants.md names tests that are there, and invariants that are checked."""

import re
from pathlib import Path

from scopefs.store import checks

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "invariants.md").read_text()


def test_named_tests_are_there() -> None:
    """Each `file.py::test` of the page exists in some file of that name."""
    named = re.findall(r"`(?:tests/)?([\w/]*test_\w+\.py)(?:::(\w+))?`", PAGE)
    assert len(named) > 20
    for file, test in named:
        texts = [path.read_text() for path in TESTS.rglob(Path(file).name)]
        assert any(f"def {test}(" in text if test else text for text in texts), (file, test)


def test_numbers_are_those_of_the_checks() -> None:
    """Each invariant of the table has a check, and each check its invariant."""
    known = {int(number) for number in re.findall(r"^I(\d+) ", checks.__doc__ or "", re.MULTILINE)}
    told: set[int] = set()
    for cell in re.findall(r"^\| (I\d[^|]*) \|", PAGE, re.MULTILINE):
        numbers = [int(number) for number in re.findall(r"\d+", cell)]
        told |= set(range(numbers[0], numbers[-1] + 1))
    assert told == known
    assert {int(number) for number in re.findall(r"\bI(\d+)\b", PAGE)} <= known
