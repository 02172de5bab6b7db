"""The mixed load: everything that a vault does to its disk, each once or a few times.

A deed is a generator. What stands before its `yield` prepares it; what stands behind is what is
recorded and interrupted. It says what it promises as it goes.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from typing import Any, TypeAlias

from scopefs import Vault
from scopefs.errors import ScopefsError
from scopefs.model.scope import parse_scope
from scopefs.store import changes, publish, rows, tree
from scopefs.store.drafts import Draft
from scopefs.store.journal import Failure
from scopefs.store.publish import StagedState, Write
from scopefs.transfer.imports import Importer
from scopefs.transfer.sources import open_source
from tests.crash.world import World, digest
from tests.transfer.carrying import export_to

Deed: TypeAlias = Callable[[World], Iterator[None]]

SCOPE = "my.files"
TINY, INLINE, IN_ROW, IN_FILE = 20, 3000, 20_000, 100_000


def name_key(name: str, scope: str = SCOPE) -> tuple[str, str, str]:
    """What a name shows."""
    return "name", scope, name


def put(
    world: World, name: str | None, content: bytes, *, scope: str = SCOPE, via: str = ""
) -> Any:
    """Put, and note what that promises."""
    data: Any = content
    if via == "path":
        world.outside.mkdir(exist_ok=True)
        data = world.outside / "payload"
        data.write_bytes(content)
    elif via == "stream":
        data = BytesIO(content)
    new = {name_key(name, scope): content} if name is not None else {}
    with world.changing(new, durable=True):
        version = world.vault.put(scope, data, name=name)
        world.owe(("version", scope, version.stamp), ("live", digest(content)))
    return version


def putting(size: int, *, document: bool = False, via: str = "", named: bool = True) -> Deed:
    """A put of a new file."""

    def deed(world: World) -> Iterator[None]:
        content = world.make(size, document=document)
        name = world.new_name() if named else None
        yield
        put(world, name, content, via=via)

    return deed


def putting_deep(world: World) -> Iterator[None]:
    """A put that makes scope and folders."""
    scope, name = f"deep.{world.new_name()}", "A Folder/another/n"
    content = world.make(INLINE)
    yield
    put(world, name, content, scope=scope)


def overwriting(size: int, *, settled: bool) -> Deed:
    """A put over a file that is there."""

    def deed(world: World) -> Iterator[None]:
        name = world.new_name()
        put(world, name, world.make(size))
        if settled:
            world.vault.settle()
        content = world.make(size)
        yield
        put(world, name, content)

    return deed


def putting_twins(world: World) -> Iterator[None]:
    """Two versions that share a blob."""
    content = world.make(IN_FILE)
    put(world, world.new_name(), content)
    name = world.new_name()
    yield
    put(world, name, content)
    world.vault.settle()


def _apply(world: World, new: dict[Any, Any], change: Callable[..., Any], *args: Any,
           **options: Any) -> None:  # fmt: skip
    with world.changing(new, durable=False):
        world.vault.apply(change, *args, **options)


def _scope_node(vault: Vault, scope: str = SCOPE) -> int:
    return vault.apply(changes.ensure_scope, parse_scope(scope))


def changing_names(world: World) -> Iterator[None]:
    """Renames, links, folders, modes and ends; durable together by a sync."""
    names = [world.new_name() for _ in range(7)]
    contents = [world.make(size) for size in (TINY, IN_ROW, IN_FILE)]
    node = _scope_node(world.vault)
    for name, content in zip(names, contents, strict=False):
        put(world, name, content)
    raw = [name.encode() for name in names]
    yield
    keys = [name_key(name) for name in names]
    _apply(world, {keys[0]: None, keys[3]: contents[0]}, changes.apply_rename, node, raw[0], node,
           raw[3], replace=True)  # fmt: skip
    _apply(world, {keys[1]: None, keys[2]: contents[1]}, changes.apply_rename, node, raw[1], node,
           raw[2], replace=True)  # fmt: skip
    _apply(world, {keys[4]: "folder"}, changes.apply_mkdir, node, raw[4], 0o700)
    _apply(world, {keys[5]: ("link", b"to")}, changes.apply_symlink, node, raw[5], b"to")
    with world.vault.read() as db:
        found = tree.find_child(db, node, raw[3])
    assert found is not None
    _apply(world, {keys[6]: contents[0]}, changes.apply_link, found.node, node, raw[6])
    _apply(world, {}, changes.apply_attributes, found.node, 0o600, 5)
    _apply(world, {keys[3]: None}, changes.apply_unlink, node, raw[3])
    _apply(world, {keys[4]: None}, changes.apply_rmdir, node, raw[4])
    world.vault.sync()
    world.note_durable()


def settling(world: World) -> Iterator[None]:
    """All that waits is placed."""
    for size in (TINY, IN_ROW, IN_FILE):
        put(world, world.new_name(), world.make(size))
    put(world, world.new_name(), world.make(IN_FILE, document=True))
    yield
    world.vault.settle()


def removing(size: int, *, settled: bool, twice: bool = False) -> Deed:
    """A version goes to the trash, and the name goes back to the one before, if there is one."""

    def deed(world: World) -> Iterator[None]:
        name, old = world.new_name(), world.make(size)
        if twice:
            put(world, name, old)
        content = world.make(size)
        version = put(world, name, content)
        if settled:
            world.vault.settle()
        yield
        key = ("version", SCOPE, version.stamp)
        shown = old if twice else None
        with world.changing({key: ("trash", digest(content)), name_key(name): shown}, durable=True):
            world.vault.delete(SCOPE, version.stamp)
        world.vault.settle()

    return deed


def restoring(*, settled: bool) -> Deed:
    """An entry of the trash comes back."""

    def deed(world: World) -> Iterator[None]:
        name, content = world.new_name(), world.make(IN_FILE)
        version = put(world, name, content)
        world.vault.settle()
        key = ("version", SCOPE, version.stamp)
        removed = {key: ("trash", digest(content)), name_key(name): None}
        with world.changing(removed, durable=True):
            world.vault.delete(SCOPE, version.stamp)
        if settled:
            world.vault.settle()
        yield
        back = {key: ("live", digest(content)), name_key(name): content}
        with world.changing(back, durable=True):
            world.vault.restore(world.vault.trash(limit=1)[0].id)
        world.vault.settle()

    return deed


def _fill_scope(world: World) -> tuple[str, dict[Any, Any], dict[Any, Any]]:
    """A scope of its own: what is in it, and what there is once it was removed."""
    scope = f"whole.{world.new_name()}"
    full: dict[Any, Any] = {}
    gone: dict[Any, Any] = {}
    for name, size in (("a", TINY), ("F/b", IN_FILE), ("c", IN_ROW)):
        content = world.make(size)
        version = put(world, name, content, scope=scope)
        key = ("version", scope, version.stamp)
        full |= {key: ("live", digest(content)), name_key(name, scope): content}
        gone |= {key: ("trash", digest(content)), name_key(name, scope): None}
    return scope, full, gone


def removing_scope(world: World) -> Iterator[None]:
    """A whole scope goes, comes back, and goes for ever."""
    scope, full, gone = _fill_scope(world)
    world.vault.settle()
    yield
    with world.changing(gone, durable=True):
        world.vault.delete_scope(scope)
    world.vault.settle()
    with world.changing(full, durable=True):
        world.vault.restore(world.vault.trash(limit=1)[0].id)
    with world.changing(dict.fromkeys(full), durable=True):
        world.vault.delete_scope(scope, forever=True)


def emptying(world: World) -> Iterator[None]:
    """The trash is emptied."""
    trashed = [
        key for key in world.promises.spans
        if key[0] == "version" and any(value and value[0] == "trash"
                                       for value in world.promises.now(key) or ())
    ]  # fmt: skip
    with world.changing(dict.fromkeys(trashed), durable=True):
        world.vault.empty_trash()
    scope, _, gone = _fill_scope(world)
    world.vault.settle()
    with world.changing(gone, durable=True):
        world.vault.delete_scope(scope)
    entry = world.vault.trash(limit=1)[0].id
    yield
    with world.changing(dict.fromkeys(gone), durable=True):
        world.vault.empty_trash(entry)


def _open_draft(world: World, content: bytes) -> Draft:
    draft = world.vault.new_draft()
    half = len(content) // 2
    draft.write(half, content[half:])
    draft.write(0, content[:half])
    return draft


def _seal(
    world: World, draft: Draft, name: str, node: int, sid: int | None = None
) -> Write:  # fmt: skip
    """A session as FLUSH and FSYNC find it."""
    vault = world.vault
    raw = name.encode()
    scope_node = _scope_node(vault)
    return Write(
        vault.owner_name, scope_node, node, scope_node, raw, 0o644, vault.clock_us() * 1000,
        draft.seal(raw), sid=sid, writer="test", writer_uid=0,
    )  # fmt: skip


def _stage(world: World, write: Write, state: StagedState) -> None:
    """What FLUSH and FSYNC do. What is committed, and the disk has not taken, has its row."""
    work = partial(publish.apply_stage, write=write, state=state)
    (result,) = world.vault.apply_all([work], durable=True)
    if isinstance(result, Failure):
        write.sid = result.result or write.sid
        raise result.error
    write.sid = result


def saving(size: int, ending: str = "", *, settled: bool = False) -> Deed:
    """A file that is made through the mount: staged at its close, published a moment later."""

    def deed(world: World) -> Iterator[None]:
        name, content = world.new_name(ending), world.make(size)
        node = world.vault.apply(rows.allocate_nodes, 1)
        yield
        _save(world, name, content, node)
        if settled:
            world.vault.settle()

    return deed


def _save(world: World, name: str, content: bytes, node: int) -> None:
    vault = world.vault
    draft: Draft | None = None
    write: Write | None = None
    key = name_key(name)
    before = world.promises.now(key)
    new = {key: content, ("kept", digest(content)): True}
    try:
        with world.changing(new, durable=False):
            draft = _open_draft(world, content)
            write = _seal(world, draft, name, node)
            _stage(world, write, StagedState.CLOSED)
        # From here on it is published, by whomever.
        world.note_durable()
        vault.apply(publish.apply_release, write, vault.scratch)
    except (OSError, ScopefsError):
        _give_up(world, draft, write, node)
        if before is not None:
            world.allow(key, before | {content})
        raise
    draft.close()


def _give_up(world: World, draft: Draft | None, write: Write | None, node: int) -> None:
    """What the mount does with bytes that cannot be published."""
    if draft is not None:
        world.vault.keep_partial(
            draft, _scope_node(world.vault), node, (None, None), reason="a test", process=None,
            uid=None,
        )  # fmt: skip
    if write is not None:
        world.vault.apply(publish.drop_staged, write)


def replacing_scratch(world: World) -> Iterator[None]:
    """A scratch file is written twice, gets an ordinary name, and so becomes a version."""
    node = world.vault.apply(rows.allocate_nodes, 1)
    scope_node = _scope_node(world.vault)
    part, name = world.new_name(".part"), world.new_name()
    contents = [world.make(IN_FILE), world.make(IN_FILE)]
    _save(world, part, contents[0], node)
    yield
    world.forget(("kept", digest(contents[0])))
    _save(world, part, contents[1], node)
    _apply(
        world, {name_key(part): None, name_key(name): contents[1]}, changes.apply_rename,
        scope_node, part.encode(), scope_node, name.encode(), replace=True,
        scratch=world.vault.scratch,
    )  # fmt: skip
    world.vault.settle()


def unlinking_scratch(world: World) -> Iterator[None]:
    """A scratch file ends, and so do its bytes."""
    node = world.vault.apply(rows.allocate_nodes, 1)
    name, content = world.new_name("~"), world.make(IN_FILE)
    _save(world, name, content, node)
    world.forget(("kept", digest(content)))
    yield
    _apply(world, {name_key(name): None}, changes.apply_unlink, _scope_node(world.vault),
           name.encode())  # fmt: skip
    world.vault.settle()


def syncing_drafts(world: World) -> Iterator[None]:
    """Files that are fsynced, one small, one large; then written to again, and closed."""
    nodes = [world.vault.apply(rows.allocate_nodes, 1) for _ in range(2)]
    yield
    for node, size in zip(nodes, (INLINE, IN_FILE), strict=True):
        name, content = world.new_name(), world.make(size)
        kept = ("kept", digest(content))
        draft = _open_draft(world, content)
        write: Write | None = None
        try:
            with world.changing({kept: True}, durable=True):
                write = _seal(world, draft, name, node)
                _stage(world, write, StagedState.DRAFT)
            # What stood in the file is gone once it is written over.
            world.forget(kept)
            whole = content + world.make(size)
            with world.changing({name_key(name): whole}, durable=True):
                draft.write(len(content), whole[len(content) :])
                write = _seal(world, draft, name, node, write.sid)
                _stage(world, write, StagedState.CLOSED)
                world.vault.apply(publish.apply_release, write, world.vault.scratch)
        except (OSError, ScopefsError):
            _give_up(world, draft, write, node)
            raise


def importing(world: World) -> Iterator[None]:
    """An export comes in: versions of several files and sizes, names, folders, links."""
    place = world.outside / "export"
    found = world.outside / "found"
    if not place.exists():
        _make_export(world, place, found)
    scope = "from.elsewhere"
    if world.vault.knows_scope(parse_scope(scope)) and world.vault.versions(scope):
        world.vault.delete_scope(scope, forever=True)
        world.note_durable()
    with Vault.open(found) as other:
        new: dict[Any, Any] = {
            ("version", scope, version.stamp): ("live", version.payload_sha256)
            for version in other.versions(scope)
        }
        between = frozenset(other.read_payload(version) for version in other.versions(scope))
        for name in ("a", "F/b", "c", "d"):
            new[name_key(name, scope)] = other.read_payload(other.get(scope, name=name))
    for key in new:
        world.forget(key)
        world.owe(key, None)
    yield
    source = open_source(world.vault, str(place))
    with world.changing(new, durable=True, between=between):
        done = Importer(world.vault, source, lambda _: None).run()
        for problem in done.problems:
            raise problem.error
    world.vault.settle()


def _make_export(world: World, place: Any, found: Any) -> None:
    with Vault.open(found, create=True, clock_us=world.clock_us) as other:
        for name, size in (("a", TINY), ("a", IN_FILE), ("F/b", IN_ROW), ("c", IN_FILE)):
            other.put("from.elsewhere", world.make(size), name=name)
        other.put("from.elsewhere", world.make(IN_FILE, document=True), name="d")
        export_to(other, place)


def importing_one(world: World) -> Iterator[None]:
    """A version that was destroyed comes back by its envelope."""
    name, content = world.new_name(), world.make(IN_FILE, document=True)
    version = put(world, name, content)
    envelope = world.vault.read_envelope(version)
    key = ("version", SCOPE, version.stamp)
    with world.changing({key: None, name_key(name): None}, durable=True):
        world.vault.delete(SCOPE, version.stamp, forever=True)
    yield
    with world.changing({key: ("live", digest(content)), name_key(name): content}, durable=True):
        world.vault.import_envelope(parse_scope(SCOPE), version.collected_us, envelope)
    world.vault.settle()


def keeping_partial(world: World) -> Iterator[None]:
    """A write that failed is kept, and accepted or dropped later."""
    contents = [world.make(size) for size in (INLINE, IN_FILE, TINY)]
    drafts = [_open_draft(world, content) for content in contents]
    for draft in drafts:
        draft.sync()
    scope_node = _scope_node(world.vault)
    names = [world.new_name() for _ in contents]
    yield
    for draft, content, name in zip(drafts, contents, names, strict=True):
        with world.changing({("kept", digest(content)): True}, durable=False):
            world.vault.keep_partial(
                draft, scope_node, None, (scope_node, name.encode()), reason="a test",
                process=None, uid=None,
            )  # fmt: skip
    found = {entry["name"]: entry["id"] for entry in world.vault.partial() if "name" in entry}
    for content, name in zip(contents[:2], names, strict=False):
        if name in found:
            with world.changing({name_key(name): content}, durable=True):
                world.vault.accept_partial(found[name])
    world.forget(("kept", digest(contents[2])))
    if names[2] in found:
        world.vault.drop_partial(found[names[2]])


def reopening(world: World) -> Iterator[None]:
    """The vault is closed and opened again."""
    put(world, world.new_name(), world.make(IN_FILE))
    put(world, world.new_name(), world.make(TINY))
    yield
    world.vault.close()
    world.open()


def dying(world: World) -> Iterator[None]:
    """The process ends in the middle of everything, and the next one recovers."""
    nodes = [world.vault.apply(rows.allocate_nodes, 1) for _ in range(5)]
    for node, size in zip(nodes, (INLINE, IN_FILE), strict=False):
        closed, content = world.new_name(), world.make(size)
        _stage(world, _seal(world, _open_draft(world, content), closed, node), StagedState.CLOSED)
        # Though the disk may refuse it at first (`World.check`).
        world.owe(name_key(closed), content)
        world.owe(("kept", digest(content)), True)
        world.note_durable()
    for node, size in zip(nodes[2:4], (INLINE, IN_FILE), strict=False):
        content = world.make(size)
        draft = _open_draft(world, content)
        _stage(world, _seal(world, draft, world.new_name(), node), StagedState.DRAFT)
        world.owe(("kept", digest(content)), True)
        world.note_durable()
    # Written to again after its close, and never closed again: to partial/, with what it has.
    name, content = world.new_name(), world.make(IN_FILE)
    draft = _open_draft(world, content)
    _stage(world, _seal(world, draft, name, nodes[4]), StagedState.CLOSED)
    draft.write(len(content), b"more")
    # Never told to anybody.
    _open_draft(world, world.make(IN_FILE))
    put(world, world.new_name(), world.make(IN_FILE))
    world.die()
    yield
    world.open()


def settling_after_death(world: World) -> Iterator[None]:
    """What a process has published and not placed, another places."""
    for size in (TINY, IN_FILE):
        put(world, world.new_name(), world.make(size))
    world.die()
    world.open()
    yield
    world.vault.settle()


def starting(world: World) -> Iterator[None]:
    """A vault is made. (A second one, for the first is there already.)"""
    world.vault.close()
    if world.root.exists():
        shutil.rmtree(world.root)
    for key in list(world.promises.spans):
        world.forget(key)
    yield
    world.open(create=True)


LOAD: dict[str, Deed] = {
    "put tiny": putting(TINY),
    "put document": putting(INLINE, document=True),
    "put nameless": putting(INLINE, named=False),
    "put in the row": putting(IN_ROW),
    "put in a file": putting(IN_FILE),
    "put a large document": putting(IN_FILE, document=True),
    "put a path": putting(IN_FILE, via="path"),
    "put a stream": putting(IN_FILE * 2, via="stream"),
    "put deep": putting_deep,
    "settle": settling,
    "overwrite": overwriting(TINY, settled=False),
    "overwrite settled": overwriting(IN_FILE, settled=True),
    "put twins": putting_twins,
    "change names": changing_names,
    "save": saving(INLINE),
    "save large": saving(IN_FILE, settled=True),
    "remove": removing(TINY, settled=False),
    "remove settled": removing(IN_FILE, settled=True),
    "remove the newer": removing(IN_ROW, settled=True, twice=True),
    "die": dying,
    "restore": restoring(settled=False),
    "restore settled": restoring(settled=True),
    "scratch": saving(TINY, "~"),
    "scratch large": saving(IN_FILE, ".part"),
    "replace scratch": replacing_scratch,
    "unlink scratch": unlinking_scratch,
    "sync drafts": syncing_drafts,
    "reopen": reopening,
    "remove a scope": removing_scope,
    "import": importing,
    "import one": importing_one,
    "keep partial": keeping_partial,
    "settle after death": settling_after_death,
    "empty": emptying,
}
"""In an order in which they can be done one behind the other."""


def do(world: World, deed: Deed) -> None:
    """Do a deed whole."""
    for _ in deed(world):
        pass


def end(world: World) -> None:
    """The last deed."""
    world.vault.close()
    assert os.path.exists(world.root)
