"""Starts that are refused, and ends of mounts: `scopefs mount`, `umount`, signals, kill -9."""

import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from scopefs import Vault
from scopefs.mount.point import is_mounted
from tests.mount.reading import count_versions, read_history, read_partial, wait_settled
from tests.mounting import Mounted, run_scopefs, wait_until

BAD_REQUEST, UNAVAILABLE = 2, 7
KIB = 1024
SCOPEFS = [sys.executable, "-m", "scopefs"]

Start = Callable[..., Mounted]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A mount point for mounts in the background; whatever is left there is unmounted."""
    point = tmp_path / "mnt"
    yield point
    while is_mounted(point):
        process = find_daemon(point)
        subprocess.run(["fusermount3", "-uz", point], check=True)
        if process is not None:
            wait_until(lambda process=process: not is_running(process))


@pytest.fixture
def old_vault(tmp_path: Path) -> Path:
    """A vault with one version in it."""
    path = tmp_path / "vault"
    with Vault.open(path, create=True) as vault:
        vault.put("my.files", b'{"a":1}', name="a.json")
    return path


def find_daemon(point: Path) -> int | None:
    """The process that serves a mount; None if it does not answer."""
    try:
        return int(json.loads((point / ".scopefs" / "status.json").read_bytes())["pid"])
    except OSError:
        return None


def is_running(process: int) -> bool:
    """Whether a process runs, and is no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def mount(vault: Path, point: Path, *options: str, before: tuple[str, ...] = ()) -> (
    "CompletedProcess[str]"
):  # fmt: skip
    """Run `scopefs mount` in the background, perhaps by way of another command."""
    return subprocess.run(
        [*before, *SCOPEFS, "mount", "--vault", vault, point, *options],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def check_refusal(done: "CompletedProcess[str]", exit_code: int, *words: str) -> None:
    """The command failed with that code and one sentence that has these words."""
    assert done.returncode == exit_code, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("scopefs: ")
    for word in words:
        assert word in line


def tell(call: Callable[[], object]) -> object:
    """What a call returns, or its errno."""
    try:
        return call()
    except OSError as error:
        return error.errno


def survey(path: Path) -> dict[str, bytes | None]:
    """Everything below a directory: contents of files."""
    return {
        str(found.relative_to(path)): found.read_bytes() if found.is_file() else None
        for found in path.rglob("*")
    }


# Mount points that are refused


@pytest.mark.parametrize("foreground", [(), ("-f",)])
def test_mount_on_a_file_is_refused(
    tmp_path: Path, place: Path, foreground: tuple[str, ...]
) -> None:
    """A mount point that is no directory; no vault is made either."""
    place.write_bytes(b"x")
    done = mount(tmp_path / "vault", place, *foreground)
    check_refusal(done, UNAVAILABLE, str(place), "is not a directory")
    assert not (tmp_path / "vault").exists()
    assert place.read_bytes() == b"x"


def test_mount_below_a_file_is_refused(tmp_path: Path) -> None:
    """A mount point that cannot be made because a file is in the way."""
    (tmp_path / "file").touch()
    done = mount(tmp_path / "vault", tmp_path / "file" / "mnt")
    check_refusal(done, UNAVAILABLE, "directory")


@pytest.mark.parametrize("foreground", [(), ("-f",)])
def test_mount_on_what_is_not_empty_is_refused(
    tmp_path: Path, place: Path, foreground: tuple[str, ...]
) -> None:
    """A mount would hide what a directory holds; no vault is made either."""
    place.mkdir()
    (place / "precious").touch()
    done = mount(tmp_path / "vault", place, *foreground)
    check_refusal(done, UNAVAILABLE, str(place), "is not empty")
    assert not (tmp_path / "vault").exists()


def test_mount_on_a_mount_is_refused(start: Start, tmp_path: Path) -> None:
    """Another vault cannot be mounted where one is; the sentence says how to unmount that."""
    mounted = start()
    done = mount(tmp_path / "other", mounted.point)
    check_refusal(done, UNAVAILABLE, str(mounted.point), "already mounted", "umount")
    assert not (tmp_path / "other").exists()
    os.stat(mounted.point)


def test_second_mount_of_a_vault_names_the_first(start: Start, tmp_path: Path) -> None:
    """A vault has one mount at a time: the refusal names the holder's pid and place."""
    mounted = start()
    done = mount(mounted.vault, tmp_path / "second")
    check_refusal(done, UNAVAILABLE, str(mounted.process.pid), str(mounted.point), "-o ro")
    assert not is_mounted(tmp_path / "second")
    mounted.make_scope()
    mounted.stop()
    mounted.check_log()


@pytest.mark.parametrize("below", ["vault", "vault/inside", "."])
def test_vault_is_not_mounted_over_itself(tmp_path: Path, below: str) -> None:
    """Neither on the vault's directory, nor inside it, nor on one that holds it."""
    (tmp_path / "top").mkdir()
    done = mount(tmp_path / "top" / "vault", (tmp_path / "top" / below))
    check_refusal(done, UNAVAILABLE, "itself")
    assert survey(tmp_path / "top").keys() <= {"vault", "vault/inside"}


def test_vault_is_not_mounted_over_itself_by_a_symlink(tmp_path: Path, old_vault: Path) -> None:
    """A symlink to the vault is the vault."""
    before = survey(old_vault)
    (tmp_path / "link").symlink_to(old_vault)
    check_refusal(mount(old_vault, tmp_path / "link"), UNAVAILABLE, "itself")
    check_refusal(mount(tmp_path / "link", old_vault), UNAVAILABLE, "itself")
    assert survey(old_vault) == before


@pytest.mark.parametrize("option", ["-ofoo", "-oallow_other,bar", "--foo"])
def test_unknown_option_is_refused(tmp_path: Path, place: Path, option: str) -> None:
    """An option that is not known is named; exit code 2."""
    done = mount(tmp_path / "vault", place, option)
    assert done.returncode == BAD_REQUEST
    assert option.removeprefix("-o").rpartition(",")[2] in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "vault").exists()


def test_mount_without_dev_fuse_is_refused(tmp_path: Path, place: Path) -> None:
    """Without /dev/fuse the sentence says what to load."""
    hide = 'mount -t tmpfs tmpfs /dev && mknod /dev/null c 1 3 && exec "$@"'
    done = mount(tmp_path / "vault", place, before=("unshare", "-m", "sh", "-c", hide, "sh"))
    check_refusal(done, UNAVAILABLE, "/dev/fuse", "modprobe fuse")
    assert not (tmp_path / "vault").exists()


def test_mount_with_a_useless_dev_fuse_is_refused(tmp_path: Path, place: Path) -> None:
    """A /dev/fuse that is another device: one sentence, no trace."""
    hide = 'mount --bind /dev/null /dev/fuse && exec "$@"'
    done = mount(tmp_path / "vault", place, before=("unshare", "-m", "sh", "-c", hide, "sh"))
    assert done.returncode == UNAVAILABLE
    assert "Traceback" not in done.stderr
    assert f"scopefs: {place} cannot be mounted" in done.stderr


# Vaults that are refused


@pytest.mark.parametrize("foreground", [(), ("-f",)])
def test_vault_of_a_newer_format_is_refused_untouched(
    old_vault: Path, place: Path, foreground: tuple[str, ...]
) -> None:
    """A format that this program does not know is left exactly as it is."""
    content = json.loads((old_vault / "vault.json").read_bytes())
    (old_vault / "vault.json").write_text(json.dumps({**content, "format": 2}))
    before = survey(old_vault)
    check_refusal(mount(old_vault, place, *foreground), UNAVAILABLE, "format 2", "newer scopefs")
    assert survey(old_vault) == before


def test_index_of_a_newer_schema_is_refused_untouched(old_vault: Path, place: Path) -> None:
    """So is an index that a newer program has migrated."""
    db = sqlite3.connect(old_vault / "index.db")
    db.execute("PRAGMA user_version = 1000")
    db.close()
    check_refusal(mount(old_vault, place), UNAVAILABLE, "newer scopefs")
    with sqlite3.connect(old_vault / "index.db") as db:
        assert db.execute("PRAGMA user_version").fetchall() == [(1000,)]
        assert db.execute("SELECT COUNT(*) FROM data_files").fetchall() == [(1,)]
    db.close()


WITHOUT_DAC = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--")


@pytest.mark.parametrize("exists", [True, False])
def test_vault_that_cannot_be_written_is_refused(tmp_path: Path, place: Path, exists: bool) -> None:
    """A vault in a directory without write permission, there already or to be made."""
    parent = tmp_path / "closed"
    parent.mkdir()
    vault = parent / "vault"
    if exists:
        Vault.open(vault, create=True).close()
        for path in (vault, *vault.rglob("*")):
            path.chmod(0o500 if path.is_dir() else 0o400)
    parent.chmod(0o500)
    try:
        done = mount(vault, place, before=WITHOUT_DAC)
        check_refusal(done, UNAVAILABLE, str(vault), "Permission denied")
    finally:
        parent.chmod(0o700)


def test_vault_on_a_read_only_file_system_is_refused(old_vault: Path, place: Path) -> None:
    """A file system that is mounted read-only."""
    close = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    done = mount(old_vault, place, before=("unshare", "-m", "sh", "-c", close, str(old_vault)))
    check_refusal(done, UNAVAILABLE, str(old_vault), "Read-only file system")


def test_directory_of_something_else_is_no_vault(tmp_path: Path, place: Path) -> None:
    """A directory that holds other files is refused, and stays as it is."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_bytes(b"x")
    check_refusal(mount(tmp_path / "home", place), UNAVAILABLE, "is no vault", "letter.txt")
    assert os.listdir(tmp_path / "home") == ["letter.txt"]


def test_data_of_a_personal_server_is_recognised(tmp_path: Path, place: Path) -> None:
    """data/ and index.db without vault.json: the sentence says whose that looks like."""
    (tmp_path / "server" / "data").mkdir(parents=True)
    (tmp_path / "server" / "index.db").touch()
    check_refusal(mount(tmp_path / "server", place), UNAVAILABLE, "personal server")
    assert survey(tmp_path / "server") == {"data": None, "index.db": b""}


def test_file_is_no_vault(tmp_path: Path, place: Path) -> None:
    """A file where the vault should be."""
    (tmp_path / "vault").write_bytes(b"x")
    check_refusal(mount(tmp_path / "vault", place), UNAVAILABLE, "vault")
    assert (tmp_path / "vault").read_bytes() == b"x"


@pytest.mark.parametrize(
    "content", [b"", b"garbage" * 10_000, b"SQLite format 3\0" + b"\xff" * 9000]
)
def test_index_that_is_no_database_is_refused(old_vault: Path, place: Path, content: bytes) -> None:
    """An unreadable index is never taken for an empty one."""
    for name in ("index.db-wal", "index.db-shm"):
        (old_vault / name).unlink(missing_ok=True)
    (old_vault / "index.db").write_bytes(content)
    check_refusal(mount(old_vault, place), UNAVAILABLE, "index.db")
    assert (old_vault / "index.db").read_bytes() == content


def test_missing_index_is_refused(old_vault: Path, place: Path) -> None:
    """A vault with versions and no index is not begun anew."""
    for path in old_vault.glob("index.db*"):
        path.unlink()
    check_refusal(mount(old_vault, place), UNAVAILABLE, "index.db is missing")
    assert not (old_vault / "index.db").exists()


def test_index_of_another_vault_is_refused(old_vault: Path, tmp_path: Path, place: Path) -> None:
    """An index.db that was copied from another vault."""
    Vault.open(tmp_path / "other", create=True).close()
    for path in old_vault.glob("index.db*"):
        path.unlink()
    (tmp_path / "other" / "index.db").rename(old_vault / "index.db")
    check_refusal(mount(old_vault, place), UNAVAILABLE, "another vault")


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"format":"1"}', b"\xff"])
def test_broken_vault_json_is_refused(old_vault: Path, place: Path, content: bytes) -> None:
    """A vault.json that describes no vault."""
    (old_vault / "vault.json").write_bytes(content)
    check_refusal(mount(old_vault, place), UNAVAILABLE, "vault.json")
    assert (old_vault / "vault.json").read_bytes() == content


# Mounts in the background, and their ends


def test_background_mount_returns_once_it_answers(old_vault: Path, place: Path) -> None:
    """When `scopefs mount` returns 0 the mount is there, and the command's pipes are free."""
    done = mount(old_vault, place)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"mounted {old_vault} at {place}\n"
    assert (place / "my" / "files" / "a.json").read_bytes() == b'{"a":1}'
    process = find_daemon(place)
    assert process is not None
    assert os.readlink(f"/proc/{process}/cwd") == "/"
    run_scopefs("umount", str(place))
    assert not is_mounted(place)
    assert not is_running(process)


def test_umount_returns_once_everything_is_settled(tmp_path: Path, place: Path) -> None:
    """After `scopefs umount` the envelopes stand in data/, and the process is gone."""
    vault = tmp_path / "vault"
    mount(vault, place).check_returncode()
    (place / "my" / "files").mkdir(parents=True)
    for number in range(30):
        (place / "my" / "files" / f"f{number}").write_bytes(os.urandom(number * 1000 + 1))
    process = find_daemon(place)
    assert process is not None
    run_scopefs("umount", vault=vault)
    assert not is_running(process)
    assert len(list((vault / "data" / "my" / "files").iterdir())) == 30
    assert list((vault / "staging").iterdir()) == []
    assert "Traceback" not in (vault / "logs" / "scopefs.log").read_text()


def test_mount_makes_vault_and_mount_point(tmp_path: Path) -> None:
    """Both are made if they are missing, with the directories above."""
    vault, point = tmp_path / "a" / "vault", tmp_path / "b" / "mnt"
    mount(vault, point).check_returncode()
    try:
        assert os.listdir(point) == ["README.txt"]
        assert (vault / "vault.json").exists()
        assert vault.stat().st_mode & 0o777 == 0o700
    finally:
        run_scopefs("umount", str(point))


def test_mount_again_at_once(old_vault: Path, place: Path) -> None:
    """Unmounting and mounting may follow each other without a pause."""
    for _ in range(5):
        mount(old_vault, place).check_returncode()
        subprocess.run(["fusermount3", "-u", place], check=True)


def test_umount_of_what_is_not_mounted(tmp_path: Path) -> None:
    """Nothing mounted there: exit code 7, in one sentence."""
    (tmp_path / "empty").mkdir()
    done = run_scopefs("umount", str(tmp_path / "empty"), vault=tmp_path / "vault", check=False)
    assert done.returncode == UNAVAILABLE
    assert done.stderr.decode() == f"scopefs: {tmp_path / 'empty'} is not mounted\n"


def test_busy_mount_is_not_unmounted(start: Start) -> None:
    """With a file open umount fails, says what to do, and the mount goes on working."""
    mounted = start()
    scope = mounted.make_scope()
    with (scope / "a").open("wb", buffering=0) as file:
        file.write(b"half")
        done = run_scopefs("umount", str(mounted.point), vault=mounted.vault, check=False)
        assert done.returncode == UNAVAILABLE
        (line,) = done.stderr.decode().splitlines()
        assert "busy" in line
        assert "fuser" in line
        file.write(b" and half")
    assert read_history(scope, "a") == [b"half and half"]
    mounted.stop()
    mounted.check_log()


def test_lazy_umount_waits_for_open_files(start: Start) -> None:
    """With -z the mount is out of sight at once; what is still written is published."""
    mounted = start()
    scope = mounted.make_scope()
    with (scope / "a").open("wb", buffering=0) as file:
        run_scopefs("umount", "-z", str(mounted.point), vault=mounted.vault)
        assert not is_mounted(mounted.point)
        file.write(b"late")
    assert mounted.process.wait(30) == 0
    with Vault.open(mounted.vault) as vault:
        assert vault.read_payload(vault.get("my.files", name="a")) == b"late"
    mounted.check_log()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_unmounts(start: Start, number: signal.Signals) -> None:
    """A signal unmounts, settles and ends with 0."""
    mounted = start()
    scope = mounted.make_scope()
    (scope / "a").write_bytes(b"x")
    mounted.process.send_signal(number)
    assert mounted.process.wait(30) == 0
    assert not is_mounted(mounted.point)
    assert len(list((mounted.vault / "data" / "my" / "files").iterdir())) == 1
    mounted.check_log()


def test_signal_while_a_file_is_open(start: Start) -> None:
    """A signal takes a busy mount out of sight; what is closed then is a version."""
    mounted = start()
    scope = mounted.make_scope()
    with (scope / "a").open("wb", buffering=0) as file:
        file.write(b"open")
        mounted.process.terminate()
        wait_until(lambda: not is_mounted(mounted.point))
        file.write(b" to the end")
    assert mounted.process.wait(30) == 0
    with Vault.open(mounted.vault) as vault:
        assert vault.read_payload(vault.get("my.files", name="a")) == b"open to the end"
    mounted.check_log()


IMPATIENT = (
    "import scopefs.cli, scopefs.daemon; scopefs.daemon.STOP_GRACE_S = 0.2; scopefs.cli.main()"
)


def test_process_with_a_file_open_does_not_keep_the_daemon_for_ever(tmp_path: Path) -> None:
    """After a grace a signalled daemon ends: what was flushed is a version, the rest partial."""
    vault, point, log = tmp_path / "vault", tmp_path / "mnt", tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", IMPATIENT, "mount", "-f", "--vault", vault, point],
            stdout=output, stderr=output,
        )  # fmt: skip
    mounted = Mounted(process, vault, point, log)
    try:
        wait_until(lambda: is_mounted(point))
        scope = mounted.make_scope()
        flushed = os.open(scope / "flushed", os.O_WRONLY | os.O_CREAT)
        os.write(flushed, b"flushed")
        os.close(os.dup(flushed))
        unflushed = os.open(scope / "unflushed", os.O_WRONLY | os.O_CREAT)
        os.write(unflushed, b"unflushed")
        process.terminate()
        assert process.wait(30) == 0
        for fd in (flushed, unflushed):
            assert tell(lambda fd=fd: os.fsync(fd)) in (errno.ENOTCONN, errno.ECONNABORTED)
            tell(lambda fd=fd: os.close(fd))
    finally:
        mounted.clean_up()
    with Vault.open(vault) as opened:
        assert opened.read_payload(opened.get("my.files", name="flushed")) == b"flushed"
        assert [found.name for found in opened.versions("my.files")] == [b"flushed"]
    assert read_partial(vault) == [b"unflushed"]
    mounted.check_log()


# After kill -9


def test_everything_acknowledged_is_there_after_kill(tmp_path: Path, place: Path) -> None:
    """kill -9 right after the last close: the stale mount is cleared, and no byte is missing."""
    vault = tmp_path / "vault"
    mount(vault, place).check_returncode()
    scope = place / "my" / "files"
    (scope / "Folder").mkdir(parents=True)
    process = find_daemon(place)
    assert process is not None
    contents = {}
    for number in range(60):
        name = f"Folder/f{number}" if number % 3 else f"f{number}"
        contents[name] = os.urandom(number * 3001 + 1)
        (scope / name).write_bytes(contents[name])
    os.rename(scope / "f0", scope / "renamed")
    contents["renamed"] = contents.pop("f0")
    directory = os.open(scope, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    os.kill(process, signal.SIGKILL)
    wait_until(lambda: not is_running(process))
    assert tell(lambda: os.listdir(place)) in (errno.ENOTCONN, errno.ECONNABORTED)
    mount(vault, place).check_returncode()
    found = {
        str(path.relative_to(scope)): path.read_bytes()
        for path in scope.rglob("*") if path.is_file()
    }  # fmt: skip
    assert found == contents
    assert count_versions(scope) == 60
    assert read_partial(vault) == []
    run_scopefs("umount", str(place))
    assert len(list((vault / "data" / "my" / "files").iterdir())) == 60


def test_settled_and_unsettled_versions_survive_kill(start: Start) -> None:
    """A kill while settling is under way neither loses nor doubles a version."""
    mounted = start()
    scope = mounted.make_scope()
    for number in range(20):
        (scope / f"old{number}").write_bytes(b"old%d" % number)
    wait_until(lambda: any(mounted.vault.glob("data/my/files/*.json")))
    for number in range(20):
        (scope / f"new{number}").write_bytes(os.urandom(20_000))
    assert count_versions(scope) == 40
    before = {path.name: path.read_bytes() for path in (scope / ".versions").iterdir()}
    mounted.kill()
    again = start("vault", "again")
    view = again.make_scope() / ".versions"
    assert {path.name: path.read_bytes() for path in view.iterdir()} == before
    again.stop()
    again.check_log()
    placed = again.vault / "data" / "my" / "files"
    assert {path.name for path in placed.iterdir()} == before.keys() - {"latest.json"}


def test_kill_frees_the_vault_for_another_mount_point(start: Start, tmp_path: Path) -> None:
    """The lock of a killed mount is not in the way, wherever the next one is."""
    mounted = start()
    mounted.make_scope()
    mounted.kill()
    again = start("vault", "elsewhere")
    assert os.listdir(again.point) == ["my"]
    again.stop()
    again.check_log()


# An index that breaks while it is mounted


@pytest.fixture
def doomed(start: Start) -> Mounted:
    """A mount with a few names, whose index is about to break."""
    mounted = start()
    scope = mounted.make_scope()
    (scope / "Folder").mkdir()
    for number in range(60):
        (scope / f"f{number}").touch()
    (scope / "a.json").write_bytes(b'{"a":1}')
    (scope / "Folder" / "b").write_bytes(b"x" * 100_000)
    wait_settled(mounted)
    return mounted


BREAKS: dict[str, Callable[[Path], object]] = {
    "overwritten": lambda path: overwrite(path, os.urandom(path.stat().st_size)),
    "zeroed": lambda path: overwrite(path, bytes(path.stat().st_size)),
    "cut": lambda path: os.truncate(path, 4096),
    "emptied": lambda path: os.truncate(path, 0),
    "replaced": lambda path: replace(path, b"garbage" * 10_000),
    "removed": lambda path: path.unlink(),
}


def overwrite(path: Path, content: bytes) -> None:
    """Write over a file in its place."""
    with path.open("r+b") as file:
        file.write(content)


def replace(path: Path, content: bytes) -> None:
    """Put another file in its place."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.rename(path)


@pytest.mark.parametrize("kind", BREAKS)
def test_broken_index_is_an_error_and_never_an_empty_directory(doomed: Mounted, kind: str) -> None:
    """Whatever befalls index.db, a request gets EIO or the truth, and a write never succeeds."""
    index = doomed.vault / "index.db"
    scope = doomed.point / "my" / "files"
    calls: dict[str, tuple[Callable[[], object], object]] = {
        "list root": (lambda: os.listdir(doomed.point), ["my"]),
        "list source": (lambda: os.listdir(doomed.point / "my"), ["files"]),
        "list scope": (lambda: len(os.listdir(scope)), 62),
        "list folder": (lambda: os.listdir(scope / "Folder"), ["b"]),
        "list versions": (lambda: len(os.listdir(scope / ".versions")), 3),
        "list history": (lambda: len(os.listdir(scope / ".history")), 2),
        "read": ((scope / "a.json").read_bytes, b'{"a":1}'),
        "read large": ((scope / "Folder" / "b").read_bytes, b"x" * 100_000),
        "stat": (lambda: os.stat(scope / "a.json").st_size, 7),
    }
    for call, expected in calls.values():
        assert call() == expected
    # SQLite would go on reading the journal beside it.
    db = sqlite3.connect(index)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    BREAKS[kind](index)
    told = {name: tell(call) for name, (call, _) in calls.items()}
    wrong = {
        name: answer for name, answer in told.items() if answer not in (errno.EIO, calls[name][1])
    }
    assert not wrong
    # What was replaced or removed is still open, and may be read on.
    assert kind in ("replaced", "removed") or told["list scope"] == errno.EIO
    for number in range(3):
        with pytest.raises(OSError, check=lambda error: error.errno == errno.EIO):
            (scope / f"new{number}").write_bytes(b"lost?")
    with pytest.raises(OSError, check=lambda error: error.errno == errno.EIO):
        (scope / "Made").mkdir()
    doomed.clean_up()
    assert "Traceback" not in doomed.log
