"""Times: collectedAt, the stamps that name version files, and times that users ask for.

Unit: `_us` is integer microseconds since 1970-01-01T00:00:00Z. Order is by that integer, never by
text. Two texts name each instant:

=============  ===========================  ===================================
               whole second                 with a fraction
collectedAt    2026-01-21T10:00:00Z         2026-01-21T10:00:00.000123Z
stamp          2026-01-21T10-00-00Z         2026-01-21T10-00-00Zu000123
=============  ===========================  ===================================

A stamp's fraction stands behind the Z so that plain `ls` order is time order, in the C locale and
in UTF-8 locales ("Z000123" is not: some locales skip punctuation and compare digits first).

Text from outside is parsed, and refused there; what is to be written comes from the clock or from a
row. So an instant that cannot be written is a row's fault: every `format_` raises `IndexBroken`.
"""

import re
from calendar import timegm
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from scopefs.errors import IndexBroken, InvalidTime

SECOND_US = 1_000_000
MAX_US = 253_402_300_800 * SECOND_US
"""The first instant that four-digit years cannot write (10000-01-01T00:00:00Z)."""
_MIN_US = -62_135_596_800 * SECOND_US
"""0001-01-01T00:00:00Z, the first that can be written."""

_COLLECTED_AT = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d{6}))?Z\Z", re.ASCII)
_STAMP = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d)-(\d\d)-(\d\d)Z(?:u(\d{6}))?\Z", re.ASCII)
_QUERY = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?"
    r"(?P<zone>Z|[+-]\d\d:?(?:\d\d)?)?)?)?)?\Z",
    re.ASCII | re.IGNORECASE,
)


class _NoInstant(IndexBroken, ValueError):
    """A value too: who looks for what is broken, or rebuilds it, expects any of a row to be bad."""


def format_collected_at(us: int) -> str:
    """Write an instant as collectedAt."""
    second, fraction = _split(us)
    text = _format_second(second)
    return f"{text}.{fraction:06d}Z" if fraction else f"{text}Z"


def parse_collected_at(text: str) -> int:
    """Read collectedAt, in microseconds. Raises `InvalidTime` for any other form."""
    match = _COLLECTED_AT.match(text)
    if match is None:
        raise InvalidTime(f"{text!r} is no time of the form 2026-01-21T10:00:00[.000123]Z")
    if match.group(7) == "000000":
        raise InvalidTime(f"{text!r}: a whole second is written without a fraction")
    return _parse_groups(match, text)


def format_stamp(us: int) -> str:
    """Write an instant as a stamp, the name of a version's file without `.json`."""
    second, fraction = _split(us)
    text = _format_second(second).replace(":", "-")
    return f"{text}Zu{fraction:06d}" if fraction else f"{text}Z"


def format_long_stamp(us: int) -> str:
    """Write a stamp with its six digits always: for listings whose extensions vary."""
    second, fraction = _split(us)
    return f"{_format_second(second).replace(':', '-')}Zu{fraction:06d}"


def parse_stamp(text: str) -> int:
    """Read a stamp, in microseconds. Raises `InvalidTime` for any other form."""
    match = _STAMP.match(text)
    if match is None:
        raise InvalidTime(f"{text!r} is no stamp of the form 2026-01-21T10-00-00Z[u000123]")
    if match.group(7) == "000000":
        raise InvalidTime(f"{text!r}: a whole second is written without a fraction")
    return _parse_groups(match, text)


def parse_long_stamp(text: str) -> int:
    """Read a stamp that always has its six digits. Raises `InvalidTime`."""
    match = _STAMP.match(text)
    if match is None or match.group(7) is None:
        raise InvalidTime(f"{text!r} is no stamp of the form 2026-01-21T10-00-00Zu000123")
    return _parse_groups(match, text)


def timestamp_to_filename(collected_at: str) -> str:
    """`2026-01-21T10:00:00Z` to `2026-01-21T10-00-00Z`. Raises `InvalidTime`."""
    return format_stamp(parse_collected_at(collected_at))


def filename_to_timestamp(filename: str) -> str:
    """`2026-01-21T10-00-00Z` to `2026-01-21T10:00:00Z`. Raises `InvalidTime`."""
    return format_collected_at(parse_stamp(filename))


def generate_collected_at(now_us: int) -> str:
    """The collectedAt of the first version in the second of `now_us`: whole seconds, Z."""
    return format_collected_at(now_us - now_us % SECOND_US)


def next_collected_us(now_us: int, last_us: int) -> int:
    """The collectedAt of a scope's next version: always after `last_us`, its newest ever.

    The first version in a second has no fraction; further ones carry microseconds. A clock that
    stepped back is overruled: time in a scope only grows.
    """
    second_us = now_us - now_us % SECOND_US
    return second_us if second_us > last_us else max(now_us, last_us + 1)


def parse_time(text: str) -> int:
    """Read the time that a user asks for: the last microsecond of the unit that it names.

    `2026`, `2026-01`, `2026-01-21`, `2026-01-21T10:00`, `...:00`, `...:00.5`, each with `Z`, an
    offset or nothing (UTC), a blank instead of `T`: "at 10:00" so includes all that happened in
    that minute. A stamp names its one version. Raises `InvalidTime`.
    """
    stamp = _STAMP.match(text)
    if stamp is not None:
        return _parse_groups(stamp, text)
    match = _QUERY.match(text.strip())
    end: int
    us: int
    if match is None:
        raise InvalidTime(f"{text!r} is no time; write it like 2026-01-21 or 2026-01-21T10:00:00Z")
    year, month, day, hour, minute, second, fraction = match.groups()[:7]
    try:
        start = datetime(
            int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0),
            int(second or 0), tzinfo=UTC,
        )  # fmt: skip
        end = _end_of_unit(start, month, day, hour, second)
    except (ValueError, OverflowError) as error:
        raise InvalidTime(f"{text!r} is no time: {error}") from error
    if fraction is not None:
        width = 10 ** max(0, 6 - len(fraction))
        us = _to_us(start) + int(fraction[:6]) * width + width - 1
    else:
        us = end
    return us - _offset_us(match.group("zone"), text)


def _end_of_unit(
    start: datetime, month: str | None, day: str | None, hour: str | None, second: str | None
) -> int:
    if second is not None:
        return _to_us(start) + SECOND_US - 1
    if hour is not None:
        return _to_us(start) + 60 * SECOND_US - 1
    if day is not None:
        return _to_us(start) + 86_400 * SECOND_US - 1
    if month is not None and start.month < 12:
        return _to_us(start.replace(month=start.month + 1)) - 1
    if start.year == 9999:
        return MAX_US - 1
    return _to_us(start.replace(year=start.year + 1, month=1)) - 1


def _offset_us(zone: str | None, text: str) -> int:
    if zone is None or zone[0] in "Zz":
        return 0
    digits = zone[1:].replace(":", "")
    hours, minutes = int(digits[:2]), int(digits[2:] or 0)
    if hours > 23 or minutes > 59:
        raise InvalidTime(f"{text!r}: no such offset")
    return (-1 if zone[0] == "-" else 1) * (hours * 3600 + minutes * 60) * SECOND_US


def _to_us(moment: datetime) -> int:
    return timegm(moment.utctimetuple()) * SECOND_US + moment.microsecond


def _split(us: object) -> tuple[int, int]:
    """Second and microsecond of an instant. Raises `IndexBroken` for what is none."""
    if not isinstance(us, int) or not _MIN_US <= us < MAX_US:
        raise _NoInstant(f"index.db names a time that never was: {us!r}")
    return divmod(us, SECOND_US)


@lru_cache(maxsize=1024)
def _format_second(second: int) -> str:
    return (
        (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second))
        .strftime("%Y-%m-%dT%H:%M:%S")
        .rjust(19, "0")
    )


def _parse_groups(match: re.Match[str], text: str) -> int:
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise InvalidTime(f"{text!r} is no time: {error}") from error
    return _to_us(moment) + int(match.group(7) or 0)
