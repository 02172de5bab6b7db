"""Whether a vault was copied, and whether its index was torn by that.

Whoever copies a vault while it is in use copies an index.db that changes meanwhile: pages of one
moment and of another, or a WAL that does not belong to them. SQLite opens most of these without a
word. So the index remembers its *home*, the ctime of vault.json: that file is never changed, no
copy has its ctime, and mv within a file system, a remount and a reboot leave it alone. An index
that is not at home is looked at once, all of it, before anything is believed: by SQLite's own
check, by the
checks of rows and events, and whether the files know more events than it does. What passes is at
home from then on. A copy of a vault that nobody used passes.

What stands in the files of data/, blobs/ and trash/ is not looked at: all that is read of these is
compared with its hash. The time grows with the index; a vault that stays where it is pays nothing.
Raises `IndexBroken`.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial

import apsw

from scopefs.errors import IndexBroken
from scopefs.store.checks import CHECKS, Checked
from scopefs.store.checks.context import REINDEX
from scopefs.store.event_files import list_days, parse_last_event
from scopefs.store.index import NO_ROW, ReaderPool, open_index, read_meta, write_meta
from scopefs.store.layout import Layout, find_home, locked
from scopefs.store.sql import fetch

_LOG = logging.getLogger(__name__)
_OF_FILES = (
    "staged writes", "scratch files", "moves", "event files", "staging", "partial",
    "files in data and trash", "files in blobs", "blobs", "envelopes",
)  # fmt: skip
"""Checks of what lies in files: a crash may have left those otherwise than the rows say, recovery
and settling see to it, and what is read is compared with its hash."""


def settle_in(layout: Layout, readers: ReaderPool) -> None:
    """Look at the index if it is not at home, and make it at home. Raises `IndexBroken`.

    For whoever has the vault open, before the first change. Others wait, and do not look again.
    """
    if _is_at_home(layout, readers):
        return
    with locked(layout, "recover"):
        if _is_at_home(layout, readers):
            return
        with readers.connection() as db:
            is_known = read_meta(db, "home") is not None
        # Older versions did not write it down.
        if is_known:
            check_copy(layout, readers.connection)
        try:
            with closing(open_index(str(layout.index))) as db, db:
                write_meta(db, "home", find_home(layout))
        except apsw.Error as error:
            # A full disk, for instance: the next open looks again.
            _LOG.info("the home of the index could not be written down: %s", error)


def check_copy(
    layout: Layout, read: Callable[[], AbstractContextManager[apsw.Connection]], *,
    is_read_only: bool = False,
) -> None:  # fmt: skip
    """Refuse an index that was torn. Raises `IndexBroken`, which says what to type.

    `is_read_only`: no lock is taken, as nothing may be written; nobody settles in a new copy.
    """
    hold = nullcontext if is_read_only else partial(locked, layout, "settle")
    fault = _find_tear(layout, read, hold)
    if fault is not None:
        raise IndexBroken(
            f"{layout.root} was copied while the vault was in use, and its index is torn ({fault}):"
            f" `scopefs reindex --vault {layout.root}` makes it again; all that was settled before"
            " the copy was begun is in its files"
        )


def _is_at_home(layout: Layout, readers: ReaderPool) -> bool:
    with readers.connection() as db:
        return bool(read_meta(db, "home") == find_home(layout))


def _find_tear(
    layout: Layout, read: Callable[[], AbstractContextManager[apsw.Connection]],
    hold: Callable[[], AbstractContextManager[None]],
) -> str | None:  # fmt: skip
    checked = Checked(layout, read, hold)
    try:
        for name, check in CHECKS.items():
            if name in _OF_FILES:
                continue
            for page in check(checked, []):
                for problem in page.problems:
                    if problem.do == REINDEX:
                        return f"{problem.where}: {problem.what}"
        with read() as db:
            known = fetch(db, "SELECT COALESCE(MAX(seq), 0) FROM events")[0][0]
    except (IndexBroken, apsw.Error, *NO_ROW) as error:
        return str(error)
    for day in list_days(layout)[-1:]:
        last = parse_last_event(layout.events / day)
        if last is not None and last.seq > known:
            return f"events/{day} knows of event {last.seq}, the index of {known}"
    return None
