"""A vault with everything in it, and what can be said of a vault in a form that can be compared."""

import contextlib
import os
import random
import shutil
from pathlib import Path
from typing import Any

from scopefs import Vault
from scopefs.errors import NameExists, ScopefsError
from scopefs.model.naming import NodeKind
from scopefs.model.scope import parse_scope
from scopefs.store import changes, publish, tree
from scopefs.store.withdraw import apply_withdraw
from tests.store.inspection import load_child, make_scope, query

TABLES = {
    "nodes": "id, kind, scope",
    "scopes": "node, scope, last_us, versions, bytes",
    "data_files": "id, path, scope, collected_at, size_bytes, collected_us, kind, node, name,"
    " mtime_ns, payload_size, payload_sha256, media_type, deleted_seq, writer_uid, writer",
    "names": "parent, name, node, from_seq, until_seq, came_from",
    "shown": "node, from_seq, version, mode, mtime_ns, target",
    "events": "seq, at_us, scope, detail, hash",
    "scratch": "node, size, sha256, kind, media_type, file, writer_uid, writer, payload",
    "staged": "sid, owner, state, node, scope, parent, name, mode, mtime_ns, size, sha256, kind,"
    " media_type, payload, file, version, at_us",
    "moves": "source, target",
}
"""What a rebuild has to make again; slots may differ, and `created_at` by microseconds."""


def write(vault: Vault, scope: str, name: bytes, content: bytes) -> None:
    """Write a file as the mount does: a name may be that of a scratch file, or the file empty."""
    *folders, base = name.split(b"/")
    parent = make_scope(vault, scope)
    for folder in folders:
        parent = vault.apply(changes.ensure_directory, parent, folder)
    with vault.read() as db:
        found = tree.find_child(db, parent, base)
        scope_node = tree.find_scope_node(db, scope)
    assert scope_node is not None
    if found is not None and found.kind is not NodeKind.FILE:
        raise NameExists("no file can be written here")
    node = found.node if found is not None else vault.apply(changes.allocate_nodes, 1)
    with vault.new_draft() as draft:
        draft.append(content)
        sealed = draft.seal(base)
        change = publish.Write(
            vault.owner_name, scope_node, node, parent, base, 0o640, None, sealed,
            writer="test", writer_uid=7, created_ns=vault.clock_us() * 1000 - 12_345,
        )  # fmt: skip
        change.sid = vault.apply_durably(publish.apply_stage, change, publish.StagedState.CLOSED)
        vault.apply_durably(publish.apply_release, change, vault.scratch)


def rename(vault: Vault, scope: str, old: bytes, new: bytes) -> None:
    """Rename within a scope's directory."""
    node = make_scope(vault, scope)
    vault.apply(changes.apply_rename, node, old, node, new, replace=True, scratch=vault.scratch)


def fill(vault: Vault, other: Path) -> None:
    """Do everything that makes events. `other`: where another vault is made, to import from."""
    for scope in ("my.files", "my.files.sub", "other.things"):
        for size in (5, 300, 10_000, 20_000, 70_000):
            vault.put(scope, os.urandom(size), name=f"f{size}")
            vault.put(scope, b'{"x":"' + b"y" * size + b'"}', name=f"D/My Docs/{size}.json")
        vault.put(scope, b"nameless")
        vault.put(scope, b"\0\xff", name=b"\xff\n odd \xf0\x9f\x98\x80")
    scope = make_scope(vault, "my.files")
    file = load_child(vault, scope, b"f300")
    vault.apply(changes.apply_link, file.node, scope, b"hard")
    vault.apply(changes.apply_symlink, scope, b"link", b"to\xfe")
    vault.apply(changes.apply_attributes, file.node, 0o600, 1_234_567_891)
    rename(vault, "my.files", b"hard", b"harder")
    rename(vault, "my.files", b"D", b"My Photos")
    rename(vault, "my.files", b"f5", b"f300")
    vault.put("my.files", b"again", name="f300")
    vault.apply(changes.apply_attributes, scope, 0o700, None)
    write(vault, "my.files", b"empty", b"")
    write(vault, "my.files", b"was full", b"x")
    write(vault, "my.files", b"was full", b"")
    write(vault, "my.files", b"a~", b"small scratch")
    write(vault, "my.files", b"b~", os.urandom(80_000))
    write(vault, "my.files", b"c.part", os.urandom(80_000))
    rename(vault, "my.files", b"c.part", b"c.bin")
    write(vault, "my.files", b"d~", b"to go")
    vault.apply(changes.apply_unlink, scope, b"d~")
    vault.apply(changes.apply_unlink, scope, b"link")
    vault.apply(changes.apply_mkdir, scope, b"E", 0o750)
    vault.apply(changes.apply_rmdir, scope, b"E")
    vault.settle()
    # The trash, with names that go back.
    vault.put("my.files", b"one", name="t")
    vault.put("my.files", b"two", name="t.tmp")
    rename(vault, "my.files", b"t.tmp", b"t")
    vault.delete("my.files", vault.get("my.files", name="t").stamp)
    vault.restore(vault.trash(limit=1)[0].id)
    vault.delete("my.files", vault.get("my.files", name="t").stamp)
    vault.delete("other.things", vault.get("other.things", name="f70000").stamp)
    vault.put("gone.scope", b"g", name="F/g")
    write(vault, "gone.scope", b"h~", b"scratch in the trash")
    vault.delete_scope("gone.scope")
    vault.put("back.scope", b"1", name="F/a")
    vault.put("back.scope", b"2", name="b")
    vault.delete_scope("back.scope")
    vault.restore(vault.trash(limit=1)[0].id)
    vault.put("taken.scope", b"1", name="F/a")
    vault.put("taken.scope", b"2", name="b")
    vault.delete_scope("taken.scope")
    vault.put("taken.scope", b"3", name="b")
    vault.restore(vault.trash(limit=1)[0].id)
    vault.put("never.more", os.urandom(20_000), name="x")
    vault.delete_scope("never.more", forever=True)
    vault.put("other.things", b"destroyed", name="y")
    vault.delete("other.things", vault.get("other.things", name="y").stamp, forever=True)
    _import(vault, other)
    vault.settle()


def _import(vault: Vault, other: Path) -> None:
    from tests.transfer.carrying import import_from

    with Vault.open(other, create=True, clock_us=lambda: vault.clock_us() - 10**12) as second:
        second.put("im.ported", b"1", name="G/a")
        second.put("im.ported", b"2", name="G/a")
        node = make_scope(second, "im.ported")
        second.apply(changes.apply_symlink, node, b"l", b"nowhere")
        write(second, "im.ported", b"nothing", b"")
        second.put("my.files", b"older", name="f300")
    import_from(vault, other)
    shutil.rmtree(other)


def describe(vault: Vault) -> dict[str, Any]:
    """The rows of the index."""
    found: dict[str, Any] = {
        table: sorted(query(vault, f"SELECT {columns} FROM {table}"), key=repr)
        for table, columns in TABLES.items()
    }
    ids = dict(query(vault, "SELECT id, from_seq FROM names"))
    found["names"] = [(*row[:-1], ids.get(row[-1])) for row in found["names"]]
    return found


def describe_views(vault: Vault) -> dict[str, Any]:
    """What users see: of each scope its names, attributes, versions, payloads and histories."""
    found: dict[str, Any] = {}
    for (scope,) in query(vault, "SELECT scope FROM scopes"):
        with vault.read() as db:
            node = tree.find_scope_node(db, parse_scope(scope).raw)
            assert node is not None
            names = tree.list_past_names(db, [node], b"", 1000)
            history = {name.name: tree.list_history(db, [node], name.name, 0, 1000)
                       for name in names}  # fmt: skip
        walked = {
            path: (entry.node, entry.kind, oct(entry.mode), entry.mtime_ns, entry.size,
                   entry.version, entry.target, entry.links, entry.is_scratch)
            for _, path, entry in vault._walk(node, b"")
        }  # fmt: skip
        versions = {
            version.stamp: (vault.read_envelope(version), vault.read_payload(version))
            for version in vault.versions(scope)
        }
        found[scope] = (walked, versions, history)
    found["trash"] = vault.trash()
    return found


def do_at_random(vault: Vault, source: random.Random, count: int) -> None:
    """Change a vault in `count` random ways; what is refused is left out."""
    saved: list[tuple[Any, int, bytes]] = []
    names = [b"a", b"b", b"c~", b"F", b"G", b"sub"]
    for _ in range(count):
        with contextlib.suppress(ScopefsError):
            _do_one(vault, source, names, saved)


def _do_one(
    vault: Vault, source: random.Random, names: list[bytes],
    saved: list[tuple[Any, int, bytes]],
) -> None:  # fmt: skip
    scope = source.choice(["my.files", "my.files.sub", "other.things"])
    node = make_scope(vault, scope)
    name, other = source.choice(names), source.choice(names)
    parents = [node]
    with vault.read() as db:
        folders = [tree.find_child(db, node, folder) for folder in (b"F", b"G")]
        found = tree.find_child(db, node, name)
    parents += [folder.node for folder in folders
                if folder is not None and folder.kind is NodeKind.FOLDER]  # fmt: skip
    parent, to = source.choice(parents), source.choice(parents)
    version = source.choice(vault.versions(scope)) if vault.versions(scope) else None
    trash = vault.trash()
    match source.randrange(19):
        case 0 | 1 | 2:
            path = name.decode() if source.random() < 0.7 else f"F/{name.decode()}"
            content = source.randbytes(source.choice([3, 20_000]))
            saved_version = vault.put(scope, content, name=path)
            saved.append((parse_scope(scope), saved_version.collected_us,
                          vault.read_envelope(saved_version)))  # fmt: skip
        case 3:
            vault.apply(
                changes.apply_rename, parent, name, to, other, replace=True, scratch=vault.scratch
            )
        case 4:
            vault.apply(
                changes.apply_rename, node, name, node, other, replace=False, scratch=vault.scratch
            )
        case 5:
            vault.apply(changes.apply_unlink, parent, name)
        case 6:
            vault.apply(changes.apply_mkdir, parent, name, source.choice([0o700, 0o755]))
        case 7:
            vault.apply(changes.apply_rmdir, parent, name)
        case 8 if found is not None:
            vault.apply(changes.apply_link, found.node, to, other, vault.scratch)
        case 9 if found is not None:
            vault.apply(changes.apply_attributes, found.node, 0o640, source.randrange(10**18))
        case 10:
            vault.apply(changes.apply_symlink, parent, name, b"to")
        case 11 if version is not None:
            vault.delete(scope, version.stamp, forever=source.random() < 0.2)
        case 12 if source.random() < 0.4:
            vault.delete_scope(scope, forever=source.random() < 0.2)
        case 13 | 14 if trash:
            vault.restore(source.choice(trash).id)
        case 15 if trash and source.random() < 0.3:
            vault.empty_trash(source.choice(trash).id)
        case 16:
            write(vault, scope, name, source.choice([b"", b"x", b"y" * 70_000]))
        case 17 if saved:
            vault.import_envelope(*source.choice(saved))
        case 18 if found is not None and found.version is not None:
            vault.apply(apply_withdraw, node, name, found.version)
