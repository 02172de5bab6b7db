"""Scratch files are kept like any others and make no versions: semantics S8."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from scopefs.model.envelope import decode_envelope
from tests.mount.reading import (
    count_versions,
    list_stamps,
    read_history,
    read_partial,
    remove,
    wait_settled,
)
from tests.mounting import Mounted, run_scopefs

LARGE = 200_000
SCRATCH_NAMES = [
    ".a.txt.swp", "a.txt~", "#a.txt#", ".#a.txt", ".~lock.a.odt#", "~$a.docx", "._a.txt",
    ".DS_Store", "a.iso.part", "a.iso.crdownload", ".goutputstream-X1Y2Z3", "a.db-journal",
    "a.db-wal", "a.db-shm",
]  # fmt: skip


@pytest.mark.parametrize("name", SCRATCH_NAMES)
def test_scratch_file_works_and_makes_no_version(scope: Path, name: str) -> None:
    """It can be written, read, appended to, listed and removed; history never hears of it."""
    path = scope / name
    path.write_bytes(b"one")
    with path.open("ab") as file:
        file.write(b" two")
    assert path.read_bytes() == b"one two"
    assert path.stat().st_size == 7
    assert os.listdir(scope) == [name]
    assert count_versions(scope) == 0
    assert os.listdir(scope / ".history") == []
    assert not (scope / ".history" / name).exists()
    path.unlink()
    assert os.listdir(scope) == []


@pytest.mark.parametrize("name", ["a.txt", "part", "a~b", "a.part.txt", "swp", "a-journal.txt"])
def test_other_names_are_ordinary(scope: Path, name: str) -> None:
    """What only looks a little like scratch makes versions."""
    (scope / name).write_bytes(b"x")
    assert count_versions(scope) == 1


def test_files_below_a_scratch_folder_are_scratch(scope: Path) -> None:
    """A pattern that ends with a slash stands for all files below such a folder."""
    folder = scope / ".rsync-partial" / "Deeper"
    folder.mkdir(parents=True)
    (folder / "f").write_bytes(b"x")
    assert count_versions(scope) == 0
    os.rename(folder / "f", scope / "f")
    assert read_history(scope, "f") == [b"x"]


@pytest.mark.parametrize("size", [0, 5, LARGE])
@pytest.mark.parametrize("settled", [False, True])
def test_scratch_file_is_there_after_a_remount(
    start: Callable[..., Mounted], size: int, settled: bool
) -> None:
    """Durable as files: bytes, mode and time come through an unmount."""
    mounted = start()
    scope = mounted.make_scope()
    content = os.urandom(size)
    (scope / "a.part").write_bytes(content)
    (scope / "a.part").chmod(0o600)
    os.utime(scope / "a.part", ns=(1, 1_000_000_007))
    if settled:
        wait_settled(mounted)
    mounted.stop()
    mounted = start()
    found = mounted.make_scope() / "a.part"
    assert found.read_bytes() == content
    assert (found.stat().st_mode & 0o777, found.stat().st_mtime_ns) == (0o600, 1_000_000_007)
    assert count_versions(mounted.make_scope()) == 0
    mounted.stop()


@pytest.mark.parametrize("size", [5, LARGE])
def test_scratch_file_is_there_after_a_kill(start: Callable[..., Mounted], size: int) -> None:
    """What close() has acknowledged is there after kill -9, and is still scratch."""
    mounted = start()
    scope = mounted.make_scope()
    (scope / "a.part").write_bytes(b"1" * size)
    (scope / "a.part").write_bytes(b"2" * size)
    (scope / "b~").write_bytes(b"3" * size)
    mounted.kill()
    mounted = start()
    mounted.expected_alarms.append("recovered")
    scope = mounted.make_scope()
    assert (scope / "a.part").read_bytes() == b"2" * size
    assert (scope / "b~").read_bytes() == b"3" * size
    assert count_versions(scope) == 0
    assert read_partial(mounted.vault) == []
    mounted.stop()


@pytest.mark.parametrize("size", [3, 100_000])
@pytest.mark.parametrize("name", ["a~", "a.txt"])
@pytest.mark.parametrize("is_replaced", [False, True])
def test_open_file_stays_readable_after_its_last_name(
    scope: Path, name: str, size: int, is_replaced: bool
) -> None:
    """As in any directory, whether it is a scratch file or not."""
    fd = os.open(scope / name, os.O_RDWR | os.O_CREAT)
    (scope / name).write_bytes(b"x" * size)
    if is_replaced:
        (scope / "new").write_bytes(b"n")
        (scope / "new").rename(scope / name)
    else:
        os.unlink(scope / name)
    assert os.fstat(fd).st_size == size
    assert os.pread(fd, 10, 0) == b"x" * min(10, size)
    os.ftruncate(fd, 5)
    assert os.pread(fd, 10, 0) == (b"x" * size)[:5].ljust(5, b"\0")
    os.close(fd)
    assert os.listdir(scope) == ([name] if is_replaced else [])


@pytest.mark.parametrize("size", [5, 20_000, LARGE])
def test_renamed_to_an_ordinary_name_it_is_published(
    shared: Mounted, scope: Path, size: int
) -> None:
    """A download that is finished becomes one version under its final name."""
    content = os.urandom(size)
    (scope / "a.json.part").write_bytes(content)
    (scope / "a.json.part").rename(scope / "a.json")
    assert os.listdir(scope) == ["a.json"]
    assert read_history(scope, "a.json") == [content]
    assert (scope / "a.json").read_bytes() == content
    wait_settled(shared)
    assert (scope / "a.json").read_bytes() == content
    assert read_history(scope, "a.json") == [content]


def test_renamed_over_an_ordinary_name(scope: Path) -> None:
    """It continues the history of the name that it replaces."""
    (scope / "a").write_bytes(b"one")
    (scope / "a.part").write_bytes(b"two")
    os.replace(scope / "a.part", scope / "a")
    assert read_history(scope, "a") == [b"one", b"two"]


def test_renamed_while_it_is_written(scope: Path) -> None:
    """The handle follows the inode: what is closed later is one version of the final name."""
    with (scope / ".goutputstream-A").open("wb") as file:
        file.write(b"whole")
        os.rename(scope / ".goutputstream-A", scope / "a")
    assert read_history(scope, "a") == [b"whole"]
    assert count_versions(scope) == 1


def test_linked_to_an_ordinary_name_it_is_published(scope: Path) -> None:
    """A further name that is ordinary makes it an ordinary file."""
    (scope / "a.part").write_bytes(b"x")
    os.link(scope / "a.part", scope / "a")
    assert read_history(scope, "a") == [b"x"]
    assert (scope / "a.part").read_bytes() == b"x"
    assert count_versions(scope) == 1


def test_ordinary_name_renamed_to_scratch_leaves_its_versions(scope: Path) -> None:
    """The backup that an editor makes has the old bytes; the history stays with the old name."""
    (scope / "a").write_bytes(b"one")
    os.rename(scope / "a", scope / "a~")
    assert (scope / "a~").read_bytes() == b"one"
    (scope / "a").write_bytes(b"two")
    assert read_history(scope, "a") == [b"one", b"two"]
    assert os.listdir(scope / ".history") == ["a"]
    with (scope / "a~").open("ab") as file:
        file.write(b" and more")
    assert (scope / "a~").read_bytes() == b"one and more"
    assert count_versions(scope) == 2
    remove(scope / "a~")
    assert read_history(scope, "a") == [b"one", b"two"]


def test_emptied_and_overwritten(scope: Path) -> None:
    """It can be truncated to nothing, and grow to a file of its own, and shrink again."""
    path = scope / "a.part"
    path.write_bytes(b"x" * LARGE)
    path.write_bytes(b"")
    assert path.read_bytes() == b""
    path.write_bytes(b"y" * LARGE)
    os.truncate(path, 3)
    assert path.read_bytes() == b"yyy"
    assert count_versions(scope) == 0


def test_nothing_is_left_of_a_removed_one(start: Callable[..., Mounted]) -> None:
    """Its bytes leave the disk with its last name, or with the next save."""
    mounted = start()
    scope = mounted.make_scope()
    for _ in range(3):
        (scope / "a.part").write_bytes(os.urandom(LARGE))
    (scope / "b.part").write_bytes(os.urandom(LARGE))
    os.unlink(scope / "a.part")
    os.replace(scope / "b.part", scope / "c.part")
    mounted.stop()
    run_scopefs("settle", vault=mounted.vault)
    files = [path for path in (mounted.vault / "staging").rglob("*") if path.is_file()]
    assert [path.stat().st_size for path in files if path.stat().st_size] == [LARGE]


def test_killed_writer_of_a_scratch_file_leaves_it(scope: Path, shared: Mounted) -> None:
    """A download that is interrupted can be resumed: its file stays where it is."""
    script = "printf half; kill -9 $$"
    subprocess.run(["bash", "-c", f"exec bash -c '{script}' > a.part"], cwd=scope, check=False)
    assert (scope / "a.part").read_bytes() == b"half"
    assert read_partial(shared.vault) == []


def test_patterns_of_the_vault_s_own(start: Callable[..., Mounted]) -> None:
    """`config.toml` replaces the list."""
    mounted = start()
    mounted.stop()
    (mounted.vault / "config.toml").write_text('[scratch]\npatterns = ["*.tmp", "Cache/"]\n')
    mounted = start()
    scope = mounted.make_scope()
    (scope / "Cache").mkdir()
    for name in ("a.tmp", "a.part", "Cache/b"):
        (scope / name).write_bytes(b"x")
    assert count_versions(scope) == 1
    assert os.listdir(scope / ".history") == ["Cache", "a.part"]
    mounted.stop()


@pytest.mark.parametrize(
    "text", ["[scratch", "[scratch]\npatterns = 1", "[scrach]\npatterns = []", "\xff"]
)
def test_unusable_config_is_refused_in_words(tmp_path: Path, text: str) -> None:
    """A wrong config stops the mount, and names the file."""
    run_scopefs("put", "a.b", vault=tmp_path / "v", input=b"x")
    (tmp_path / "v" / "config.toml").write_bytes(text.encode("latin-1"))
    done = run_scopefs("status", vault=tmp_path / "v", check=False)
    assert done.returncode == 7
    assert b"config.toml" in done.stderr


def test_media_type_follows_the_final_name(scope: Path) -> None:
    """What a temporary name could not tell, the final one does."""
    (scope / "x.part").write_bytes(b"[1]")
    os.rename(scope / "x.part", scope / "x.json")
    (scope / "sedAbCdEf").write_bytes(b"a,b")
    os.rename(scope / "sedAbCdEf", scope / "y.csv")
    (scope / "y.csv").write_bytes(b"a,b,c")
    types = [
        decode_envelope((scope / ".versions" / stamp).read_bytes()).file.media_type
        for stamp in list_stamps(scope)
    ]
    assert types == ["application/json", "text/csv", "text/csv"]
