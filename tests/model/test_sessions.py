"""Sessions: what becomes of a file when its last writer is released."""

from itertools import product

import pytest

from scopefs.model.sessions import FailedWrite, Outcome, plan_release


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ({"has_session": True, "is_recorded": True}, Outcome.RECORD),
        ({"has_session": True}, Outcome.RECORD),
        ({"is_recorded": True}, Outcome.NOTHING),
        ({}, Outcome.RECORD),
        ({"has_session": True, "failed": True}, Outcome.KEEP_PARTIAL),
        ({"has_session": True, "is_recorded": True, "failed": True}, Outcome.KEEP_PARTIAL),
        ({"has_session": True, "is_unlinked": True}, Outcome.DROP),
        ({"has_session": True, "is_unlinked": True, "failed": True}, Outcome.DROP),
        ({"is_unlinked": True}, Outcome.DROP),
    ],
)
def test_the_release_of_the_last_writer(case: dict[str, bool], expected: Outcome) -> None:
    """The table of semantics S1: what is written is recorded, unless a rule says otherwise."""
    quiet = {"has_session": False, "is_recorded": False, "is_unlinked": False, "failed": False}
    assert plan_release(**{**quiet, **case}) is expected


EVERY_CASE = [
    {"has_session": session, "is_recorded": recorded, "is_unlinked": unlinked, "failed": failed}
    for session, recorded, unlinked, failed in product((False, True), repeat=4)
]


@pytest.mark.parametrize("case", EVERY_CASE, ids=str)
def test_only_a_whole_written_file_is_recorded(case: dict[str, bool]) -> None:
    """A session is recorded if nothing failed and the file has a name; a new name always is."""
    whole = case["has_session"] and not (case["failed"] or case["is_unlinked"])
    new = not (case["has_session"] or case["is_recorded"] or case["is_unlinked"])
    assert (plan_release(**case) is Outcome.RECORD) == (whole or new)


@pytest.mark.parametrize("case", EVERY_CASE, ids=str)
def test_bytes_are_dropped_with_their_last_name_alone(case: dict[str, bool]) -> None:
    """Nothing is thrown away but what the user unlinked."""
    outcome = plan_release(**case)
    assert (outcome is Outcome.DROP) == bool(case["is_unlinked"])


@pytest.mark.parametrize(
    ("offset", "size", "expected"),
    [
        (100, 50, True),
        (0, 150, True),
        (0, 1000, True),
        (100, 49, False),
        (101, 50, False),
        (101, 49, False),
        (0, 100, False),
        (150, 50, False),
    ],
)
def test_a_failed_write_is_repeated_by_one_that_covers_it(
    offset: int, size: int, expected: bool
) -> None:
    """Only a later write over every byte of it makes a failed write good."""
    assert FailedWrite(100, 50, 28).is_repeated_by(offset, size) is expected


def test_a_failed_change_of_size_is_repeated_by_no_write() -> None:
    """No write makes good what a truncation did not do."""
    assert not FailedWrite(100, -1, 28).is_repeated_by(0, 1000)
