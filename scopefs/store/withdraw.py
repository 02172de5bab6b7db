"""Withdrawal: a program that removes its temporary file takes its version back, to the trash."""

from scopefs.store import index, tree
from scopefs.store.changes import apply_unlink
from scopefs.store.journal import Transaction
from scopefs.store.sql import fetch
from scopefs.store.trash import apply_delete_version


def apply_withdraw(
    transaction: Transaction, parent: int, name: bytes, version_id: int
) -> tuple[int, bool]:
    """End a name as `apply_unlink` does, and take its version back if the file was temporary.

    Temporary is a file that never bore another name, has one version, and shows that one still.
    """
    db = transaction.db
    entry = tree.find_child(db, parent, name)
    withdrawn = False
    if entry is not None and entry.version == version_id:
        names, versions = fetch(
            db,
            "SELECT (SELECT COUNT(*) FROM names WHERE node = ?1),"
            " (SELECT COUNT(DISTINCT version) FROM shown WHERE node = ?1)",
            (entry.node,),
        )[0]
        withdrawn = names == 1 and versions == 1
    result = apply_unlink(transaction, parent, name)
    version = index.find_by_id(db, version_id) if withdrawn else None
    if version is not None and version.deleted_seq is None:
        apply_delete_version(transaction, version, withdrawn=True)
    return result
