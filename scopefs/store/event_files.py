"""Reading events/: the lines of all days, one after the other."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scopefs.model.events import (
    FIRST_HASH,
    LOST,
    EventLine,
    encode_detail,
    encode_event_line,
    hash_event_line,
    parse_event_line,
)
from scopefs.store.layout import Layout
from scopefs.store.problems import Problem
from scopefs.store.salvage import OldIndex

DAY_FILE = re.compile(r"\d{4}-\d\d-\d\d\.jsonl\Z")
_TAIL_BYTES = 1 << 20
_AGAIN = "the next settling writes it anew"


@dataclass(frozen=True, slots=True)
class FoundLine:
    """A line of events/; `event` is None if it is none."""

    where: str
    line: bytes
    event: EventLine | None
    is_torn: bool
    """Whether it lacks its newline."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event as a row of the index has it."""

    seq: int
    at_us: int
    detail: str
    hash: bytes


def list_days(layout: Layout) -> list[str]:
    """The names of the files in events/, oldest first."""
    try:
        return sorted(path.name for path in layout.events.iterdir() if DAY_FILE.match(path.name))
    except FileNotFoundError:
        return []


def iterate_lines(layout: Layout) -> Iterator[FoundLine]:
    """All lines. What a crash has torn is one too. Raises `OSError`."""
    for day in list_days(layout):
        with (layout.events / day).open("rb") as file:
            for number, raw in enumerate(file, start=1):
                line = raw.removesuffix(b"\n")
                where = f"events/{day}, line {number}"
                yield FoundLine(where, line, parse_event_line(line), not raw.endswith(b"\n"))


def parse_last_event(path: Path) -> EventLine | None:
    """The last event of a day's file, by its end alone; None if there is no line in that."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        lines = file.read().split(b"\n")[:-1]
    for line in reversed(lines):
        event = parse_event_line(line)
        if event is not None:
            return event
    return None


class EventReader:
    """All events, from events/, and from an old index where those have none or a wrong one."""

    def __init__(self, layout: Layout, old: OldIndex) -> None:
        self._layout = layout
        self._old = old
        self.problems: list[Problem] = []
        self.settled_seq = 0
        """The last event of which, and of all before, events/ has the line."""
        self.salvaged = 0
        self.lost = 0
        self._is_broken = False
        self._first_salvaged: int | None = None
        self._seq = 0
        self._at_us = 0
        self._hash = FIRST_HASH

    def iterate(self, at_least: int) -> Iterator[Event]:
        """The events, without a gap, up to number `at_least` at least; lost ones as such."""
        lines = (found for found in iterate_lines(self._layout) if self._is_event(found))
        here = next(lines, None)
        while here is not None:
            following = next(lines, None)
            event = here.event
            assert event is not None
            if event.seq <= self._seq:
                self._note(here.where, f"repeats event {event.seq}, or is out of order", _AGAIN)
            else:
                if event.seq > self._seq + 1:
                    yield from self._fill(event.seq - 1, event.previous_hash)
                if here.is_torn and self._first_salvaged is None:
                    # Settling cuts it off, and has to write it again.
                    self._first_salvaged = event.seq
                yield self._choose(here, event, following.event if following else None)
            here = following
        in_files = self._seq
        yield from self._read_old(1 << 62, None)
        if self._seq < at_least:
            yield from self._fill(at_least, None)
            in_files = max(in_files, self._seq)
        if self._is_broken or self._first_salvaged is None:
            # Lines that cannot be made again from rows stay as they are.
            self.settled_seq = in_files
        else:
            self.settled_seq = min(in_files, self._first_salvaged - 1)

    def _is_event(self, found: FoundLine) -> bool:
        if found.event is None and not found.is_torn:
            self._note(found.where, "is no event", "see what is said of the events around it")
        return found.event is not None

    def _choose(self, found: FoundLine, event: EventLine, following: EventLine | None) -> Event:
        """The event of a line; that of the old index, if that one fits into the chain instead."""
        digest = hash_event_line(found.line)
        next_hash = None
        if following is not None and following.seq == event.seq + 1:
            next_hash = following.previous_hash
        if event.previous_hash == self._hash and next_hash in (None, digest):
            return self._take(Event(event.seq, event.at_us, event.detail, digest))
        old = self._find_old(event.seq)
        if old is not None and next_hash in (None, old.hash):
            self._note_salvaged(event.seq)
            self._note(found.where, f"event {event.seq} was changed; the old index had it", _AGAIN)
            return self._take(old)
        self._is_broken = True
        self._note(
            found.where, f"event {event.seq} or the one before it was changed: the chain is broken",
            "restore events/ from a backup, then `scopefs reindex` again",
        )  # fmt: skip
        return self._take(Event(event.seq, event.at_us, event.detail, digest))

    def _fill(self, last: int, last_hash: bytes | None) -> Iterator[Event]:
        """The events that events/ lacks, up to `last`: from the old index, or as lost."""
        yield from self._read_old(last, last_hash)
        first = self._seq + 1
        if first > last:
            return
        self._is_broken = True
        self.lost += last + 1 - first
        self._note(
            "events/", f"the events {first} to {last} are missing",
            "restore events/ from a backup, then `scopefs reindex` again",
        )  # fmt: skip
        while self._seq < last:
            digest = last_hash if self._seq + 1 == last and last_hash else FIRST_HASH
            yield self._take(Event(self._seq + 1, self._at_us + 1, encode_detail(LOST, {}), digest))

    def _read_old(self, last: int, last_hash: bytes | None) -> Iterator[Event]:
        for row in self._old.iterate(
            "events", "seq", ("seq", "at_us", "detail", "hash"), self._seq, last
        ):
            event = self._check_old(Event(*row))
            if event is None or (event.seq == last and last_hash not in (None, event.hash)):
                return
            self._note_salvaged(event.seq)
            yield self._take(event)

    def _find_old(self, seq: int) -> Event | None:
        row = self._old.find("events", "seq", seq, ("seq", "at_us", "detail", "hash"))
        return None if row is None else self._check_old(Event(*row))

    def _check_old(self, event: Event) -> Event | None:
        """An event of the old index, if it is the next in the chain."""
        try:
            line = encode_event_line(event.seq, event.at_us, self._hash, event.detail)
        except (TypeError, ValueError, OverflowError, AttributeError):
            return None
        is_next = event.seq == self._seq + 1
        return event if is_next and hash_event_line(line) == event.hash else None

    def _take(self, event: Event) -> Event:
        self._seq, self._hash = event.seq, event.hash
        self._at_us = max(self._at_us + 1, event.at_us)
        return event

    def _note_salvaged(self, seq: int) -> None:
        self.salvaged += 1
        if self._first_salvaged is None:
            self._first_salvaged = seq

    def _note(self, where: str, what: str, do: str) -> None:
        self.problems.append(Problem("events", where, what, do))
