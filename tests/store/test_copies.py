"""Copies of a vault: one of a vault at rest is taken, one that was torn is refused, and mended."""

import hashlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest

from scopefs import Vault
from scopefs.errors import IndexBroken
from scopefs.store import copies
from tests.mounting import PATIENCE_S, run_scopefs, wait_until
from tests.store.everything import describe, describe_views, fill
from tests.store.inspection import find_problems

_LOAD = """
import hashlib, os, sys
from scopefs import Vault
root, told, how = sys.argv[1:]
count = 0

def store(vault):
    global count
    stored = []
    for _ in range(20):
        count += 1
        size = (10, 500, 10_000)[count % 10 // 8 + count % 10 // 9]
        data = b'{"n":%d,"x":"%s"}' % (count, os.urandom(size).hex().encode())
        version = vault.put(("a.b", "c.d", "e.f")[count // 7 % 3], data, name=f"f{count % 200}")
        stored.append(f"{version.scope} {version.stamp} {hashlib.sha256(data).hexdigest()}")
    return stored

def tell(stored):
    with open(told, "a") as file:
        file.write("".join(f"{line}\\n" for line in stored))

if how == "stays":
    with Vault.open(root, create=True) as vault:
        while True:
            stored = store(vault) + store(vault)
            vault.settle()
            vault._journal.checkpoint()
            tell(stored)
while True:
    with Vault.open(root, create=True) as vault:
        stored = store(vault)
    tell(stored)
"""


@pytest.fixture
def refuse_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails on a look at the whole index."""

    def fail(*_: object) -> None:
        raise AssertionError("the index was looked at")

    monkeypatch.setattr(copies, "check_copy", fail)


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A vault with everything in it, closed."""
    with Vault.open(tmp_path / "vault", create=True) as vault:
        fill(vault, tmp_path / "other")
    return tmp_path / "vault"


def query_home(root: Path) -> int | None:
    """What the index says of its home."""
    db = apsw.Connection(str(root / "index.db"))
    rows = db.execute("SELECT value FROM meta WHERE key = 'home'").fetchall()
    db.close()
    return rows[0][0] if rows else None


def copy(source: Path, target: Path, *options: str) -> Path:
    """rsync -a; files that vanish or shrink meanwhile are no error."""
    shutil.rmtree(target, ignore_errors=True)
    done = subprocess.run(["rsync", "-a", *options, f"{source}/", f"{target}/"], stderr=-1)
    assert done.returncode in (0, 23, 24), done.stderr
    return target


def mend(error: IndexBroken) -> None:
    """Type what the message says."""
    match = re.search(r"`scopefs (reindex [^`]*)`", str(error))
    assert match is not None, error
    done = run_scopefs(*shlex.split(match[1]), check=False)
    # 6: what had not been settled may be lost.
    assert done.returncode in (0, 6), done.stderr


def test_copy_of_a_vault_at_rest_is_taken(full: Path, tmp_path: Path) -> None:
    """It shows the same as the original, without a rebuild; and is looked at but once."""
    with Vault.open(full) as vault:
        rows, views = describe(vault), describe_views(vault)
    target = copy(full, tmp_path / "copy")
    assert query_home(target) == query_home(full)
    with Vault.open(target) as vault:
        assert describe(vault) == rows
        assert describe_views(vault) == views
        assert find_problems(vault) == []
    assert query_home(target) == (target / "vault.json").stat().st_ctime_ns
    assert not list(target.glob("index.db.broken*"))


def test_copy_is_looked_at_once(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second open of a copy costs no more than that of any vault."""
    target = copy(full, tmp_path / "copy")
    looked: list[object] = []
    monkeypatch.setattr(copies, "check_copy", lambda *_: looked.append(None))
    for _ in range(2):
        Vault.open(target).close()
    assert len(looked) == 1


@pytest.mark.usefixtures("refuse_to_look")
def test_vault_that_was_moved_is_not_looked_at(tmp_path: Path) -> None:
    """mv within a file system, and opening a new vault, cost nothing."""
    with Vault.open(tmp_path / "vault", create=True) as vault:
        vault.put("a.b", b"{}")
    (tmp_path / "vault").rename(tmp_path / "elsewhere")
    with Vault.open(tmp_path / "elsewhere") as vault:
        assert vault.read_payload(vault.get("a.b")) == b"{}"


@pytest.mark.usefixtures("refuse_to_look")
def test_rebuilt_index_is_at_home(full: Path, tmp_path: Path) -> None:
    """What `reindex` has made in a copy is believed."""
    target = copy(full, tmp_path / "copy")
    run_scopefs("reindex", vault=target)
    assert query_home(target) == (target / "vault.json").stat().st_ctime_ns
    Vault.open(target).close()


@pytest.mark.usefixtures("refuse_to_look")
def test_index_of_an_older_version_is_taken(full: Path) -> None:
    """Without a home in it, nobody can know; it gets one."""
    db = apsw.Connection(str(full / "index.db"))
    db.execute("DELETE FROM meta WHERE key = 'home'")
    db.close()
    Vault.open(full).close()
    assert query_home(full) == (full / "vault.json").stat().st_ctime_ns


def test_copy_of_a_killed_vault_is_recovered(tmp_path: Path) -> None:
    """A vault of a program that was killed may be moved to another disk: it is recovered there."""
    root = tmp_path / "vault"
    text = (
        "import os, sys\nfrom scopefs import Vault\nvault = Vault.open(sys.argv[1], create=True)\n"
        "vault._settling.stop()\nvault.put('a.b', b'{}', name='n')\n"
        "vault.put('a.b', b'x' * 100_000, name='m')\nos._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", text, root], check=True)
    with Vault.open(copy(root, tmp_path / "copy")) as vault:
        assert vault.read_payload(vault.get("a.b", name="n")) == b"{}"
        assert vault.read_payload(vault.get("a.b", name="m")) == b"x" * 100_000
        vault.settle()
        assert find_problems(vault) == []


def tear_pages(before: Path, after: Path, target: Path) -> None:
    """The first half of index.db is that of one moment, the rest that of another."""
    old, new = before.read_bytes(), after.read_bytes()
    half = len(old) // 4096 * 2048
    target.write_bytes(old[:half] + new[half:])


def keep_old(before: Path, _after: Path, target: Path) -> None:
    """index.db is older than the files of events/."""
    target.write_bytes(before.read_bytes())


@pytest.mark.parametrize("tear", [tear_pages, keep_old])
def test_torn_index_is_refused_and_made_again(
    tmp_path: Path, full: Path, tear: Callable[[Path, Path, Path], None]
) -> None:
    """The message says what to type, by every door and every time; then everything is there."""
    shutil.copy(full / "index.db", tmp_path / "before.db")
    with Vault.open(full) as vault:
        for number in range(50):
            vault.put("my.files", b'{"n":%d}' % number, name=f"new{number}")
    target = copy(full, tmp_path / "copy")
    tear(tmp_path / "before.db", full / "index.db", target / "index.db")
    refused = []

    def open_it() -> None:
        with pytest.raises(IndexBroken, match="its index is torn") as caught:
            Vault.open(target)
        refused.append(caught.value)

    threads = [threading.Thread(target=open_it) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 3
    done = run_scopefs("ls", vault=target, check=False)
    assert (done.returncode, done.stdout) == (7, b"")
    mend(refused[0])
    with Vault.open(full) as vault:
        views = describe_views(vault)
    with Vault.open(target) as vault:
        found = describe_views(vault)
        for number in range(50):
            assert vault.read_payload(vault.get("my.files", name=f"new{number}")) == (
                b'{"n":%d}' % number
            )
    assert found.keys() == views.keys()


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Starts a program that stores without end, and tells of what is settled."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(how: str) -> Path:
        told = tmp_path / "told"
        told.touch()
        started.append(
            subprocess.Popen([sys.executable, "-c", _LOAD, tmp_path / "vault", told, how])
        )
        wait_until(lambda: told.stat().st_size > 30_000)
        return told

    yield begin
    for process in started:
        assert process.poll() is None, "the program has ended by itself"
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE_S)


@pytest.mark.parametrize("options", [(), ("--exclude=index.db-*",)], ids=["whole", "no WAL"])
@pytest.mark.parametrize("how", ["stays", "comes and goes"])
def test_copies_under_load(
    how: str, options: tuple[str, ...], tmp_path: Path, load: Callable[[str], Path]
) -> None:
    """What was settled before a copy was begun is in it, once what the message says is typed."""
    told = load(how)
    refused = 0
    for _ in range(3):
        settled = [line.split() for line in told.read_text().splitlines()]
        # Slow, so that the index changes under it.
        target = copy(tmp_path / "vault", tmp_path / "copy", "--bwlimit=4000", *options)
        try:
            Vault.open(target).close()
        except IndexBroken as error:
            refused += 1
            mend(error)
        with Vault.open(target) as vault:
            for scope, stamp, sha256 in settled:
                payload = vault.read_payload(vault.get(scope, stamp=stamp))
                assert hashlib.sha256(payload).hexdigest() == sha256, (scope, stamp)
    assert refused
