"""`at=`: an instant in any form of ISO 8601, in microseconds. Raises `InvalidTime`."""

import re
from datetime import date, timedelta

from scopefs.errors import InvalidTime
from scopefs.model.stamps import SECOND_US, parse_time

_TEXT_MAX = 100
_DAY_US = 86_400 * SECOND_US
_EPOCH = date(1970, 1, 1)
_ISO = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d|\d{8}|\d{4}-?W\d\d(?:-?(?P<weekday>\d))?|(?P<ordinal>\d{4}-?\d{3}))"
    r"(?:[T ](?P<hour>\d\d)(?::?(?P<minute>\d\d)(?::?(?P<second>\d\d))?)?(?:[.,](?P<fraction>\d+))?"
    r"(?P<zone>Z|(?P<sign>[+-])(?P<off_hour>\d\d)(?::?(?P<off_minute>\d\d))?)?)?\Z",
    re.ASCII,
)
# A `+` that was not escaped has become a blank.
_LOST_PLUS = re.compile(
    r"(.*T\d\d(?::?\d\d(?::?\d\d)?)?(?:[.,]\d+)?) (\d\d(?::?\d\d)?)\Z", re.ASCII
)


def parse_at(text: str) -> int:
    """An instant: with an offset (else UTC) and a fraction or without, on a date of any kind.

    A time without seconds is the end of the day, week, hour or minute that it names; so `at=` with
    the collectedAt of a version finds that version, and `at=2026-01-21` the last one of that day.
    `24:00` is the next day's midnight, and `:60`, a leap second, the next minute's first.
    """
    if len(text) > _TEXT_MAX:
        raise InvalidTime("the time cannot be read: it is too long")
    iso = _LOST_PLUS.sub(r"\1+\2", text.strip().upper())
    found = _ISO.match(iso)
    # A year, a month, a stamp; or nothing.
    return parse_time(text) if found is None else _compute(found, text)


def _compute(found: re.Match[str], text: str) -> int:
    try:
        start_us = (_parse_date(found) - _EPOCH).days * _DAY_US
    except ValueError as error:
        raise InvalidTime(f"{text!r} is no time: {error}") from error
    if found["hour"] is None:
        is_week = "W" in found["date"] and found["weekday"] is None
        return start_us + (7 if is_week else 1) * _DAY_US - 1
    hour, minute, second, off_hour, off_minute = (
        int(found[part] or 0) for part in ("hour", "minute", "second", "off_hour", "off_minute")
    )
    start_us += (hour * 3600 + minute * 60 + second) * SECOND_US
    is_midnight = hour == 24 and not (minute or second or int(found["fraction"] or 0))
    if (hour > 23 and not is_midnight) or minute > 59 or second > 60:
        raise InvalidTime(f"{text!r} is no time of a day")
    if off_hour > 23 or off_minute > 59:
        raise InvalidTime(f"{text!r}: no such offset")
    start_us -= (-1 if found["sign"] == "-" else 1) * (off_hour * 60 + off_minute) * 60 * SECOND_US
    unit_us = SECOND_US * (1 if found["second"] else 60 if found["minute"] else 3600)
    if found["fraction"]:
        whole: int = 10 ** len(found["fraction"])
        return start_us + unit_us * int(found["fraction"]) // whole
    return start_us if found["second"] or is_midnight else start_us + unit_us - 1


def _parse_date(found: re.Match[str]) -> date:
    if found["ordinal"] is None:
        return date.fromisoformat(found["date"])
    digits = found["ordinal"].replace("-", "")
    first = date(int(digits[:4]), 1, 1)
    day = first + timedelta(days=int(digits[4:]) - 1)
    if day.year != first.year:
        raise ValueError("the year has no such day")
    return day
