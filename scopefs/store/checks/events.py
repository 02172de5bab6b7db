"""The checks of events: I5, their rows; I6, their lines."""

import itertools
from collections.abc import Iterator

from scopefs.errors import IndexBroken
from scopefs.model.events import (
    FIRST_HASH,
    LOST,
    decode_detail,
    encode_event_line,
    hash_event_line,
    parse_event_line,
)
from scopefs.model.stamps import format_collected_at
from scopefs.store.checks.context import REINDEX, Checked, Cursor, Page
from scopefs.store.index import read_meta
from scopefs.store.problems import Problem
from scopefs.store.sql import Row, fetch

_PAGE = 2000
_BACKUP = (
    "restore the file from a backup; or unmount, then `scopefs reindex`: what the index has "
    "of it is written anew"
)


def check_events(checked: Checked, after: Cursor) -> Iterator[Page]:
    """I5 and I6: every event's row, and its line as far as it is settled."""
    seq, at_us, previous = (*after[:2], bytes.fromhex(after[2])) if after else (0, 0, FIRST_HASH)
    with checked.read() as db:
        # Later ones may be on their way to events/ at this moment.
        settled_seq = int(read_meta(db, "settled_seq") or 0)
    lines = _Lines(checked, seq)
    after_lost = False
    try:
        while True:
            with checked.read() as db:
                rows = fetch(
                    db,
                    "SELECT e.seq, e.at_us, e.detail, e.hash, d.scope, d.collected_at"
                    ' FROM events e LEFT JOIN data_files d ON e.detail LIKE \'"op":"version"%\''
                    "  AND d.id = CASE WHEN json_valid('{' || e.detail || '}')"
                    "   THEN json_extract('{' || e.detail || '}', '$.version') END"
                    " WHERE e.seq > ? ORDER BY e.seq LIMIT ?",
                    (seq, _PAGE),
                )
            if not rows:
                return
            problems: list[Problem] = []
            for row in rows:
                line = encode_event_line(row[0], row[1], previous, row[2])
                is_lost = row[2].startswith(f'"op":"{LOST}"')
                if row[0] != seq + 1:
                    problems.append(_row_problem(seq + 1, "it is missing"))
                if not is_lost:
                    problems += _check_row(row, at_us, line)
                    if row[0] <= settled_seq:
                        problems += lines.check(row[0], row[1], line, after_lost)
                after_lost = is_lost
                seq, at_us, previous = row[0], row[1], row[3]
            yield Page([seq, at_us, previous.hex()], len(rows), problems)
    finally:
        lines.close()


def _row_problem(seq: int, what: str) -> Problem:
    return Problem("I5", f"events {seq}", what, REINDEX)


def _check_row(row: Row, last_at_us: int, line: bytes) -> Iterator[Problem]:
    seq, at_us, detail, digest, scope, collected_at = row
    if hash_event_line(line) != digest:
        yield _row_problem(seq, "it, or the one before it, was changed: the hash is another")
    if at_us <= last_at_us:
        yield _row_problem(seq, "its time is not after that of the one before it")
    try:
        event = decode_detail(detail)
    except IndexBroken:
        yield _row_problem(seq, "it cannot be read")
        return
    if event.get("op") == "version" and scope is not None and (
        scope, collected_at
    ) != (event.get("scope"), event.get("collectedAt")):  # fmt: skip
        yield _row_problem(seq, f"version {event.get('version')} has another scope or time")


class _Lines:
    """The lines of events/, read along with the rows, day by day."""

    def __init__(self, checked: Checked, after_seq: int) -> None:
        self._checked = checked
        self._after_seq = after_seq
        self._day = ""
        self._lines: Iterator[tuple[int, bytes]] = iter(())
        self._is_missing = False

    def check(self, seq: int, at_us: int, line: bytes, after_lost: bool) -> Iterator[Problem]:
        """Compare the next line with that of an event.

        `after_lost`: a rebuild has not found the one before; what is left of its line may be there.
        """
        day = f"events/{format_collected_at(at_us)[:10]}.jsonl"
        if day != self._day:
            yield from self._finish()
            yield from self._open(day)
        if self._is_missing:
            return
        for number, found in self._lines:
            if found == line + b"\n":
                return
            where = f"{day}, line {number}"
            event = parse_event_line(found.removesuffix(b"\n"))
            if event is not None and event.seq > seq:
                yield Problem("I6", where, f"the line of event {seq} is missing before it", _BACKUP)
                self._lines = itertools.chain(((number, found),), self._lines)
                return
            if event is not None and event.seq == seq:
                yield Problem("I6", where, f"it was changed: event {seq} is another", _BACKUP)
                return
            if event is None and not after_lost:
                yield Problem("I6", where, f"it should be event {seq}, and is none", _BACKUP)
                return
            if event is not None and event.seq > self._after_seq:
                yield Problem("I6", where, f"it repeats event {event.seq}", _BACKUP)
        yield Problem("I6", day, f"it ends before event {seq}", _BACKUP)
        self._is_missing = True

    def _open(self, day: str) -> Iterator[Problem]:
        self._day, self._is_missing = day, False
        if (self._checked.layout.root / day).is_file():
            self._lines = self._read(day)
            return
        self._is_missing = True
        yield Problem("I6", day, "it is missing", _BACKUP)

    def _read(self, day: str) -> Iterator[tuple[int, bytes]]:
        with (self._checked.layout.root / day).open("rb") as file:
            for number, line in enumerate(file, start=1):
                self._checked.count_bytes(len(line))
                yield number, line

    def _finish(self) -> Iterator[Problem]:
        """What stands behind the last line of a day that is over."""
        for number, _ in itertools.islice(self._lines, 1):
            yield Problem("I6", f"{self._day}, line {number}", "it is of no event of that day",
                          "remove what stands from there on")  # fmt: skip
        self._lines = iter(())

    def close(self) -> None:
        """Close the file."""
        self._lines = iter(())
