"""Receipts: what requests that may be repeated were answered, so that none is done twice.

A client that does not know whether its request has arrived sends it again, with the same
`Idempotency-Key`. The receipt is a row of the transaction that makes the version: after any crash
both are there, or neither. Kept for 48 hours. A key given with something else is a `Conflict`.
"""

from dataclasses import dataclass

import apsw

from scopefs.errors import Conflict
from scopefs.store.journal import Transaction
from scopefs.store.sql import fetch

KEEP_US = 48 * 3600 * 1_000_000
"""How long a receipt is kept, in microseconds."""

_SWEPT_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Once:
    """A request that is to be done once. Both are SHA-256."""

    key: bytes
    """Of who asked, and the key."""
    request: bytes
    """Of all that was asked."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What a put has made: now, or when it was asked for the first time."""

    scope: str
    collected_us: int
    is_repeated: bool = False


def find_receipt(db: apsw.Connection, once: Once, now_us: int) -> Stored | None:
    """What a request was answered before. Raises `Conflict` if its key was another's."""
    rows = fetch(
        db,
        "SELECT request, scope, collected_us FROM receipts WHERE key = ? AND at_us > ?",
        (once.key, now_us - KEEP_US),
    )
    if not rows:
        return None
    request, scope, collected_us = rows[0]
    if request != once.request:
        raise Conflict("the Idempotency-Key was given with another request before: take a new one")
    return Stored(scope, collected_us, is_repeated=True)


def record_receipt(transaction: Transaction, once: Once, stored: Stored) -> None:
    """Keep what a request was answered; some of those that are too old go."""
    db, now_us = transaction.db, transaction.now_us
    db.execute(
        "DELETE FROM receipts WHERE key IN"
        " (SELECT key FROM receipts WHERE at_us <= ? ORDER BY at_us LIMIT ?)",
        (now_us - KEEP_US, _SWEPT_AT_ONCE),
    )
    db.execute(
        "INSERT OR REPLACE INTO receipts(key, at_us, request, scope, collected_us)"
        " VALUES(?,?,?,?,?)",
        (once.key, now_us, once.request, stored.scope, stored.collected_us),
    )
