"""Export and import: equal on the other side, twice is once, cut short and repeated is whole."""

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scopefs import Vault
from scopefs.errors import Conflict, InvalidBody, InvalidQuery, NotFound
from scopefs.model.payload import Kind
from scopefs.store import changes
from scopefs.store.publish import Sealed, Write, apply_release, apply_show_empty
from scopefs.store.rows import allocate_nodes
from scopefs.transfer import exports
from scopefs.transfer.exports import list_scopes_to_export, open_target
from scopefs.transfer.imports import Importer
from scopefs.transfer.sources import open_source
from tests.store.inspection import (
    SECOND_US,
    Clock,
    check_whole,
    find_child,
    load_child,
    make_scope,
    query,
    snapshot,
)
from tests.transfer.carrying import describe, export_to, ignore, import_from

PAYLOADS = (b'{"a": 1}', b"text", b"\xff\0", b'{"b":"' + b"y" * 70_000 + b'"}', bytes(20_000),
            bytes(100_000))  # fmt: skip
NAMES = (b"a.txt", b"b.json", b"My Photos/c.jpg", b"My Photos/\xff", b"Deep/er/d")


class Cut(Exception):
    """Where a test cuts something short."""


def fill(vault: Vault) -> None:
    """A vault with one of everything."""
    for number, payload in enumerate(PAYLOADS):
        vault.put("my.notes", payload, name=NAMES[number % len(NAMES)], mtime_ns=number * 10**9 + 7)
    vault.put("my.notes", PAYLOADS[5], name="again.bin")
    vault.put("my.notes", b"nameless")
    vault.put("my.notes.below", b"x", name="x")
    vault.put("other.files", b"gone", name="gone.txt")
    node = make_scope(vault, "my.notes")
    vault.apply(changes.apply_link, load_child(vault, node, b"a.txt").node, node, b"hard")
    vault.apply(changes.apply_symlink, node, b"link", b"../\xff")
    vault.apply(changes.apply_mkdir, node, b"Empty Folder", 0o700)
    vault.apply(changes.apply_attributes, load_child(vault, node, b"a.txt").node, 0o640, 123456789)
    vault.apply(changes.apply_rename, node, b"b.json", node, b"renamed.json", replace=True)
    vault.apply(changes.apply_unlink, make_scope(vault, "other.files"), b"gone.txt")


@pytest.fixture
def filled(tmp_path: Path, clock: Clock) -> Any:
    """A vault to be exported."""
    with Vault.open(tmp_path / "filled", create=True, clock_us=clock) as vault:
        fill(vault)
        yield vault


@pytest.fixture
def clock() -> Clock:
    return Clock()


def add(folder: Path, path: str, content: bytes) -> None:
    """Put a file into a directory made by hand."""
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(content)


# Equal on the other side


@pytest.mark.parametrize("dest", ["export", "x.tar", "x.tar.gz", "x.tar.xz", "x.tgz"])
def test_an_export_imported_into_an_empty_vault_gives_an_equal_one(
    filled: Vault, vault: Vault, tmp_path: Path, dest: str
) -> None:
    """Versions byte for byte, payloads, files, names, modes and times; and again: nothing."""
    exported = export_to(filled, tmp_path / dest)
    assert (exported.problems, exported.versions) == ([], 10)
    done = import_from(vault, tmp_path / dest)
    assert (done.imported, done.already_there, done.problems) == (10, 0, [])
    assert describe(vault) == describe(filled)
    before = vault.status()["events"]
    done = import_from(vault, tmp_path / dest)
    assert (done.imported, done.already_there, done.names, done.problems) == (0, 10, 0, [])
    assert vault.status()["events"] == before
    check_whole(vault)


def test_another_vault_can_be_imported(filled: Vault, vault: Vault) -> None:
    """Settled or not, also while it is in use."""
    done = import_from(vault, filled.layout.root)
    assert (done.imported, done.problems) == (10, [])
    assert describe(vault) == describe(filled)
    assert import_from(vault, filled.layout.root).imported == 0
    check_whole(vault)


def test_a_vault_is_not_imported_into_itself(filled: Vault) -> None:
    """That is a mistake."""
    with pytest.raises(InvalidBody, match="itself"):
        import_from(filled, filled.layout.root)


def test_scopes_are_exported_with_their_subcategories(
    filled: Vault, vault: Vault, tmp_path: Path
) -> None:
    """A scope that is asked for includes those below, and no others."""
    export_to(filled, tmp_path / "x", "my.notes")
    import_from(vault, tmp_path / "x")
    assert sorted(describe(vault)) == ["my.notes", "my.notes.below"]
    with pytest.raises(NotFound):
        export_to(filled, tmp_path / "x", "my.nothing")


@pytest.mark.parametrize("is_after", [False, True])
def test_history_of_a_name_comes_along(
    filled: Vault, vault: Vault, tmp_path: Path, is_after: bool
) -> None:
    """What a name showed can be asked for by time, also where it ended."""
    old = filled.put("my.notes", b"first", name="n.txt")
    filled.put("my.notes", b"second", name="n.txt")
    if is_after:
        filled.apply(changes.apply_unlink, make_scope(filled, "my.notes"), b"n.txt")
    export_to(filled, tmp_path / "x")
    import_from(vault, tmp_path / "x")
    found = vault.get("my.notes", name="n.txt", at=old.collected_at)
    assert vault.read_payload(found) == b"first"


_steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(NAMES), st.integers(0, 5)),
        st.tuples(st.just("rename"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
        st.tuples(st.just("link"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
        st.tuples(st.just("unlink"), st.sampled_from(NAMES)),
        st.tuples(st.just("empty"), st.sampled_from(NAMES)),
        st.tuples(st.just("mode"), st.sampled_from(NAMES), st.sampled_from((0o600, 0o755))),
        st.tuples(st.just("symlink"), st.sampled_from(NAMES), st.sampled_from((b"x", b"\xff/y"))),
        st.tuples(st.just("delete"), st.integers(0, 9)),
        st.tuples(st.just("nameless"), st.integers(0, 5)),
        st.tuples(st.just("settle")),
        st.tuples(st.just("wait")),
    ),
    max_size=14,
)  # fmt: skip


def find(vault: Vault, path: bytes) -> tuple[int, bytes]:
    """Directory and last component of a name; folders are made."""
    node = make_scope(vault, "my.notes")
    *folders, base = path.split(b"/")
    for folder in folders:
        node = vault.apply(changes.ensure_directory, node, folder)
    return node, base


def play(vault: Vault, clock: Clock, step: tuple[Any, ...]) -> None:
    """Do one step, if it can be done."""
    op, *arguments = step
    if op == "put":
        entry = find_child(vault, *find(vault, arguments[0]))
        if entry is None or not entry.target:
            vault.put("my.notes", PAYLOADS[arguments[1]], name=arguments[0])
    elif op == "nameless":
        vault.put("my.notes", PAYLOADS[arguments[0]])
    elif op == "delete":
        versions = vault.versions("my.notes")
        if len(versions) > arguments[0]:
            vault.delete("my.notes", versions[arguments[0]].stamp)
    elif op == "settle":
        vault.settle()
    elif op == "wait":
        clock.move(1.5)
    elif op == "symlink":
        parent, base = find(vault, arguments[0])
        if find_child(vault, parent, base) is None:
            vault.apply(changes.apply_symlink, parent, base, arguments[1])
    else:
        play_on_entry(vault, op, arguments)


def play_on_entry(vault: Vault, op: str, arguments: list[Any]) -> None:
    """Do a step to something that is there."""
    parent, base = find(vault, arguments[0])
    entry = find_child(vault, parent, base)
    if entry is None:
        return
    if op == "rename":
        vault.apply(changes.apply_rename, parent, base, *find(vault, arguments[1]), replace=True)
    elif op == "unlink":
        vault.apply(changes.apply_unlink, parent, base)
    elif op == "mode":
        # A symbolic link has no mode of its own.
        mode = None if entry.target else arguments[1]
        vault.apply(changes.apply_attributes, entry.node, mode, 42)
    elif op == "link":
        target = find(vault, arguments[1])
        if find_child(vault, *target) is None:
            vault.apply(changes.apply_link, entry.node, *target)
    elif op == "empty" and not entry.target:
        with vault.read() as db:
            scope = db.execute("SELECT scope FROM nodes WHERE id = ?", (entry.node,)).fetchall()[0]
        write = empty_change(vault, scope[0], entry.node)
        vault.apply(write)


def empty_change(vault: Vault, scope_node: int, node: int) -> Callable[[Any], Any]:
    """A change that empties a file."""
    empty = Sealed(0, b"", Kind.INLINE, "", None, None)
    write = Write(vault.owner_name, scope_node, node, None, None, 0o644, 99, empty)
    return lambda transaction: apply_show_empty(transaction, write)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(_steps, st.booleans(), st.integers(1, 40))
def test_any_vault_comes_out_equal(
    steps: list[tuple[Any, ...]], as_tar: bool, cut_after: int
) -> None:
    """Exported, imported with a cut after some transaction, repeated, and repeated again."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        root, clock = Path(directory), Clock()
        with (
            Vault.open(root / "one", create=True, clock_us=clock) as one,
            Vault.open(
                root / "two", create=True, clock_us=Clock(clock.now_us + 99 * SECOND_US)
            ) as two,
        ):
            make_scope(one, "my.notes")
            for step in steps:
                play(one, clock, step)
            dest = root / ("x.tar" if as_tar else "x")
            assert export_to(one, dest).problems == []
            import_cut(two, dest, cut_after)
            assert import_from(two, dest).problems == []
            found, wanted = describe(two), describe(one)
            forget_directory_times(found), forget_directory_times(wanted)
            assert found == wanted
            before = two.status()["events"]
            assert import_from(two, dest).imported == 0
            assert two.status()["events"] == before
            check_whole(two)


def forget_directory_times(found: dict[str, Any]) -> None:
    """A cut import does not know afterwards which directories it made."""
    for scope in found.values():
        scope["folders"] = {path: mode for path, (mode, _) in scope["folders"].items()}


def import_cut(vault: Vault, source: Path, transactions: int) -> None:
    """Import in batches of one version, and stop after so many transactions."""
    apply_all, left = vault.apply_all, transactions

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal left
        if not left:
            raise Cut
        left -= 1
        return apply_all(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vault, "apply_all", counted)
        patch.setattr("scopefs.transfer.imports.BATCH_VERSIONS", 1)
        try:
            Importer(vault, open_source(vault, str(source)), ignore).run()
        except Cut:
            assert vault.status()["unsettled"] >= 0


# Cut short and repeated


def test_an_export_that_was_cut_is_finished_by_repeating_it(
    filled: Vault, vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each file; what stands there under a name is whole."""
    monkeypatch.setattr(exports, "_PENDING_MAX_FILES", 1)
    export_to(filled, tmp_path / "whole")
    whole = snapshot(tmp_path / "whole")
    for number in range(1, len([path for path in whole if whole[path] is not None])):
        target = open_target(filled, str(tmp_path / "cut"))
        put, left = target.put, number

        def counted(*args: Any, put: Any = put) -> bool:
            nonlocal left
            if not left:
                raise Cut
            left -= 1
            done: bool = put(*args)
            return done

        target.put = counted  # type: ignore[method-assign]
        with pytest.raises(Cut):
            exports.export(filled, list_scopes_to_export(filled, ()), target, ignore)
        for path, content in snapshot(tmp_path / "cut").items():
            assert content == whole[path] or path == exports.DESCRIPTION
    export_to(filled, tmp_path / "cut")
    assert snapshot(tmp_path / "cut").keys() == whole.keys()
    import_from(vault, tmp_path / "cut")
    assert describe(vault) == describe(filled)


def test_an_archive_that_was_cut_leaves_nothing(
    filled: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets its name once it is complete; the one that was there before stays until then."""
    (tmp_path / "x.tar").write_bytes(b"older")
    with pytest.raises(Cut):
        exports.export(
            filled, list_scopes_to_export(filled, ()),
            open_target(filled, str(tmp_path / "x.tar")), lambda _: (_ for _ in ()).throw(Cut),
        )  # fmt: skip
    assert (tmp_path / "x.tar").read_bytes() == b"older"
    assert [path.name for path in tmp_path.iterdir() if "tar" in path.name] == ["x.tar"]


def test_exporting_again_writes_what_is_new_and_removes_nothing(
    filled: Vault, tmp_path: Path
) -> None:
    """Equal files are left alone, damaged ones are written anew."""
    export_to(filled, tmp_path / "x")
    before = {path: path.stat().st_ino for path in (tmp_path / "x").rglob("*.json")}
    victim, *_ = (path for path in before if path.parent.name == "notes")
    victim.write_bytes(b"X" * victim.stat().st_size)
    removed = filled.versions("my.notes")[0]
    filled.delete("my.notes", removed.stamp)
    filled.put("my.notes", b"new", name="new")
    done = export_to(filled, tmp_path / "x")
    assert (done.versions, done.written) == (10, 2)
    assert (tmp_path / "x/data/my/notes" / f"{removed.stamp}.json").exists()
    after = {path: path.stat().st_ino for path in before}
    assert [path for path in before if before[path] != after[path]] == [victim]


def test_an_import_of_a_cut_archive_is_a_beginning(
    filled: Vault, vault: Vault, tmp_path: Path
) -> None:
    """It is told; the whole archive finishes it."""
    export_to(filled, tmp_path / "x.tar")
    content = (tmp_path / "x.tar").read_bytes()
    for part in (0.2, 0.5, 0.8):
        (tmp_path / "cut.tar").write_bytes(content[: int(len(content) * part)])
        with pytest.raises(InvalidBody, match="damaged"):
            import_from(vault, tmp_path / "cut.tar")
    import_from(vault, tmp_path / "x.tar")
    found, wanted = describe(vault), describe(filled)
    forget_directory_times(found), forget_directory_times(wanted)
    assert found == wanted
    check_whole(vault)


# Damage, and what is no export


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("dest", ["x", "x.tar"])
def test_damaged_versions_are_told_and_the_others_exported(
    filled: Vault, vault: Vault, tmp_path: Path, dest: str
) -> None:
    """A large document, an inline payload, and a blob that two versions have."""
    filled.settle()
    sizes = {version.payload_size: version for version in filled.versions("my.notes")}
    for size in (4, 70_008):
        damage(filled.layout.root / sizes[size].path)
    damage(filled.layout.blob(sizes[100_000].payload_sha256))
    done = export_to(filled, tmp_path / dest)
    assert (done.versions, len(done.problems)) == (6, 4)
    again = import_from(vault, tmp_path / dest)
    assert again.imported == 6
    # Told once for the scope.
    assert [problem.where for problem in again.problems] == ["my.notes"]
    assert {v.payload_size for v in vault.versions("my.notes")} == set(sizes) - {4, 70_008, 100_000}
    check_whole(vault)


def test_damage_in_an_export_is_refused(filled: Vault, vault: Vault, tmp_path: Path) -> None:
    """Envelopes and blobs are compared with their hashes; all others are imported."""
    export_to(filled, tmp_path / "x")
    blobs = [path for path in (tmp_path / "x/blobs").rglob("*") if path.stat().st_size == 100_000]
    for path in (blobs[0], sorted((tmp_path / "x/data/my/notes").glob("*.json"))[0]):
        damage(path)
    done = import_from(vault, tmp_path / "x")
    assert (done.imported, len(done.problems)) == (7, 3)
    check_whole(vault)
    export_to(filled, tmp_path / "x")
    assert import_from(vault, tmp_path / "x").imported == 3
    assert describe(vault)["my.notes"]["versions"] == describe(filled)["my.notes"]["versions"]


def test_an_export_goes_nowhere_but_to_a_place_of_its_own(
    filled: Vault, vault: Vault, tmp_path: Path
) -> None:
    """Not into the vault, not over other files, not over another vault's export."""
    with pytest.raises(InvalidQuery, match="vault itself"):
        export_to(filled, filled.layout.root / "data")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_bytes(b"")
    with pytest.raises(Conflict, match="no export"):
        export_to(filled, tmp_path / "full")
    with pytest.raises(Conflict, match="is a file"):
        export_to(filled, tmp_path / "full/file")
    export_to(filled, tmp_path / "x")
    with pytest.raises(Conflict, match="another vault"):
        export_to(vault, tmp_path / "x")
    newer = json.loads((tmp_path / "x/export.json").read_bytes()) | {"format": 2}
    (tmp_path / "x/export.json").write_text(json.dumps(newer))
    with pytest.raises(InvalidQuery, match="newer"):
        import_from(vault, tmp_path / "x")


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08rest"])
def test_what_is_no_archive_is_refused(vault: Vault, tmp_path: Path, content: bytes) -> None:
    """In words; nor is a directory without data."""
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(InvalidBody):
        import_from(vault, tmp_path / "x.tar")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidBody, match="no export"):
        import_from(vault, tmp_path / "empty")
    with pytest.raises(NotFound):
        import_from(vault, tmp_path / "nothing")


ODD = [
    ("data/my/notes/../../../2026-01-01T00-00-00Z.json", tarfile.REGTYPE),
    ("/data/my/notes/2026-01-01T00-00-00Z.json", tarfile.REGTYPE),
    ("data/my/notes/2026-01-01T00-00-00Z.json", tarfile.SYMTYPE),
    ("data/my/notes/2026-01-01T00-00-00Z.json", tarfile.LNKTYPE),
    ("data/my/notes/2026-01-01T00-00-00Z.json", tarfile.FIFOTYPE),
    ("data/my/notes/x.json", tarfile.REGTYPE), ("data/My/notes/2026-01-01T00-00-00Z.json", b"0"),
    ("data/my/2026-01-01T00-00-00Z.json", tarfile.REGTYPE), ("vault.json", tarfile.REGTYPE),
    ("names/my.jsonl", tarfile.REGTYPE), ("names/my.notes.jsonl", tarfile.REGTYPE),
    ("blobs/xx/yy", tarfile.REGTYPE), ("blobs/00/" + "00" * 32, tarfile.REGTYPE),
]  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), ODD)
def test_odd_members_of_archives_are_told_and_nothing_else(
    vault: Vault, tmp_path: Path, name: str, kind: bytes
) -> None:
    """Links, devices, ways out, wrong names: the rest of the archive is imported."""
    good = b'{"version":"1.0","scope":"a.b","collectedAt":"2026-01-01T00:00:00Z","data":{}}'
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        odd = tarfile.TarInfo(name)
        odd.type, odd.linkname = kind, "/etc/passwd"
        tar.addfile(odd)
        member = tarfile.TarInfo("data/a/b/2026-01-01T00-00-00Z.json")
        member.size = len(good)
        tar.addfile(member, io.BytesIO(good))
    done = import_from(vault, tmp_path / "x.tar")
    assert (done.imported, len(done.problems)) == (1, 1)
    assert done.problems[0].where == name
    check_whole(vault)


def test_links_in_a_directory_are_refused(filled: Vault, vault: Vault, tmp_path: Path) -> None:
    """Whatever they point to."""
    export_to(filled, tmp_path / "x")
    notes = tmp_path / "x/data/my/notes"
    first = sorted(notes.glob("*.json"))[0]
    first.rename(tmp_path / "elsewhere")
    first.symlink_to(tmp_path / "elsewhere")
    (notes / "loop").symlink_to(notes)
    (notes / "note.txt").write_bytes(b"")
    done = import_from(vault, tmp_path / "x")
    assert done.imported == 9
    told = {os.path.basename(problem.where) for problem in done.problems}
    assert told == {first.name, "loop", "note.txt", "my.notes"}


NAMES_LINES = [
    b"", b"x", b'{"kind":"file"}', b'{"kind":"scope","scope":"a.c","mode":"0755","mtimeNs":0}',
    b'{"kind":"scope","scope":"a.b","mode":"99999","mtimeNs":0}',
    b'{"kind":"scope","scope":"a.b","mode":"0755","mtimeNs":99999999999999999999}',
] + [
    b'{"kind":"scope","scope":"a.b","mode":"0755","mtimeNs":0}\n' + line
    for line in (
        b'{"kind":"folder","name":"..","mode":"0755","mtimeNs":0}',
        b'{"kind":"folder","name":"lower","mode":"0755","mtimeNs":0}',
        b'{"kind":"symlink","names":[{"name":"a"}],"mtimeNs":0}',
        b'{"kind":"symlink","names":[{"nameHex":"zz"}],"target":"x","mtimeNs":0}',
        b'{"kind":"file","names":[{"name":"../a"}],"mode":"0644","mtimeNs":0}',
        b'{"kind":"file","names":[],"mode":"0644","mtimeNs":0}',
        b'{"kind":"file","names":[{}],"mode":"0644","mtimeNs":0}',
        b'{"kind":"file","names":[],"mode":"0644","mtimeNs":0,"versions":{"yesterday":"00"}}',
        b'{"kind":"file","names":[],"mode":"0644","mtimeNs":0,'
        b'"versions":{"2026-01-01T00-00-00Z":"00"}}',
    )
]  # fmt: skip


@pytest.mark.parametrize("lines", NAMES_LINES)
def test_names_that_cannot_be_are_told(vault: Vault, tmp_path: Path, lines: bytes) -> None:
    """The versions are imported without them."""
    good = b'{"version":"1.0","scope":"a.b","collectedAt":"2026-01-01T00:00:00Z","data":{}}'
    add(tmp_path / "x", "data/a/b/2026-01-01T00-00-00Z.json", good)
    add(tmp_path / "x", "names/a.b.jsonl", lines)
    done = import_from(vault, tmp_path / "x")
    assert (done.imported, [problem.where for problem in done.problems]) == (1, ["names/a.b.jsonl"])


# Into a vault that holds something


def test_a_tree_of_envelopes_alone_is_grouped_by_names(
    filled: Vault, vault: Vault, tmp_path: Path
) -> None:
    """A name follows the newest version that bears it."""
    filled.put("my.notes", b"newest", name="a.txt")
    filled.settle()
    shutil.copytree(filled.layout.data, tmp_path / "x/data")
    shutil.copytree(filled.layout.blobs, tmp_path / "x/blobs")
    done = import_from(vault, tmp_path / "x")
    assert (done.imported, done.problems) == (11, [])
    assert vault.read_payload(vault.get("my.notes", name="a.txt")) == b"newest"
    assert vault.read_payload(vault.get("other.files", name="gone.txt")) == b"gone"
    assert query(vault, "SELECT COUNT(DISTINCT node) FROM data_files WHERE name = ?", b"a.txt") == [
        (1,)
    ]
    assert import_from(vault, tmp_path / "x").already_there == 11
    check_whole(vault)


@pytest.mark.parametrize("order", ["names last", "blobs last", "sorted", "inside a directory"])
def test_an_archive_made_by_hand_may_have_any_order(
    filled: Vault, vault: Vault, tmp_path: Path, order: str
) -> None:
    """What is needed first is looked for first, or waited for."""
    export_to(filled, tmp_path / "x")
    key = {"names last": "names", "blobs last": "blobs"}.get(order, "-")
    files = sorted(path for path in (tmp_path / "x").rglob("*") if path.is_file())
    files.sort(key=lambda path: key in path.parts)
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for path in files:
            inside = path.relative_to(tmp_path / "x")
            tar.add(path, f"backup/{inside}" if order == "inside a directory" else f"./{inside}")
    assert import_from(vault, tmp_path / "x.tar").problems == []
    assert describe(vault) == describe(filled)
    check_whole(vault)


def test_names_of_the_vault_that_show_newer_versions_stay(
    filled: Vault, vault: Vault, tmp_path: Path
) -> None:
    """Older ones are followed by what comes; nothing of the vault is lost."""
    vault.put("my.notes", b"mine, and newer", name="a.txt")
    older = vault.put("my.notes", b"mine", name="own.txt")
    export_to(filled, tmp_path / "x")
    done = import_from(vault, tmp_path / "x")
    assert done.problems == []
    assert vault.read_payload(vault.get("my.notes", name="a.txt")) == b"mine, and newer"
    assert vault.read_payload(vault.get("my.notes", name="own.txt")) == b"mine"
    assert vault.get("my.notes", stamp=older.stamp) == older
    assert len(vault.versions("my.notes")) == 10
    check_whole(vault)


def test_a_newer_export_brings_the_new_names(filled: Vault, vault: Vault, tmp_path: Path) -> None:
    """A file that was renamed and written since is renamed here; one that was removed goes."""
    export_to(filled, tmp_path / "x")
    import_from(vault, tmp_path / "x")
    node = make_scope(filled, "my.notes")
    filled.apply(changes.apply_rename, node, b"renamed.json", node, b"twice.json", replace=True)
    filled.put("my.notes", b'{"new": 1}', name="twice.json")
    filled.put("my.notes", b"last words", name="again.bin")
    filled.apply(changes.apply_unlink, node, b"again.bin")
    export_to(filled, tmp_path / "x")
    assert import_from(vault, tmp_path / "x").imported == 2
    found, wanted = describe(vault), describe(filled)
    assert found["my.notes"]["files"] == wanted["my.notes"]["files"]
    assert found["my.notes"]["versions"] == wanted["my.notes"]["versions"]
    check_whole(vault)


def test_two_files_that_bore_one_name_stay_two(vault: Vault, tmp_path: Path) -> None:
    """The first was renamed, written to and removed, when the second had the name already."""
    with Vault.open(tmp_path / "one", create=True) as one:
        node = make_scope(one, "my.notes")
        one.put("my.notes", b"first", name="n")
        # Its envelope keeps that name.
        one.settle()
        one.apply(changes.apply_rename, node, b"n", node, b"m", replace=True)
        one.put("my.notes", b"second", name="n")
        one.put("my.notes", b"first again", name="m")
        one.apply(changes.apply_unlink, node, b"m")
        export_to(one, tmp_path / "x")
        import_from(vault, tmp_path / "x")
        assert describe(vault) == describe(one)
    assert len(describe(vault)["my.notes"]["grouped"]) == 2
    check_whole(vault)


def test_a_version_goes_back_to_the_file_that_has_its_others(
    vault: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when that was renamed here since; no name is made for it."""
    monkeypatch.setattr("scopefs.transfer.imports.BATCH_VERSIONS", 1)
    with Vault.open(tmp_path / "one", create=True) as one:
        old = one.put("my.notes", b"old", name="n")
        one.put("my.notes", b"new", name="n")
        export_to(one, tmp_path / "x")
    import_from(vault, tmp_path / "x")
    node = make_scope(vault, "my.notes")
    vault.apply(changes.apply_rename, node, b"n", node, b"mine", replace=True)
    vault.delete("my.notes", old.stamp)
    assert import_from(vault, tmp_path / "x").imported == 1
    assert [name for name, _ in vault.names("my.notes")] == [b"mine"]
    assert len({version.node for version in vault.versions("my.notes")}) == 1
    check_whole(vault)


def test_a_file_that_was_removed_there_takes_no_name_here(vault: Vault, tmp_path: Path) -> None:
    """Not for a moment, though its version is newer than what the name shows."""
    clock = Clock()
    with Vault.open(tmp_path / "third", create=True, clock_us=clock) as third:
        third.put("my.notes", b"mine", name="n")
        clock.move(60)
        with Vault.open(tmp_path / "one", create=True, clock_us=clock) as one:
            one.put("my.notes", b"newer", name="n")
            one.apply(changes.apply_unlink, make_scope(one, "my.notes"), b"n")
            export_to(one, tmp_path / "x")
        assert import_from(third, tmp_path / "x").imported == 1
        assert third.read_payload(third.get("my.notes", name="n")) == b"mine"
        check_whole(third)


def test_names_that_were_removed_come_back(filled: Vault, vault: Vault, tmp_path: Path) -> None:
    """An export is a backup: what the vault lacks is added, a name that is taken stays."""
    export_to(filled, tmp_path / "x")
    import_from(vault, tmp_path / "x")
    node = make_scope(vault, "my.notes")
    for name in (b"a.txt", b"hard", b"renamed.json", b"link"):
        vault.apply(changes.apply_unlink, node, name)
    vault.put("my.notes", b"another file", name="renamed.json")
    done = import_from(vault, tmp_path / "x")
    assert (done.imported, done.problems) == (0, [])
    for name in (b"a.txt", b"hard", b"link"):
        assert find_child(vault, node, name) is not None
    assert vault.read_payload(vault.get("my.notes", name="renamed.json")) == b"another file"
    check_whole(vault)


def test_versions_of_another_vault_at_the_same_time_are_told(
    filled: Vault, vault: Vault, tmp_path: Path, clock: Clock
) -> None:
    """They exist already and differ: nothing is overwritten, the others come."""
    with Vault.open(tmp_path / "third", create=True, clock_us=clock) as third:
        mine = third.put("my.notes", b"mine", name="m.txt")
        export_to(filled, tmp_path / "x")
        done = import_from(third, tmp_path / "x")
        assert (done.imported, [type(found.error) for found in done.problems]) == (9, [Conflict])
        assert third.read_payload(third.get("my.notes", stamp=mine.stamp)) == b"mine"
        check_whole(third)


def test_a_version_of_the_future_is_told(filled: Vault, tmp_path: Path, clock: Clock) -> None:
    """The others are imported."""
    clock.move(60)
    filled.put("my.notes", b"later", name="later.txt")
    export_to(filled, tmp_path / "x")
    with Vault.open(tmp_path / "third", create=True, clock_us=Clock()) as third:
        done = import_from(third, tmp_path / "x")
        assert done.imported == 10
        assert "ahead of the clock" in str(done.problems[0].error)
        check_whole(third)


def test_scratch_files_are_not_exported(filled: Vault, vault: Vault, tmp_path: Path) -> None:
    """They have no version, and belong to the program that is at work."""
    node = make_scope(filled, "my.notes")
    sealed = Sealed(1, hashlib.sha256(b"x").digest(), Kind.INLINE, "text/plain", b"x", None)
    write = Write(
        filled.owner_name, node, filled.apply(allocate_nodes, 1), node, b"a.txt~", 0o644, 5, sealed
    )
    filled.apply(apply_release, write, filled.scratch)
    assert load_child(filled, node, b"a.txt~").is_scratch
    export_to(filled, tmp_path / "x")
    assert import_from(vault, tmp_path / "x").problems == []
    assert find_child(vault, make_scope(vault, "my.notes"), b"a.txt~") is None


def test_documents_of_the_wild(vault: Vault, tmp_path: Path) -> None:
    """botocore's JSON documents, each read back byte for byte on the other side."""
    root = Path(botocore.__file__).parent / "data"
    files = sorted(root.rglob("*.json*"))[::40]
    with Vault.open(tmp_path / "one", create=True) as one:
        for path in files:
            one.put("aws.models", path, name=f"Models/{path.parent.parent.name}-{path.name}")
        export_to(one, tmp_path / "x.tar.gz")
        done = import_from(vault, tmp_path / "x.tar.gz")
        assert (done.imported, done.problems) == (len(files), [])
        assert describe(vault) == describe(one)
    for path in files:
        version = vault.get("aws.models", name=f"Models/{path.parent.parent.name}-{path.name}")
        assert vault.read_payload(version) == path.read_bytes()
    check_whole(vault)
