"""Vaults that earlier versions of scopefs made: all that was in them is read, byte for byte."""

import hashlib
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from scopefs import Vault
from scopefs.errors import NewerFormat
from scopefs.model.envelope import decode_envelope
from scopefs.store import schema
from scopefs.store.layout import FORMAT
from tests.golden.describe import describe, hash_file
from tests.mounting import Mounted, run_scopefs
from tests.store.inspection import expect_none, find_problems, run_python_until_it_dies

HERE = Path(__file__).parent
NAMES = sorted(path.name.removesuffix(".tar.gz") for path in HERE.glob("*.tar.gz"))
KILLED = [name for name in NAMES if name.endswith("-killed")]


def unpack(name: str, place: Path) -> tuple[Path, dict[str, Any]]:
    """A golden vault, and what it has to show."""
    with tarfile.open(HERE / f"{name}.tar.gz") as archive:
        archive.extractall(place, filter="data")
    return place / "vault", json.loads((HERE / f"{name}.json").read_text())


def read_version(root: Path) -> int:
    """The number of the schema of a vault's index, before anybody opens it."""
    # Of a copy: whoever looks at an index with a WAL may change both.
    copy = root.parent / "copy.db"
    for suffix in ("", "-wal"):
        if Path(f"{root / 'index.db'}{suffix}").exists():
            Path(f"{copy}{suffix}").write_bytes(Path(f"{root / 'index.db'}{suffix}").read_bytes())
    db = apsw.Connection(str(copy))
    found = schema.read_user_version(db)
    db.close()
    return found


def check_log(found: list[dict[str, Any]], kept: list[dict[str, Any]]) -> None:
    """Every event is there as it was. Later ones may be before them."""
    assert found[len(found) - len(kept) :] == kept


def expected_views(kept: dict[str, Any]) -> dict[str, Any]:
    """The views as they were, without histories of names that are scratch by now (semantics S8).

    Schema 1 knew no scratch files; the versions that it made of them are still in `.versions`.
    """
    return {
        view: {where: said for where, said in content.items() if not _is_history_of_scratch(where)}
        for view, content in kept["views"].items()
    }


def _is_history_of_scratch(where: str) -> bool:
    return Path(where).parent.name in ("scratch~", "scratch.part")


def without_new(found: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
    """What a mount shows of that which was there; the rest must be what the kill had left."""
    new = {name for name in found["names"] if name not in kept["names"]}
    assert new == set(kept.get("late", {}))
    names = {name: said for name, said in found["names"].items() if name not in new}
    if new:
        # Their directory has another mtime by them.
        for name in new:
            for said in (names[str(Path(name).parent)], kept["names"][str(Path(name).parent)]):
                said.pop("mtimeNs", None)
    views = {
        view: {where: said for where, said in content.items() if where in kept["views"][view]}
        for view, content in found["views"].items()
    }
    for view in views if new else ():
        # The newest version is another one.
        for content in (views[view], kept["views"][view]):
            content.pop("latest.json", None)
    return {"names": names, "views": views}


def test_every_schema_has_its_vault() -> None:
    """There is a clean vault and one of a killed program for each schema that ever was."""
    wanted = [f"schema-{number}" for number in range(1, len(schema.MIGRATIONS) + 1)]
    assert sorted(NAMES) == sorted(wanted + [f"{name}-killed" for name in wanted])


@pytest.mark.parametrize("name", NAMES)
def test_vault_is_of_its_schema(name: str, tmp_path: Path) -> None:
    """The vault has the format and the schema that its name says, and a new one has the newest."""
    root, _ = unpack(name, tmp_path)
    assert read_version(root) == int(name.split("-")[1])
    assert json.loads((root / "vault.json").read_text())["format"] == FORMAT == 1


def check_versions(vault: Vault, kept: dict[str, Any]) -> None:
    """Fail unless each version is read by its stamp, byte for byte."""
    read = 0
    for view, content in kept["views"].items():
        scope, _, kind = view.rpartition("/")
        if kind != ".versions":
            continue
        for file, sha256 in content.items():
            if file == "latest.json":
                continue
            version = vault.get(scope.replace("/", "."), stamp=file.removesuffix(".json"))
            envelope = vault.read_envelope(version)
            assert hash_bytes(envelope) == sha256, file
            assert hash_bytes(vault.read_payload(version)) == version.payload_sha256.hex()
            assert decode_envelope(envelope).file.sha256 == version.payload_sha256
            read += 1
    assert read >= 15


@pytest.mark.parametrize("name", NAMES)
def test_library_reads_and_writes(name: str, tmp_path: Path) -> None:
    """Each version is read by its stamp, each event is there, and the vault takes new versions."""
    root, kept = unpack(name, tmp_path)
    with Vault.open(root) as vault:
        check_versions(vault, kept)
        for name_in_vault, text in kept.get("late", {}).items():
            scope, _, base = name_in_vault.rpartition("/")
            found = vault.get(scope.replace("/", "."), name=base)
            assert vault.read_payload(found).decode() == text
        partial = [(root / "partial" / story["file"]).read_text() for story in vault.partial()]
        assert partial == kept.get("partial", [])
        new = vault.put("my.files", b'{"new":1}', name="a.json")
        assert vault.read_payload(vault.get("my.files", name="a.json")) == b'{"new":1}'
        assert [entry.versions for entry in vault.trash()] == [1] * len(kept["trash"])
    with Vault.open(root) as vault:
        assert vault.get("my.files", stamp=new.stamp) == new
        for entry in vault.trash():
            vault.restore(entry.id)
        assert vault.read_payload(vault.get("trash.all")) == b"all of it"
    assert run_scopefs("verify", vault=root).returncode == 0


# Opens a vault, and dies before the Nth thing that SQLite does to a file.
_MIGRATE = """
import os, signal, sys
import apsw
steps = int(sys.argv[2])

def step():
    global steps
    steps -= 1
    if steps == 0:
        os.kill(os.getpid(), signal.SIGKILL)

class File(apsw.VFSFile):
    def __init__(self, name, flags):
        super().__init__("unix", name, flags)
    def xWrite(self, data, offset):
        step()
        super().xWrite(data, offset)
    def xSync(self, flags):
        step()
        super().xSync(flags)
    def xTruncate(self, size):
        step()
        super().xTruncate(size)

class Disk(apsw.VFS):
    def __init__(self):
        super().__init__("dying", "unix", makedefault=True)
    def xOpen(self, name, flags):
        return File(name, flags)
    def xDelete(self, path, sync):
        step()
        super().xDelete(path, sync)

disk = Disk()
from scopefs.store import index
index.migrate_index(sys.argv[1] + "/index.db")
print("migrated", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("schema-1")])
def test_migration_that_is_killed_at_every_step(name: str, tmp_path: Path) -> None:
    """Wherever it is cut, the index is of one schema or of the other, and the next open ends it."""
    found = set()
    out = ""
    step = 1
    while out != "migrated\n":
        root, kept = unpack(name, tmp_path / str(step))
        out = run_python_until_it_dies(_MIGRATE, root, str(step))
        found.add(read_version(root))
        with Vault.open(root) as vault:
            check_versions(vault, kept)
            expect_none(find_problems(vault))
        assert read_version(root) == len(schema.MIGRATIONS)
        step += 3
    assert found == {1, len(schema.MIGRATIONS)}
    assert step > 50


@pytest.mark.parametrize("name", NAMES)
def test_mount_shows_what_was_shown(
    name: str, tmp_path: Path, start: Callable[..., Mounted]
) -> None:
    """Names, modes, times, inode numbers, contents, versions and histories are as they were."""
    root, kept = unpack(name, tmp_path)
    kept["views"] = expected_views(kept)
    mount = start()
    mount.expected_alarms.append("recovered from an unclean end")
    check_log(json.loads(run_scopefs("log", "--json", vault=root).stdout), kept["log"])
    found = describe(mount.point)
    for where, text in kept.get("late", {}).items():
        assert found["names"][where]["sha256"] == hash_bytes(text.encode())
    found = without_new(found, kept)
    assert found["names"] == kept["names"]
    assert found["views"] == kept["views"]
    (mount.point / "my" / "files" / "a.json").write_bytes(b'{"new":1}')
    assert (
        (mount.point / "my" / "files" / ".versions" / "latest.json")
        .read_bytes()
        .endswith(b'"data":{"new":1}}\n')
    )
    mount.stop()
    mount.check_log()
    trash = {
        str(path.relative_to(root / "trash")): hash_file(path)
        for path in sorted((root / "trash").rglob("*.json"))
    }
    assert trash == kept["trash"]
    assert run_scopefs("verify", vault=root).returncode == 0


@pytest.mark.parametrize("name", [name for name in NAMES if name not in KILLED])
def test_index_can_be_made_again(name: str, tmp_path: Path, start: Callable[..., Mounted]) -> None:
    """Without its index, `reindex` brings back what the vault had shown."""
    root, kept = unpack(name, tmp_path)
    for path in root.glob("index.db*"):
        path.unlink()
    run_scopefs("reindex", vault=root, check=False)
    # Only what scratch files held was in the index alone.
    scratch = [where for where in kept["names"] if where.endswith(("~", ".part"))]
    mount = start()
    found = describe(mount.point)
    mount.stop()
    mount.check_log()
    for where, said in kept["names"].items():
        if where not in scratch or name == "schema-1":
            if said["mode"].startswith("d"):
                # Old events do not say it to the microsecond, and names of lost scratch files end.
                said["mtimeNs"] = found["names"][where]["mtimeNs"]
            assert found["names"][where] == said
    assert found["views"] == expected_views(kept)


def test_newer_format_is_refused(tmp_path: Path) -> None:
    """A vault of a later format is refused by both numbers, with what to do, and not touched."""
    root, _ = unpack(NAMES[-1], tmp_path)
    said = json.loads((root / "vault.json").read_text())
    (root / "vault.json").write_text(json.dumps({**said, "format": FORMAT + 1}))
    before = {path: hash_file(path) for path in root.rglob("*") if path.is_file()}
    with pytest.raises(NewerFormat, match=r"format 2; .* knows 1: install a newer scopefs"):
        Vault.open(root)
    done = run_scopefs("mount", str(tmp_path / "mnt"), vault=root, check=False)
    assert done.returncode == 7
    assert b"install a newer scopefs" in done.stderr
    assert {path: hash_file(path) for path in root.rglob("*") if path.is_file()} == before


def hash_bytes(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
