"""Times: collectedAt and stamps, their order, the strictly increasing rule, times asked for."""

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scopefs.errors import InvalidTime
from scopefs.model.stamps import (
    MAX_US,
    SECOND_US,
    filename_to_timestamp,
    format_collected_at,
    format_long_stamp,
    format_stamp,
    generate_collected_at,
    next_collected_us,
    parse_collected_at,
    parse_long_stamp,
    parse_stamp,
    parse_time,
    timestamp_to_filename,
)
from tests.model.strategies import explore, instants_us

BASE_US = 1_768_989_600 * SECOND_US
"""2026-01-21T10:00:00Z"""


def to_us(text: str) -> int:
    """Microseconds of a time that datetime itself reads."""
    moment = datetime.fromisoformat(text)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("us", "collected_at", "stamp", "long_stamp"),
    [
        (BASE_US, "2026-01-21T10:00:00Z", "2026-01-21T10-00-00Z", "2026-01-21T10-00-00Zu000000"),
        (BASE_US + 123, "2026-01-21T10:00:00.000123Z", "2026-01-21T10-00-00Zu000123",
         "2026-01-21T10-00-00Zu000123"),
        (BASE_US + 500_000, "2026-01-21T10:00:00.500000Z", "2026-01-21T10-00-00Zu500000",
         "2026-01-21T10-00-00Zu500000"),
        (0, "1970-01-01T00:00:00Z", "1970-01-01T00-00-00Z", "1970-01-01T00-00-00Zu000000"),
        (-1, "1969-12-31T23:59:59.999999Z", "1969-12-31T23-59-59Zu999999",
         "1969-12-31T23-59-59Zu999999"),
        (-62_135_596_800 * SECOND_US, "0001-01-01T00:00:00Z", "0001-01-01T00-00-00Z",
         "0001-01-01T00-00-00Zu000000"),
        (MAX_US - 1, "9999-12-31T23:59:59.999999Z", "9999-12-31T23-59-59Zu999999",
         "9999-12-31T23-59-59Zu999999"),
    ],
)  # fmt: skip
def test_each_instant_has_its_texts(
    us: int, collected_at: str, stamp: str, long_stamp: str
) -> None:
    """Whole seconds stand alone; other instants carry six digits, behind the Z in a stamp."""
    written = format_collected_at(us), format_stamp(us), format_long_stamp(us)
    assert written == (collected_at, stamp, long_stamp)


@pytest.mark.parametrize(
    ("write", "read"),
    [
        (format_collected_at, parse_collected_at),
        (format_stamp, parse_stamp),
        (format_long_stamp, parse_long_stamp),
    ],
)
def test_texts_read_back_as_their_instant(
    write: Callable[[int], str], read: Callable[[str], int]
) -> None:
    """Each form of a time is read back exactly."""

    @explore
    @given(instants_us)
    def check(us: int) -> None:
        assert read(write(us)) == us

    check()


@explore
@given(instants_us)
def test_collected_at_is_what_datetime_writes(us: int) -> None:
    """collectedAt is ISO 8601, as Python's datetime reads it."""
    assert to_us(format_collected_at(us)) == us


@explore
@given(instants_us)
def test_timestamp_and_filename_turn_into_each_other(us: int) -> None:
    """The way to a file name and back ends where it began."""
    collected_at = format_collected_at(us)
    assert timestamp_to_filename(collected_at) == format_stamp(us)
    assert filename_to_timestamp(timestamp_to_filename(collected_at)) == collected_at


NO_COLLECTED_AT = [
    "", "2026-01-21", "2026-01-21T10:00Z", "2026-01-21T10:00:00", "2026-01-21T10:00:00z",
    "2026-01-21t10:00:00Z", "2026-01-21 10:00:00Z", "2026-01-21T10:00:00+00:00",
    "2026-01-21T10:00:00.5Z", "2026-01-21T10:00:00.123Z", "2026-01-21T10:00:00.0000001Z",
    "2026-01-21T10:00:00.000000Z", "2026-01-21T10:00:00,000123Z", "2026-02-30T10:00:00Z",
    "2026-13-01T10:00:00Z", "2026-00-01T10:00:00Z", "2026-01-21T24:00:00Z",
    "2026-01-21T10:60:00Z", "2026-01-21T10:00:60Z", "0000-01-01T00:00:00Z",
    "12026-01-21T10:00:00Z", "2026-01-21T10:00:00Z\n", " 2026-01-21T10:00:00Z",
    "2026-01-21T10-00-00Z", "\u0662\u0660\u0662\u0666-01-21T10:00:00Z", "not-a-date", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_COLLECTED_AT)
def test_other_forms_of_collected_at_are_refused(text: str) -> None:
    """One instant has one collectedAt: every other text is refused."""
    with pytest.raises(InvalidTime):
        parse_collected_at(text)


@pytest.mark.parametrize("text", NO_COLLECTED_AT)
def test_a_bad_time_never_becomes_a_file_name(text: str) -> None:
    """timestamp_to_filename refuses what is no collectedAt."""
    with pytest.raises(InvalidTime):
        timestamp_to_filename(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "latest", "2026-01-21T10:00:00Z", "2026-01-21T10-00-00", "2026-01-21T10-00-00Z.json",
        "2026-01-21T10-00-00Z000123", "2026-01-21T10-00-00Z.000123", "2026-01-21T10-00-00Zu123",
        "2026-01-21T10-00-00Zu0001234", "2026-01-21T10-00-00ZU000123", "2026-01-21T10-00-00Zu",
        "2026-01-21T10-00-00Zu000000", "2026-02-30T10-00-00Z", "2026-01-21T24-00-00Z",
        "2026-01-21T10-00-00Z\n", "../2026-01-21T10-00-00Z", "2026-01-21T10-00-00Z\0",
    ],
)  # fmt: skip
def test_other_forms_of_a_stamp_are_refused(text: str) -> None:
    """One instant has one stamp: every other text is refused."""
    with pytest.raises(InvalidTime):
        parse_stamp(text)


@pytest.mark.parametrize("text", ["2026-01-21T10-00-00Z", "2026-01-21T10-00-00Zu12", "latest"])
def test_a_long_stamp_needs_its_digits(text: str) -> None:
    """Where six digits are always written, a stamp without them is no stamp."""
    with pytest.raises(InvalidTime):
        parse_long_stamp(text)


# Order of names

LOCALE_SOURCES = Path("/usr/share/i18n/locales")
BUILT_LOCALES = ("en_US", "cs_CZ", "th_TH")


def list_locales() -> list[str]:
    """C, and every UTF-8 locale that is installed here."""
    done = subprocess.run(["locale", "-a"], capture_output=True, check=False)
    installed = done.stdout.decode(errors="replace").split()
    return ["C", *(name for name in installed if name.lower().endswith((".utf8", ".utf-8")))]


def scatter_instants() -> list[int]:
    """Instants in time order: same seconds with and without fractions, carries, far years."""
    seconds = (0, 9, 10, 59, 60, 3599, 86_399, 86_400, 31_536_000, 8_000 * 31_536_000)
    fractions = (0, 1, 9, 10, 123, 99_999, 100_000, 999_999)
    return sorted(
        (BASE_US // SECOND_US + second - back) * SECOND_US + fraction
        for second in seconds
        for back in (0, 1_700_000_000)
        for fraction in fractions
        if BASE_US + (second + 1) * SECOND_US < MAX_US
    )


def check_order(names: list[str], directory: Path, environment: dict[str, str]) -> None:
    """Fail unless `ls` and `sort` put the names into the order in which they are given."""
    shuffled = random.Random(7).sample(names, len(names))
    for name in shuffled:
        (directory / name).touch()
    where = {**os.environ, **environment}
    listed = subprocess.run(["ls", directory], env=where, capture_output=True, check=True)
    assert listed.stdout.decode().splitlines() == names
    text = "".join(f"{name}\n" for name in shuffled).encode()
    ordered = subprocess.run(["sort"], input=text, env=where, capture_output=True, check=True)
    assert ordered.stdout.decode().splitlines() == names


@pytest.mark.parametrize("write", [format_stamp, format_long_stamp])
@pytest.mark.parametrize("locale", list_locales())
def test_plain_ls_order_is_time_order(
    tmp_path: Path, locale: str, write: Callable[[int], str]
) -> None:
    """ls and sort put stamps in time order, in C and in each installed UTF-8 locale."""
    names = [f"{write(us)}.json" for us in scatter_instants()]
    check_order(names, tmp_path, {"LC_ALL": locale})


@pytest.mark.skipif(
    shutil.which("localedef") is None or not LOCALE_SOURCES.is_dir(),
    reason="this machine cannot build locales",
)
@pytest.mark.parametrize("language", BUILT_LOCALES)
def test_plain_ls_order_is_time_order_where_collation_skips_punctuation(
    tmp_path: Path, language: str
) -> None:
    """The order holds in locales that compare letters before punctuation, installed or not."""
    locales, directory = tmp_path / "locales", tmp_path / "names"
    locales.mkdir()
    directory.mkdir()
    subprocess.run(
        ["localedef", "-i", language, "-f", "UTF-8", locales / f"{language}.UTF-8"],
        capture_output=True, check=True,
    )  # fmt: skip
    names = [f"{format_stamp(us)}.json" for us in scatter_instants()]
    environment = {"LC_ALL": f"{language}.UTF-8", "LOCPATH": str(locales)}
    check_order(names, directory, environment)


def test_latest_stands_behind_all_stamps(tmp_path: Path) -> None:
    """The link to the newest version is listed last, after the versions in time order."""
    names = [*(f"{format_stamp(us)}.json" for us in scatter_instants()), "latest.json"]
    check_order(names, tmp_path, {"LC_ALL": "C"})


# The strictly increasing rule


@pytest.mark.parametrize(
    ("now_us", "last_us", "expected_us"),
    [
        (BASE_US + 700_123, 0, BASE_US),
        (BASE_US + 700_123, BASE_US - 1, BASE_US),
        (BASE_US + 700_123, BASE_US, BASE_US + 700_123),
        (BASE_US + 700_123, BASE_US + 700_123, BASE_US + 700_124),
        (BASE_US, BASE_US, BASE_US + 1),
        (BASE_US, BASE_US + 5 * SECOND_US, BASE_US + 5 * SECOND_US + 1),
        (BASE_US, BASE_US + SECOND_US - 1, BASE_US + SECOND_US),
    ],
)
def test_next_collected_at(now_us: int, last_us: int, expected_us: int) -> None:
    """The first version in a second has no fraction; a clock that stepped back is overruled."""
    assert next_collected_us(now_us, last_us) == expected_us


@explore
@given(
    st.lists(
        st.integers(BASE_US, BASE_US + 3 * SECOND_US)
        | st.sampled_from((BASE_US, BASE_US + 1, BASE_US + SECOND_US, 0)),
        min_size=2,
    )
)
def test_collected_at_grows_strictly_whatever_the_clock_does(clock: list[int]) -> None:
    """Time in a scope only grows, though the clock repeats itself and steps back."""
    last_us, given_us = 0, []
    for now_us in clock:
        last_us = next_collected_us(now_us, last_us)
        given_us.append(last_us)
    assert all(earlier < later for earlier, later in pairwise(given_us))


@explore
@given(instants_us, instants_us)
def test_next_collected_at_stays_close_to_the_clock(now_us: int, last_us: int) -> None:
    """A version is never dated later than the clock, but for the one step that order needs."""
    assert next_collected_us(now_us, last_us) <= max(now_us, last_us + 1)


@explore
@given(instants_us)
def test_generated_collected_at_has_whole_seconds(now_us: int) -> None:
    """generate_collected_at names the second of the clock."""
    assert parse_collected_at(generate_collected_at(now_us)) == now_us // SECOND_US * SECOND_US


# Times that users ask for


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("2026", "2026-12-31T23:59:59.999999+00:00"),
        ("2026-01", "2026-01-31T23:59:59.999999+00:00"),
        ("2026-02", "2026-02-28T23:59:59.999999+00:00"),
        ("2024-02", "2024-02-29T23:59:59.999999+00:00"),
        ("2026-12", "2026-12-31T23:59:59.999999+00:00"),
        ("9999", "9999-12-31T23:59:59.999999+00:00"),
        ("9999-12", "9999-12-31T23:59:59.999999+00:00"),
        ("2026-01-21", "2026-01-21T23:59:59.999999+00:00"),
        ("9999-12-31", "9999-12-31T23:59:59.999999+00:00"),
        ("2026-01-21T10:00", "2026-01-21T10:00:59.999999+00:00"),
        ("2026-01-21 10:00", "2026-01-21T10:00:59.999999+00:00"),
        ("2026-01-21T10:00Z", "2026-01-21T10:00:59.999999+00:00"),
        ("2026-01-21T10:00:00", "2026-01-21T10:00:00.999999+00:00"),
        ("2026-01-21T10:00:00Z", "2026-01-21T10:00:00.999999+00:00"),
        ("2026-01-21t10:00:00z", "2026-01-21T10:00:00.999999+00:00"),
        ("2026-01-21T10:00:00.5Z", "2026-01-21T10:00:00.599999+00:00"),
        ("2026-01-21T10:00:00,50", "2026-01-21T10:00:00.509999+00:00"),
        ("2026-01-21T10:00:00.123Z", "2026-01-21T10:00:00.123999+00:00"),
        ("2026-01-21T10:00:00.000123Z", "2026-01-21T10:00:00.000123+00:00"),
        ("2026-01-21T10:00:00.000123999Z", "2026-01-21T10:00:00.000123+00:00"),
        ("2026-01-21T10:00+02:00", "2026-01-21T08:00:59.999999+00:00"),
        ("2026-01-21T10:00+0200", "2026-01-21T08:00:59.999999+00:00"),
        ("2026-01-21T10:00+02", "2026-01-21T08:00:59.999999+00:00"),
        ("2026-01-21T10:00:00-05:30", "2026-01-21T15:30:00.999999+00:00"),
        ("2026-01-01T00:30+01:00", "2025-12-31T23:30:59.999999+00:00"),
        ("2026-01-21T10-00-00Z", "2026-01-21T10:00:00+00:00"),
        ("2026-01-21T10-00-00Zu000123", "2026-01-21T10:00:00.000123+00:00"),
        (" 2026-01-21\n", "2026-01-21T23:59:59.999999+00:00"),
    ],
)
def test_a_time_means_the_end_of_the_unit_it_names(text: str, end: str) -> None:
    """Asking for a time includes all that happened in the unit that was written."""
    assert parse_time(text) == to_us(end)


@explore
@given(instants_us)
def test_asking_for_a_collected_at_includes_its_version(us: int) -> None:
    """A collectedAt, pasted into a query, finds its own version, and none of a later second."""
    asked_us = parse_time(format_collected_at(us))
    assert us <= asked_us < us // SECOND_US * SECOND_US + SECOND_US


@explore
@given(instants_us)
def test_asking_for_a_stamp_means_its_one_version(us: int) -> None:
    """A stamp names its instant alone."""
    assert parse_time(format_stamp(us)) == us


@explore
@given(st.integers(0, 23), st.integers(0, 59), st.sampled_from("+-"), st.sampled_from((":", "")))
def test_an_offset_shifts_to_utc(hours: int, minutes: int, sign: str, colon: str) -> None:
    """A time with an offset is the instant that datetime says it is."""
    text = f"2026-01-21T10:00:00.000123{sign}{hours:02d}{colon}{minutes:02d}"
    assert parse_time(text) == to_us(text)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "yesterday", "26", "20260121", "2026-1-1", "2026-13", "2026-00", "2026-01-32",
        "2026-02-30", "2025-02-29", "2026-01-21T10", "2026-01-21T24:00", "2026-01-21T10:60",
        "2026-01-21T10:00:60", "2026-01-21T10:00:00.", "2026-01-21T10:00:00.0000000001",
        "2026-01-21Z", "2026-01-21+02:00", "2026-01-21T10:00+24:00", "2026-01-21T10:00+10:60",
        "2026-01-21T10:00+2", "0000", "0000-01-01", "\u0662\u0660\u0662\u0666", "1768989600",
        "2026-01-21T10-00-00", "2026-02-30T10-00-00Z", "2026-01-21T10:00:00Z2026", "\ud800",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused(text: str) -> None:
    """Whatever is no time is refused, never guessed."""
    with pytest.raises(InvalidTime):
        parse_time(text)


@explore
@given(st.text(max_size=30) | st.from_regex(r"[0-9]{4}(-[0-9:T.+Z-]{0,20})?", fullmatch=True))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    """Reading a time raises InvalidTime or nothing."""
    for read in (parse_time, parse_collected_at, parse_stamp, parse_long_stamp):
        with suppress(InvalidTime):
            assert isinstance(read(text), int)
