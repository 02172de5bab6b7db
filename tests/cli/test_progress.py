"""Bars of long work: with totals on a terminal, and nowhere else."""

import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from scopefs import Vault
from tests.mounting import run_scopefs

LARGE = 20 << 20

LONG_WORK = {
    "verify": ("verify", ["comparing", r"of \d\d things", r"of 50\.\d KiB"]),
    "reindex": ("reindex", ["envelopes", "of 3 read", "events", "of 7 read"]),
    "export": ("export {there}/x", ["exporting", "of 48.8 KiB"]),
    "export to an archive": ("export {there}/x.tar.gz", ["exporting", "of 48.8 KiB"]),
    "import of a directory": ("import {there}/export", ["importing", r"of 50\.\d KiB"]),
    "import of an archive": ("import {there}/export.tar", ["importing", "of 60.0 KiB"]),
    "import of a vault": ("import {there}/vault", ["importing", r"of 50\.\d KiB"]),
    "put": ("put my.files {there}/large", ["storing", "of 20.0 MiB"]),
    "put of a directory": ("put my.files {there}/folder", ["storing", "of 20.0 MiB"]),
}
"""Commands, and patterns of what their bars say."""


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vault with three versions, exports of it, and large files; only to be read."""
    root = tmp_path_factory.mktemp("there")
    with Vault.open(root / "vault", create=True) as vault:
        vault.put("my.notes", b"one", name="a.txt")
        vault.put("my.notes", b"two", name="a.txt")
        vault.put("other.files", os.urandom(50_000), name="b.bin")
    for name in ("export", "export.tar"):
        run_scopefs("export", str(root / name), vault=root / "vault")
    (root / "folder").mkdir()
    (root / "large").write_bytes(os.urandom(LARGE))
    (root / "folder" / "large").symlink_to(root / "large")
    return root


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A vault of one's own with three versions."""
    with Vault.open(tmp_path / "vault", create=True) as vault:
        vault.put("my.notes", b"one", name="a.txt")
        vault.put("my.notes", b"two", name="a.txt")
        vault.put("other.files", os.urandom(50_000), name="b.bin")
    return tmp_path / "vault"


def run_on_terminal(vault: Path, *arguments: str, stdin: Path | None = None) -> str:
    """Run a command whose standard error is a terminal; what it shows there."""
    ours, theirs = pty.openpty()
    shown = bytearray()

    def listen() -> None:
        # EIO: nobody has the terminal open any more.
        try:
            while chunk := os.read(ours, 65_536):
                shown.extend(chunk)
        except OSError:
            return

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        with Path(stdin or os.devnull).open("rb") as given:
            done = subprocess.run(
                [sys.executable, "-m", "scopefs", *arguments], stdin=given, stderr=theirs,
                stdout=subprocess.PIPE, env={**os.environ, "SCOPEFS_VAULT": str(vault)},
            )  # fmt: skip
    finally:
        os.close(theirs)
        listener.join()
        os.close(ours)
    assert done.returncode == 0, shown
    return shown.decode()


def make_arguments(work: str, there: Path, tmp_path: Path) -> list[str]:
    """The command of one kind of long work. What it writes beside the vault goes to `tmp_path`."""
    arguments = LONG_WORK[work][0].format(there=there).split()
    if arguments[0] == "export":
        arguments[1] = str(tmp_path / Path(arguments[1]).name)
    return arguments


@pytest.mark.parametrize("work", LONG_WORK)
def test_bar_on_a_terminal_has_a_total(path: Path, there: Path, tmp_path: Path, work: str) -> None:
    """How much there is, how much is done, how fast it goes; at the end all of it is done."""
    shown = run_on_terminal(path, *make_arguments(work, there, tmp_path))
    for pattern in LONG_WORK[work][1]:
        assert re.search(pattern, shown), shown
    last = [line for line in re.split(r"[\r\n]+", shown) if "%" in line][-1]
    assert re.search(r"\[#+\]  100%  (\S+|\S+ \S+) of .*/s", last), shown
    # The cursor is shown again.
    assert shown.rstrip().endswith("\x1b[?25h")


@pytest.mark.parametrize("work", LONG_WORK)
def test_no_bar_in_a_pipe(path: Path, there: Path, tmp_path: Path, work: str) -> None:
    """Nothing on standard error, even if a bar is asked for."""
    arguments = make_arguments(work, there, tmp_path)
    done = run_scopefs(*arguments, "--progress", vault=path)
    assert done.stderr == b""
    assert b"100%" not in done.stdout


@pytest.mark.parametrize("option", ["--json", "--no-progress"])
def test_no_bar_for_programs(path: Path, there: Path, tmp_path: Path, option: str) -> None:
    """With --json or --no-progress a terminal has none either."""
    for work in LONG_WORK:
        assert run_on_terminal(path, *make_arguments(work, there, tmp_path), option) == ""


def test_bar_beside_json_if_it_is_asked_for(path: Path) -> None:
    """--progress wins over --json."""
    assert "100%" in run_on_terminal(path, "verify", "--json", "--progress")


def test_unknown_total_is_counted(path: Path, there: Path) -> None:
    """Standard input: bytes and speed, without an end."""
    shown = run_on_terminal(path, "put", "my.files", "-", stdin=there / "large")
    assert re.search(r"storing  \[-*\S*\]  20\.0 MiB, \S+ \S+/s", shown), shown
    assert "%" not in shown


def test_small_put_has_no_bar(path: Path, there: Path) -> None:
    """It is stored before anybody could read one."""
    assert run_on_terminal(path, "put", "my.files", str(there / "export.tar")) == ""


def test_bar_goes_while_a_large_file_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only between files: one large one is counted as it is read."""
    from scopefs.transfer import exports
    from scopefs.transfer.imports import Importer
    from scopefs.transfer.sources import open_source

    size = 5 << 20
    with (
        Vault.open(tmp_path / "a", create=True) as vault,
        Vault.open(tmp_path / "b", create=True) as other,
        Vault.open(tmp_path / "c", create=True) as another,
    ):
        vault.put("my.files", os.urandom(size), name="large")
        scopes = exports.list_scopes_to_export(vault, ())
        assert exports.sum_payloads(vault, scopes) == size
        for target, importing in (("x", other), ("x.tar", another)):
            told: list[int] = []
            place = str(tmp_path / target)
            exports.export(vault, scopes, exports.open_target(vault, place), told.append)
            assert len([count for count in told if 0 < count < size]) >= 3
            assert told[-1] == size
            told.clear()
            source = open_source(importing, place)
            total = source.measure()
            assert Importer(importing, source, told.append).run().imported == 1
            assert total is not None
            assert size < total < size + 20_000
            assert len([count for count in told if 0 < count < size]) >= 3
            assert max(told) <= total
        told.clear()
        run = vault.verification()
        assert size < run.estimate()[1] < size + 20_000
        list(run.run(lambda _name, _count: told.append(run.bytes_read)))
        assert len([count for count in told if 0 < count < size]) >= 3


def test_what_is_left_is_known_when_it_goes_on(tmp_path: Path) -> None:
    """An estimate is of what was counted, and shrinks by what was done before."""
    from scopefs.store.checks import READING

    with Vault.open(tmp_path / "vault", create=True) as vault:
        for number in range(300):
            vault.put("my.files", b"%d" % number, name=f"{number % 7}.txt")
        vault.put("my.files", os.urandom(100_000), name="large")
        vault.delete_scope("my.files")
        vault.put("my.files", os.urandom(90_000), name="large")
        vault.settle()
        run = vault.verification()
        things, size = run.estimate()
        counted = 0
        read_before = None

        def tell(name: str, count: int) -> None:
            nonlocal counted, read_before
            if name not in READING:
                counted += count
            elif read_before is None:
                read_before = run.bytes_read
            elif name == "envelopes" and count == 200:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            list(run.run(tell))
        # Besides rows: a few directories and days.
        assert things <= counted < things + 20
        again = vault.verification(resume=True)
        left = again.estimate()
        assert left[0] == 0
        assert read_before is not None
        assert left[1] == size - (run.bytes_read - read_before)
