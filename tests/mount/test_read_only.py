"""A mount that is only read (`-o ro`) writes nothing into its vault (semantics O6, O7)."""

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from scopefs import Vault
from scopefs.mount.point import is_mounted
from tests.mounting import Mounted, run_scopefs, wait_until

Start = Callable[..., Mounted]
LARGE = os.urandom(300_000)


def take_picture(root: Path) -> dict[str, tuple[object, ...]]:
    """All of a directory: names, kinds, sizes, times of data and of inode, and hashes."""
    found = {}
    for directory, _, names in os.walk(root):
        for path in (Path(directory), *(Path(directory, name) for name in names)):
            status = path.lstat()
            digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found[str(path)] = (
                status.st_ino, status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns,
                status.st_ctime_ns, digest,
            )  # fmt: skip
    return found


def fill(root: Path) -> None:
    """A vault with something in each of its views."""
    with Vault.open(root, create=True) as vault:
        vault.put("my.files", b'{"a":1}', name="a.json")
        vault.put("my.files", b'{"a":2}', name="a.json")
        vault.put("my.files", LARGE, name="Photos/large.bin")
        vault.put("my.notes", b"gone", name="gone.txt")
        vault.delete_scope("my.notes")
    partial = root / "partial" / "20260121T100000Z-1"
    partial.write_bytes(b"half")
    (root / "logs" / "rejected.jsonl").write_text("{}\n")


def read_everything(point: Path) -> dict[str, bytes]:
    """Every file of a mount, those of the views that are not listed too."""
    views = [point, point / ".scopefs"]
    for scope in (point / "my" / "files", point / "my" / "files" / "Photos"):
        views += [path for name in (".versions", ".history") if (path := scope / name).exists()]
    found = {}
    for view in views:
        for directory, _, names in os.walk(view):
            for name in names:
                path = Path(directory, name)
                found[str(path.relative_to(point))] = path.read_bytes()
    return found


@contextmanager
def unchanged(root: Path) -> Iterator[None]:
    """Fail if anything in a directory is another one afterwards."""
    before = take_picture(root)
    yield
    after = take_picture(root)
    assert {path for path in before | after if before.get(path) != after.get(path)} == set()


@contextmanager
def refused() -> Iterator[None]:
    """Fail unless the file system is read-only."""
    with pytest.raises(OSError, check=lambda error: error.errno == errno.EROFS):
        yield


def settled(root: Path) -> None:
    """As a vault is left by whoever used it last."""


def without_shared_memory(root: Path) -> None:
    """A copy that was made while a program used the vault, or was killed: a WAL, but no -shm."""
    code = (
        "import os, sys; from scopefs import Vault; vault = Vault.open(sys.argv[1]);"
        "vault.put('my.files', b'{}', name='late.json'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(root)], check=True)
    assert (root / "index.db-wal").stat().st_size
    (root / "index.db-shm").unlink()


def without_wal(root: Path) -> None:
    """A vault of which index.db alone was kept."""
    (root / "index.db-shm").unlink()
    (root / "index.db-wal").unlink()


@pytest.mark.parametrize("leave", [settled, without_shared_memory, without_wal])
def test_nothing_in_the_vault_is_written(
    start: Start, tmp_path: Path, leave: Callable[[Path], None]
) -> None:
    """Names, sizes, times, hashes: all of it is the same after all views were read."""
    root = tmp_path / "vault"
    fill(root)
    leave(root)
    with unchanged(root):
        mounted = start("vault", "mnt", "-o", "ro")
        found = read_everything(mounted.point)
        mounted.stop()
    assert found["my/files/a.json"] == b'{"a":2}'
    assert found["my/files/Photos/large.bin"] == LARGE
    assert ("my/files/late.json" in found) == (leave is without_shared_memory)
    assert len([name for name in found if "/.versions/" in name]) >= 4
    assert len([name for name in found if "/.history/" in name]) >= 4
    assert b"gone" in [data for name, data in found.items() if ".scopefs/trash/" in name]
    assert b"half" in [data for name, data in found.items() if ".scopefs/partial/" in name]
    assert b'"readOnly": true' in found[".scopefs/status.json"]
    mounted.check_log()


def test_copy_of_a_vault(start: Start, tmp_path: Path) -> None:
    """One that was made in peace is read; one whose index is older than its files is refused."""
    original, copied = tmp_path / "original", tmp_path / "vault"
    fill(original)
    torn = (original / "index.db").read_bytes()
    shutil.copytree(original, copied)
    with unchanged(copied):
        mounted = start("vault", "mnt", "-o", "ro")
        found = read_everything(mounted.point)
        mounted.stop()
    assert found["my/files/a.json"] == b'{"a":2}'
    with Vault.open(original) as vault:
        vault.put("my.files", b'{"a":3}', name="a.json")
    shutil.rmtree(copied)
    shutil.copytree(original, copied)
    (copied / "index.db").write_bytes(torn)
    with unchanged(copied):
        arguments = ("mount", "-f", "-o", "ro", str(tmp_path / "mnt"))
        done = run_scopefs(*arguments, vault=copied, check=False, timeout=60)
    assert done.returncode == 7
    assert b"was copied while the vault was in use" in done.stderr


def test_every_change_is_refused_with_erofs(start: Start, tmp_path: Path) -> None:
    """By the kernel; and by the vault, once somebody has made the kernel let changes through."""
    fill(tmp_path / "vault")
    mounted = start("vault", "mnt", "-o", "ro")
    mounted.expected_alarms.append("is open for reading alone")
    scope = mounted.point / "my" / "files"
    with unchanged(tmp_path / "vault"):
        for remount in (False, True):
            if remount:
                command = ["mount", "-i", "-o", "remount,rw", str(mounted.point)]
                subprocess.run(command, check=True)
            with refused():
                (scope / "b.txt").write_text("x")
            with refused():
                (scope / "a.json").write_text("x")
            with refused(), (scope / "a.json").open("ab", buffering=0) as file:
                file.write(b"x")
            with refused():
                os.truncate(scope / "a.json", 1)
            with refused():
                (scope / "a.json").unlink()
            with refused():
                (scope / "a.json").rename(scope / "c.json")
            with refused():
                os.link(scope / "a.json", scope / "c.json")
            with refused():
                (scope / "c.json").symlink_to("a.json")
            with refused():
                (scope / "folder").mkdir()
            with refused():
                (scope / "Photos").rmdir()
            with refused():
                (scope / "a.json").chmod(0o600)
            with refused():
                os.utime(scope / "a.json")
            with refused():
                next((scope / ".versions").glob("2*.json")).unlink()
    # What is explained in a log of the vault elsewhere.
    with unchanged(tmp_path / "vault"), pytest.raises(OSError, match="Invalid argument"):
        (mounted.point / "a.txt").write_text("x")
    mounted.stop()
    mounted.check_log()


def test_in_the_background_the_log_is_not_in_the_vault(tmp_path: Path) -> None:
    """It is where the user's logs are."""
    fill(tmp_path / "vault")
    point = tmp_path / "mnt"
    with unchanged(tmp_path / "vault"):
        environment = {"XDG_STATE_HOME": str(tmp_path / "state"), "HOME": str(tmp_path)}
        run_scopefs("mount", "-o", "ro", str(point), vault=tmp_path / "vault", env=environment)
        try:
            subprocess.run(["mount", "-i", "-o", "remount,rw", str(point)], check=True)
            with refused():
                (point / "my" / "files" / "a.json").write_text("x")
        finally:
            run_scopefs("umount", str(point), vault=tmp_path / "vault", env=environment)
    (log,) = (tmp_path / "state").rglob("*.log")
    assert "is open for reading alone" in log.read_text()


def test_on_a_read_only_file_system(start: Start, tmp_path: Path) -> None:
    """The disk below may be read-only, as a backup's is."""
    image, root = tmp_path / "disk.img", tmp_path / "vault"
    with image.open("wb") as file:
        file.truncate(32 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    root.mkdir()
    subprocess.run(["mount", "-o", "loop", image, root], check=True)
    try:
        fill(root)
        subprocess.run(["mount", "-o", "remount,ro", root], check=True)
        with unchanged(root):
            mounted = start("vault", "mnt", "-o", "ro")
            found = read_everything(mounted.point)
            mounted.stop()
        mounted.check_log()
    finally:
        subprocess.run(["umount", root], check=True)
    assert found["my/files/Photos/large.bin"] == LARGE


def test_for_a_user_who_may_only_read(tmp_path: Path) -> None:
    """The vault is somebody else's: this is root without the right to write everything."""
    root, point = tmp_path / "vault", tmp_path / "mnt"
    fill(root)
    subprocess.run(["chown", "-R", "nobody", root], check=True)
    subprocess.run(["chmod", "-R", "a+rX", root], check=True)
    powerless = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner,-chown"]
    assert subprocess.run([*powerless, "touch", root / "x"], capture_output=True).returncode
    with unchanged(root):
        process = subprocess.Popen(
            [*powerless, sys.executable, "-m", "scopefs", "mount", "-f", "-o", "ro", "--vault",
             root, point], stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            wait_until(lambda: is_mounted(point) or process.poll() is not None)
            found = read_everything(point)
        finally:
            subprocess.run(["umount", point], check=False)
            _, log = process.communicate(timeout=60)
    assert found["my/files/Photos/large.bin"] == LARGE
    assert process.returncode == 0, log


@pytest.mark.parametrize("leave", [settled, without_shared_memory, without_wal])
def test_what_others_write_meanwhile_is_seen(
    start: Start, tmp_path: Path, leave: Callable[[Path], None]
) -> None:
    """Beside a mount that writes, and however the index was opened."""
    fill(tmp_path / "vault")
    leave(tmp_path / "vault")
    looking = start("vault", "looking", "-o", "ro")
    path = looking.point / "my" / "files" / "a.json"
    assert path.read_bytes() == b'{"a":2}'
    writing = start("vault", "writing")
    for number in range(3, 30):
        content = b'{"a":%d}' % number
        (writing.point / "my" / "files" / "a.json").write_bytes(content)
        wait_until(lambda content=content: path.read_bytes() == content, 5)
    writing.stop()
    assert path.read_bytes() == b'{"a":29}'
    assert len(list((looking.point / "my" / "files" / ".versions").glob("2*.json"))) == (
        31 if leave is without_shared_memory else 30
    )
    looking.stop()
    looking.check_log()
    writing.check_log()


def test_who_must_be_alone_sees_it(start: Start, tmp_path: Path) -> None:
    """`scopefs reindex` does not take the index away from under it."""
    fill(tmp_path / "vault")
    mounted = start("vault", "mnt", "-o", "ro")
    done = run_scopefs("reindex", vault=tmp_path / "vault", check=False)
    assert done.returncode == 7, done
    assert (mounted.point / "my" / "files" / "a.json").read_bytes() == b'{"a":2}'
    mounted.stop()


def test_no_vault_is_made(tmp_path: Path) -> None:
    """Where there is none, there is none afterwards."""
    done = run_scopefs(
        "mount", "-f", "-o", "ro", str(tmp_path / "mnt"), vault=tmp_path / "vault", check=False
    )
    assert done.returncode == 7
    assert b"is no vault" in done.stderr
    assert not (tmp_path / "vault").exists()


def ask(url: str, token: str, **options: Any) -> tuple[int, bytes]:
    """Status and body of the answer to a request."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"}, **options)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def find_door(mounted: Mounted) -> str:
    """Where the HTTP door of a mount is."""
    found = re.search(r"HTTP at (\S+)", mounted.log)
    assert found is not None
    return found[1]


def test_http_beside_it_only_reads(start: Start, tmp_path: Path) -> None:
    """GET answers, a change is 403 in the one shape; the vault is not touched, the log has it."""
    root = tmp_path / "vault"
    fill(root)
    token = run_scopefs("token", "show", vault=root).stdout.decode().strip()
    changes = [
        ("POST", "/v1/data/my.files", b'{"b":1}'), ("PUT", "/v1/data/my.files/names/b", b"x"),
        ("DELETE", "/v1/data/my.files", None), ("DELETE", "/v1/data/my.files/names/a.json", None),
    ]  # fmt: skip
    with unchanged(root):
        mounted = start("vault", "mnt", "-o", "ro", "--http", "127.0.0.1:0")
        door = find_door(mounted)
        url = f"{door}/v1/data/my.files"
        assert ask(f"{url}?content=raw", token)[0] == 200
        assert ask(f"{url}/names/a.json", token) == (200, b'{"a":2}')
        for path in ("/v1/data", "/v1/data/my.files/versions", "/v1/data/my.files/names",
                     "/v1/access-logs", "/health", "/metrics", "/openapi.json"):  # fmt: skip
            assert ask(door + path, token)[0] == 200, path
        for method, path, data in changes:
            status, body = ask(door + path, token, method=method, data=data)
            error = json.loads(body)
            assert (status, error["error"], set(error)) == (
                403, "FORBIDDEN", {"error", "message", "details"},
            )  # fmt: skip
            assert "read-only" in error["message"]
        # Who may not even ask is told so first.
        assert ask(url, "nobody", method="DELETE")[0] == 401
        mounted.stop()
    assert '"path":"/v1/data/my.files/names/a.json"' in mounted.log
    mounted.check_log()


def test_http_beside_it_needs_a_token_that_is_there(tmp_path: Path) -> None:
    """None can be made: the mount does not begin, and says what would help."""
    fill(tmp_path / "vault")
    (tmp_path / "vault" / "tokens.json").unlink(missing_ok=True)
    arguments = ("mount", "-f", "-o", "ro", "--http", "127.0.0.1:0", str(tmp_path / "mnt"))
    with unchanged(tmp_path / "vault"):
        done = run_scopefs(*arguments, vault=tmp_path / "vault", check=False, timeout=60)
    assert done.returncode == 7
    assert b"`scopefs token show` makes one" in done.stderr
    assert not is_mounted(tmp_path / "mnt")


@pytest.mark.parametrize("where", ["file", "variable"])
def test_http_that_is_configured_is_not_served_beside_it(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The address is that of the mount that writes."""
    fill(tmp_path / "vault")
    if where == "file":
        (tmp_path / "vault" / "config.toml").write_text('[mount]\nhttp = "127.0.0.1:0"\n')
    else:
        monkeypatch.setenv("SCOPEFS_MOUNT_HTTP", "127.0.0.1:0")
    looking = start("vault", "looking", "-o", "ro")
    asked = start("vault", "asked", "-o", "ro,http=127.0.0.1:0,http_auth=none")
    assert "HTTP at" not in looking.log
    assert ask(f"{find_door(asked)}/health", "")[0] == 200
    for mounted in (looking, asked):
        mounted.stop()
        mounted.check_log()
