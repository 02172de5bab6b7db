"""Listings for the doors: pages with their totals, of what a caller may see. Reads alone.

Patterns of scopes: `*` is every scope, `a.*` whatever stands below `a`, anything else one scope.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import apsw

from scopefs.model.events import decode_detail
from scopefs.model.stamps import format_collected_at
from scopefs.store.index import ScopeCount
from scopefs.store.publish import IS_UNPUBLISHED, StagedState
from scopefs.store.sql import fetch

EVERYTHING = ("*",)


def list_scopes_of(
    db: apsw.Connection, patterns: Sequence[str], prefix: str, limit: int, offset: int
) -> tuple[list[ScopeCount], int]:
    """A page of the scopes that have versions and match a pattern and a prefix; how many do."""
    allowed, values = _match("s.scope", patterns)
    condition = (
        f" FROM scopes s WHERE s.versions > 0 AND {allowed} AND (? = '' OR s.scope = ?"
        " OR (s.scope > ? || '.' AND s.scope < ? || '/'))"
    )
    values += [prefix] * 4
    total = fetch(db, f"SELECT COUNT(*){condition}", tuple(values))[0][0]
    rows = fetch(
        db,
        "SELECT s.scope, s.versions, s.bytes, (SELECT MAX(d.collected_us) FROM data_files d"
        f" WHERE d.scope = s.scope AND d.deleted_seq IS NULL){condition}"
        " ORDER BY s.scope LIMIT ? OFFSET ?",
        (*values, limit, offset),
    )
    return [ScopeCount(*row) for row in rows], total


def count_versions(db: apsw.Connection, scope: str) -> int:
    """How many versions a scope has, from its counter."""
    rows = fetch(db, "SELECT versions FROM scopes WHERE scope = ?", (scope,))
    return int(rows[0][0]) if rows else 0


class Closed(NamedTuple):
    """A write that a `close()` has made durable, and that is no version yet."""

    scope: str
    sid: int
    mtime_ns: int | None
    size: int
    sha256: bytes | None


def list_closed(db: apsw.Connection) -> list[Closed]:
    """All writes that are about to be published."""
    # The index `staged_node` makes this cheap, whatever else is staged.
    rows = fetch(
        db,
        "SELECT c.scope, s.sid, s.mtime_ns, s.size, s.sha256 FROM staged s INDEXED BY staged_node"
        f" JOIN scopes c ON c.node = s.scope WHERE s.{IS_UNPUBLISHED} AND s.state = ?",
        (int(StagedState.CLOSED),),
    )
    return [Closed(*row) for row in rows]


def find_last_seq(db: apsw.Connection) -> int:
    """The number of the newest event; 0 if there is none."""
    return int(fetch(db, "SELECT COALESCE(MAX(seq), 0) FROM events")[0][0])


def list_events_of(
    db: apsw.Connection, patterns: Sequence[str], prefix: str, after: int, limit: int
) -> tuple[list[dict[str, Any]], int]:
    """Events after a number, oldest first, that match a pattern and a prefix.

    Looks at `limit` events at most, and returns the number of the last one it has looked at too:
    what does not match is passed over.
    """
    rows = fetch(
        db,
        "SELECT e.seq, e.at_us, e.detail, s.scope FROM events e"
        " LEFT JOIN scopes s ON s.node = e.scope WHERE e.seq > ? ORDER BY e.seq LIMIT ?",
        (after, limit),
    )
    found = [
        {"seq": seq, "at": format_collected_at(at_us), **decode_detail(detail),
         **({"scope": scope} if scope is not None else {})}
        for seq, at_us, detail, scope in rows
        if is_within(scope, prefix) and is_matched(scope, patterns)
    ]  # fmt: skip
    return found, rows[-1][0] if rows else after


def is_within(scope: str | None, prefix: str) -> bool:
    """Whether a scope begins with a prefix, which ends at a segment."""
    return not prefix or (scope is not None and f"{scope}.".startswith(f"{prefix}."))


def is_matched(scope: str | None, patterns: Sequence[str]) -> bool:
    """Whether a scope, or what belongs to none, matches a pattern."""
    return any(
        pattern == "*" or (scope is not None and (
            scope == pattern or (pattern.endswith(".*") and scope.startswith(pattern[:-1]))
        ))
        for pattern in patterns
    )  # fmt: skip


def _match(column: str, patterns: Sequence[str]) -> tuple[str, list[Any]]:
    """A condition that is true of scopes that match, and its values."""
    parts, values = [], []
    for pattern in patterns:
        if pattern == "*":
            return "1", []
        if pattern.endswith(".*"):
            # `.` and `/` are neighbours.
            parts.append(f"({column} > ? AND {column} < ?)")
            values += [pattern[:-1], f"{pattern[:-2]}/"]
        else:
            parts.append(f"{column} = ?")
            values.append(pattern)
    return f"({' OR '.join(parts) or '0'})", values
