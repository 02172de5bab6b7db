"""Events: their lines, the chain of hashes, their times."""

import hashlib
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopefs.model.events import (
    FIRST_HASH,
    decode_detail,
    encode_detail,
    encode_event_line,
    hash_event_line,
    next_at_us,
)
from scopefs.model.stamps import parse_collected_at
from tests.model.strategies import explore, instants_us, json_objects

AT_US = parse_collected_at("2026-01-21T10:00:00.000123Z")

details = st.tuples(
    st.sampled_from(("version", "name", "rename", "end")),
    json_objects.map(lambda members: {f"x{key}": value for key, value in members.items()}),
)


def chain(*names: str) -> list[bytes]:
    """The lines of consecutive events."""
    lines: list[bytes] = []
    for seq, name in enumerate(names, start=1):
        previous = hash_event_line(lines[-1]) if lines else FIRST_HASH
        detail = encode_detail("name", {"name": name})
        lines.append(encode_event_line(seq, AT_US + seq, previous, detail))
    return lines


def is_chained(lines: list[bytes]) -> bool:
    """Whether each line names the SHA-256 of the one before it."""
    previous = bytes(32)
    for line in lines:
        if json.loads(line)["prev"] != previous.hex():
            return False
        previous = hashlib.sha256(line).digest()
    return True


def test_a_line_has_its_members_in_order() -> None:
    """seq, at, prev, op, then what belongs to the op: the bytes that the format fixes."""
    line = encode_event_line(7, AT_US, FIRST_HASH, encode_detail("name", {"name": "é\n"}))
    assert line == (
        b'{"seq":7,"at":"2026-01-21T10:00:00.000123Z","prev":"' + b"00" * 32 + b'","op":"name",'
        b'"name":"\xc3\xa9\\n"}'
    )


@explore
@given(details)
def test_details_read_back_as_they_were(detail: tuple[str, dict[str, object]]) -> None:
    """The members behind prev are kept as text, and decode to what was recorded."""
    op, members = detail
    assert decode_detail(encode_detail(op, members)) == {"op": op, **members}


@explore
@given(st.integers(1, 1 << 62), instants_us, st.binary(min_size=32, max_size=32), details)
def test_a_line_is_one_line_of_json(
    seq: int, at_us: int, previous: bytes, detail: tuple[str, dict[str, object]]
) -> None:
    """Whatever an event says, its line is JSON without a newline, and says it."""
    line = encode_event_line(seq, at_us, previous, encode_detail(*detail))
    read = json.loads(line)
    assert b"\n" not in line
    assert list(read)[:4] == ["seq", "at", "prev", "op"]
    assert (read["seq"], read["prev"]) == (seq, previous.hex())
    assert parse_collected_at(read["at"]) == at_us


def test_lines_are_a_chain() -> None:
    """Each line names the hash of the one before; the first names zeros."""
    assert is_chained(chain("a", "b", "c"))


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_a_changed_line_breaks_the_chain(changed: int) -> None:
    """Whoever changes a line breaks the line behind it."""
    lines = chain("a", "b", "c", "d")
    lines[changed] = lines[changed].replace(b'"name":"', b'"name":"x')
    assert not is_chained(lines)


@pytest.mark.parametrize("removed", [0, 1, 2])
def test_a_removed_line_breaks_the_chain(removed: int) -> None:
    """Whoever removes a line breaks the line behind it."""
    lines = chain("a", "b", "c", "d")
    del lines[removed]
    assert not is_chained(lines)


@pytest.mark.parametrize(
    ("now_us", "last_us", "collected_us", "expected_us"),
    [
        (AT_US, 0, 0, AT_US),
        (AT_US, AT_US - 1, 0, AT_US),
        (AT_US, AT_US, 0, AT_US + 1),
        (AT_US, AT_US + 50, 0, AT_US + 51),
        (AT_US, 0, AT_US + 9, AT_US + 9),
        (AT_US, AT_US + 50, AT_US + 9, AT_US + 51),
        (AT_US, AT_US + 9, AT_US + 50, AT_US + 50),
    ],
)
def test_the_time_of_the_next_event(
    now_us: int, last_us: int, collected_us: int, expected_us: int
) -> None:
    """Strictly after the last event, not before its version, else the clock's."""
    assert next_at_us(now_us, last_us, collected_us) == expected_us


@explore
@given(st.lists(st.tuples(instants_us, instants_us), min_size=2))
def test_event_times_grow_strictly_whatever_the_clock_does(clocks: list[tuple[int, int]]) -> None:
    """The times of events only grow, though the clock steps back."""
    times = [clocks[0][0]]
    for now_us, collected_us in clocks:
        times.append(next_at_us(now_us, times[-1], collected_us))
    assert all(earlier < later for earlier, later in pairwise(times))
