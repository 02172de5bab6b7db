"""Bars: how far long work has come, how fast it goes, and how long it will take.

On standard error, and only where that is a terminal: a pipe, a log or a JSON document gets nothing.
"""

import itertools
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, BinaryIO, TypeVar

import click

from scopefs.cli.status import describe_bytes

_REDRAW_S = 0.1
_WIDTH = 30
_BESIDE = 58
"""Columns that everything but the bar itself may need."""

_Command = TypeVar("_Command", bound=Callable[..., Any])


def progress_option(command: _Command) -> _Command:
    """`--progress / --no-progress`."""
    return click.option(
        "--progress/--no-progress", default=None,
        help="Show on a terminal how far it has come.  [default: unless --json is given]",
    )(command)  # fmt: skip


def wants_bar(progress: bool | None, *, as_json: bool) -> bool:
    """Whether somebody looks at a bar: what the option says, on a terminal alone."""
    return sys.stderr.isatty() and (not as_json if progress is None else progress)


class Bar:
    """One bar, drawn over in place. `total` and what is told are in bytes, or in `unit`.

    Without a total it counts. Where nobody looks, nothing is done; nor where there are not
    `at_least` so many to be done.
    """

    def __init__(
        self, label: str, total: int | None, *, is_shown: bool, unit: str | None = None,
        at_least: int = 0,
    ) -> None:  # fmt: skip
        self._label = label
        self._total = total
        self._is_shown = is_shown
        self._unit = unit
        self._at_least = at_least
        self._done = self._drawn = 0
        self._started = self._drawn_at = time.monotonic()
        self._bar: Any = None
        self._stack = ExitStack()

    def __enter__(self) -> "Bar":
        self._begin(self._total or 0)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._bar is not None:
            if kind is None and self._total is not None:
                # What was there already, or went meanwhile, is done too.
                self._done = self._total
            self._draw()
        self._stack.close()

    def reach(self, done: int) -> None:
        """So much is done by now; less than before changes nothing."""
        self._done = max(self._done, done)
        self._begin(self._done)
        if self._bar is not None and time.monotonic() - self._drawn_at >= _REDRAW_S:
            self._draw()

    def advance(self, count: int) -> None:
        """So much more is done."""
        self.reach(self._done + count)

    def clear(self) -> None:
        """Leave the line of the bar to what is printed next; it goes on below."""
        if self._bar is not None:
            click.echo("\r\033[K", err=True, nl=False)

    def _begin(self, known: int) -> None:
        if self._bar is not None or not self._is_shown or known < self._at_least:
            return
        # Without a length click wants something to iterate over, which has no end.
        iterable = None if self._total is not None else itertools.count()
        self._bar = self._stack.enter_context(
            click.progressbar(
                iterable, length=self._total, label=self._label, width=_bar_width(),
                file=sys.stderr, item_show_func=lambda _: self._describe(),
            )
        )  # fmt: skip

    def _draw(self) -> None:
        self._drawn_at = time.monotonic()
        self._bar.update(self._done - self._drawn)
        self._drawn = self._done

    def _describe(self) -> str:
        """`3.0 of 9.0 MiB, 1.5 MiB/s` in words of `describe_bytes`; or `30 of 90 events, 15/s`."""
        elapsed_s = time.monotonic() - self._started
        rate = int(self._done / elapsed_s) if elapsed_s > 0 else 0
        if self._unit is None:
            done, speed = describe_bytes(self._done), f"{describe_bytes(rate)}/s"
            total = None if self._total is None else describe_bytes(self._total)
            return f"{done}{'' if total is None else f' of {total}'}, {speed}"
        total = "" if self._total is None else f" of {self._total}"
        return f"{self._done}{total} {self._unit}, {rate}/s"


class CountedReads:
    """A file that tells a bar what is read of it."""

    def __init__(self, file: BinaryIO, bar: Bar) -> None:
        self._file = file
        self._bar = bar

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._bar.advance(len(data))
        return data


def _bar_width() -> int:
    """As wide as the terminal leaves room for: a line that wraps cannot be drawn over."""
    try:
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:
        columns = 0
    # A terminal that nobody has told its size says 0.
    return min(_WIDTH, max(1, (columns or 80) - _BESIDE))
