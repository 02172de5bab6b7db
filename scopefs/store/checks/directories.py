"""The checks of small directories, looked at whole: events/ (I6), staging/ (I16), partial/ (I17),
and the vault's own with its index (I19).
"""

import contextlib
import itertools
import os
import re
from collections.abc import Iterator

from scopefs.errors import ScopefsError
from scopefs.model.stamps import parse_collected_at
from scopefs.store.checks.context import FOREIGN, REINDEX, Checked, Cursor, Page, show_path
from scopefs.store.event_files import DAY_FILE, list_days
from scopefs.store.index import read_meta
from scopefs.store.layout import Layout, load_vault_file
from scopefs.store.problems import Problem
from scopefs.store.sql import fetch

_OWNER = re.compile(r"[0-9a-f]{32}(\.new)?\Z")
_SETTLING = re.compile(r"settle\.\d+(\.blob)?\.tmp\Z")
_PARTIAL = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZu\d{6}-[0-9a-f]{8}\.(bin|json)\Z")
_ROOT = re.compile(
    r"(vault\.json|config\.toml|tokens\.json|\.tokens\.json\.tmp|lost\+found"
    r"|data|blobs|events|staging|partial|trash|logs"
    r"|index\.db(-wal|-shm|-journal|\.schema-\d+|\.(broken|new|rebuilt)[^/]*)?"
    r"|[a-z]+\.lock)\Z"
)
_DIRECTORIES = ("data", "blobs", "events", "staging", "partial", "trash")


def check_events_directory(checked: Checked, after: Cursor) -> Iterator[Page]:
    """I6: events/ holds a file for each day that had events, and nothing else."""
    if after:
        return
    problems = []
    for name in sorted(os.listdir(checked.layout.events)):
        if DAY_FILE.match(name) and _had_events(checked, name.removesuffix(".jsonl")):
            continue
        do = "move it elsewhere" if DAY_FILE.match(name) else FOREIGN
        problems.append(
            Problem("I6", f"events/{show_path(name)}", "no event belongs into this file", do)
        )
    yield Page([1], len(list_days(checked.layout)), problems)


def _had_events(checked: Checked, day: str) -> bool:
    """Whether an event is of a day: times grow with numbers, which is halved until it is found."""
    try:
        start_us = parse_collected_at(f"{day}T00:00:00Z")
    except ScopefsError:
        return False
    with checked.read() as db:
        low, high = 1, (fetch(db, "SELECT MAX(seq) FROM events")[0][0] or 0) + 1
        while low < high:
            middle = (low + high) // 2
            rows = fetch(db, "SELECT at_us FROM events WHERE seq >= ? LIMIT 1", (middle,))
            if rows and rows[0][0] < start_us:
                low = middle + 1
            else:
                high = middle
        rows = fetch(db, "SELECT at_us FROM events WHERE seq >= ? LIMIT 1", (low,))
    return bool(rows) and rows[0][0] < start_us + 86_400_000_000


def check_staging(checked: Checked, after: Cursor) -> Iterator[Page]:
    """I16: staging/ holds what owners write, and nothing else.

    What a dead owner has left is no problem: whoever opens the vault next looks after it.
    """
    if after:
        return
    problems = []
    staging = checked.layout.staging
    with checked.hold():
        for name in sorted(os.listdir(staging)):
            where = f"staging/{show_path(name)}"
            if not (staging / name).is_dir():
                if not _SETTLING.match(name):
                    problems.append(Problem("I16", where, "no write has this file", FOREIGN))
                continue
            if not _OWNER.match(name):
                problems.append(Problem("I16", where, "it is of no owner", FOREIGN))
                continue
            with contextlib.suppress(FileNotFoundError):
                problems += [
                    Problem("I16", f"{where}/{show_path(file)}", "no write has this file", FOREIGN)
                    for file in sorted(os.listdir(staging / name))
                    if file != "lock"
                    and not (file.isdecimal() and (staging / name / file).is_file())
                ]
    yield Page([1], 1, problems)


def check_partial(checked: Checked, after: Cursor) -> Iterator[Page]:
    """I17: partial/ holds bytes of interrupted writes, and their stories."""
    if after:
        return
    names = sorted(os.listdir(checked.layout.partial))
    problems = []
    for name in names:
        where = f"partial/{show_path(name)}"
        if not _PARTIAL.match(name):
            problems.append(Problem("I17", where, "it is no interrupted write", FOREIGN))
        elif name.endswith(".json") and not any(
            # Accepted or dropped meanwhile: bytes go before their story.
            path.exists() or not (checked.layout.partial / name).exists()
            for path in [checked.layout.partial / f"{name.removesuffix('.json')}.bin"]
        ):
            problems.append(Problem("I17", where, "it is a story without its bytes", "remove it"))
    yield Page([1], len(names), problems)


def check_root(checked: Checked, after: Cursor) -> Iterator[Page]:
    """I19: the vault's directory, and what SQLite itself thinks of the index."""
    layout = checked.layout
    if not after:
        yield Page([""], 1, list(_check_directory(checked, layout)))
    with checked.read() as db:
        tables = [
            row[0]
            for row in fetch(db, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY 1")
        ]
    for table in tables:
        if after and table <= after[0]:
            continue
        with checked.read() as db:
            # One table at a time, so that no long read keeps the WAL from being emptied.
            rows = fetch(db, f'PRAGMA integrity_check("{table}")')
        found = [row[0] for row in rows if row[0] != "ok"]
        yield Page(
            [table], 1,
            [Problem("I19", f"index.db, table {table}", text, REINDEX)
             for text in itertools.islice(found, 10)],
        )  # fmt: skip


def _check_directory(checked: Checked, layout: Layout) -> Iterator[Problem]:
    try:
        vault_id = load_vault_file(layout).id
    except ScopefsError as error:
        yield Problem("I19", "vault.json", str(error), "restore it from a backup")
    else:
        with checked.read() as db:
            if read_meta(db, "vault_id") != vault_id:
                yield Problem("I19", "index.db", "it is the index of another vault", REINDEX)
    for name in _DIRECTORIES:
        if not (layout.root / name).is_dir():
            yield Problem("I19", f"{name}/", "it is missing", REINDEX)
    for name in sorted(os.listdir(layout.root)):
        if not _ROOT.match(name):
            yield Problem("I19", show_path(name), "it is no part of a vault", FOREIGN)
