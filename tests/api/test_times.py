"""`at=`: the forms of ISO 8601, and what is none."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopefs.api.times import parse_at
from scopefs.errors import InvalidTime
from tests.model.strategies import explore

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST, LAST = datetime.fromisoformat("0002-01-01"), datetime.fromisoformat("9998-01-01")


def to_us(text: str) -> int:
    """Microseconds of a time that datetime itself reads."""
    return (datetime.fromisoformat(text) - EPOCH) // timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-01-21T10:00:00Z", "2026-01-21T10:00:00Z"),
        ("2026-01-21t10:00:00z", "2026-01-21T10:00:00Z"),
        ("2026-01-21 10:00:00", "2026-01-21T10:00:00Z"),
        ("2026-01-21T10:00:00.5+02:00", "2026-01-21T08:00:00.5Z"),
        ("2026-01-21T10:00:00,123456789Z", "2026-01-21T10:00:00.123456Z"),
        (f"2026-01-21T10:00:00.{'3' * 60}Z", "2026-01-21T10:00:00.333333Z"),
        ("20260121T100000-0130", "2026-01-21T11:30:00Z"),
        ("2026-01-21T10:00:00+02", "2026-01-21T08:00:00Z"),
        ("2026-01-21T10:00:00 02:00", "2026-01-21T08:00:00Z"),
        ("2026-01-21T10:00:00-00:00", "2026-01-21T10:00:00Z"),
        ("2026-W04-3T10:00:00Z", "2026-01-21T10:00:00Z"),
        ("2026021T100000Z", "2026-01-21T10:00:00Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ("2016-12-31T23:59:60.25Z", "2017-01-01T00:00:00.25Z"),
        ("2017-01-01T05:29:60+05:30", "2017-01-01T00:00:00Z"),
        ("2026-12-31T24:00:00Z", "2027-01-01T00:00:00Z"),
        ("2026-12-31T24:00Z", "2027-01-01T00:00:00Z"),
        ("2026-01-21T10:30.5Z", "2026-01-21T10:30:30Z"),
        ("2026-01-21T10.5Z", "2026-01-21T10:30:00Z"),
        ("2026-01-21T10:00Z", "2026-01-21T10:00:59.999999Z"),
        ("2026-01-21T10+01", "2026-01-21T09:59:59.999999Z"),
        ("2026-01-21", "2026-01-21T23:59:59.999999Z"),
        ("20260121", "2026-01-21T23:59:59.999999Z"),
        ("2026-021", "2026-01-21T23:59:59.999999Z"),
        ("2026-W04-3", "2026-01-21T23:59:59.999999Z"),
        ("2026W04", "2026-01-25T23:59:59.999999Z"),
        ("2026-01", "2026-01-31T23:59:59.999999Z"),
        ("2026", "2026-12-31T23:59:59.999999Z"),
        ("1969-12-31T23:59:59.5Z", "1969-12-31T23:59:59.5Z"),
        ("2026-01-21T10-00-00Zu000123", "2026-01-21T10:00:00.000123Z"),
    ],
)
def test_a_time(text: str, instant: str) -> None:
    """Each names its instant, or the end of what it names."""
    assert parse_at(text) == to_us(instant)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:60-14:00"])
def test_instants_outside_of_all_years(text: str) -> None:
    """An offset may lead out of what can be written; it is an instant all the same."""
    assert isinstance(parse_at(text), int)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "yesterday", "now", "1", "-1", "1e3", "1768989600", "2026-13-01", "2026-02-30",
        "2025-366", "2026-000", "2026-W54-1", "2026-W01-8", "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z", "+010000-01-01T00:00:00Z", "2026-01-21T25:00:00Z",
        "2026-01-21T24:00:01Z", "2026-01-21T24:00:00.1Z", "2026-01-21T10:60:00Z",
        "2026-01-21T10:00:61Z", "2026-01-21T10:00:00.Z", "2026-01-21T10:00:00+24:00",
        "2026-01-21T10:00:00+02:60", "2026-01-21T10:00:00 Z", "2026-01-21T10:00:00ZZ",
        "2026-01-21X10:00:00Z", "2026-01-21T10:00:00Europe/Berlin", "\0", "2026-01-21\0",
        "\u0662\u0660\u0662\u0666-01-21T10:00:00Z", "2" * 101,
    ],
)  # fmt: skip
def test_what_is_no_time(text: str) -> None:
    """Refused, never guessed."""
    with pytest.raises(InvalidTime):
        parse_at(text)


@explore
@given(
    st.datetimes(FIRST, LAST),
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
    st.booleans(),
)
def test_any_time_that_datetime_writes(moment: datetime, minutes: int, is_basic: bool) -> None:
    """The instant is the one that datetime means, whatever the offset."""
    moment = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    text = moment.isoformat()
    if is_basic:
        text = text[:10].replace("-", "") + text[10:].replace(":", "")
    assert parse_at(text) == to_us(moment.isoformat())


@explore
@given(st.text(max_size=40) | st.from_regex(r"[0-9]{4}[-0-9W]{0,6}T?[0-9:.+Z-]{0,15}\Z"))
def test_any_text(text: str) -> None:
    """A time, or `InvalidTime`."""
    with suppress(InvalidTime):
        assert isinstance(parse_at(text), int)
