"""scopefs verify and reindex, as a user calls them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scopefs import Vault
from tests.mounting import Mounted, run_scopefs


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A vault with three versions in two scopes."""
    with Vault.open(tmp_path / "vault", create=True) as vault:
        vault.put("my.notes", b"one", name="a.txt")
        vault.put("my.notes", b"two", name="a.txt")
        vault.put("other.files", os.urandom(50_000), name="b.bin")
    return tmp_path / "vault"


def scopefs(vault: Path, *arguments: object, **options: Any) -> Any:
    return run_scopefs(*map(str, arguments), vault=vault, check=False, **options)


def remove_envelope(path: Path) -> str:
    """Remove one; returns its path within the vault."""
    found = min((path / "data" / "my").rglob("*.json"))
    found.unlink()
    return str(found.relative_to(path))


def test_all_is_well(path: Path) -> None:
    """One line says what was looked at."""
    done = scopefs(path, "verify")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"checked 3 version(s), 1 blob(s), ")
    assert done.stdout.endswith(b"bytes: all is well\n")


def test_finding_says_what_where_and_what_to_do(path: Path) -> None:
    """Exit code 6, and a line for each."""
    where = remove_envelope(path)
    done = scopefs(path, "verify")
    assert done.returncode == 6
    first, do, summary = done.stdout.decode().splitlines()
    assert first == f"I1  {where}: it is missing"
    assert "restore the file from a backup" in do
    assert summary.endswith("1 problem(s)")


def test_finding_as_json(path: Path) -> None:
    """One document, with the number of the invariant."""
    where = remove_envelope(path)
    done = scopefs(path, "verify", "--json")
    assert done.returncode == 6
    found = json.loads(done.stdout)
    assert [(item["code"], item["where"]) for item in found["problems"]] == [("I1", where)]
    assert set(found) == {
        "startedAt", "resumed", "checked", "bytesRead", "problems", "moreProblems",
    }  # fmt: skip
    assert found["checked"]["envelopes"] == 3


def test_advice_helps(path: Path) -> None:
    """What is said about a lost version can be typed, and then all is well."""
    remove_envelope(path)
    done = scopefs(path, "verify")
    command = done.stdout.decode().split("`")[1].split()
    assert scopefs(path, *command[1:]).returncode == 0
    assert scopefs(path, "verify").returncode == 0


def test_interrupted_and_resumed(path: Path) -> None:
    """Ctrl+C ends it with 130; --resume goes on."""
    process = subprocess.Popen(
        [sys.executable, "-m", "scopefs", "verify", "--rate", "0.02"], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, "SCOPEFS_VAULT": str(path)},
    )  # fmt: skip
    state = path / "logs" / "verify.json"
    deadline = time.monotonic() + 30
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"scopefs verify --resume" in err
    assert state.exists()
    done = scopefs(path, "verify", "--resume", "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["resumed"]
    assert found["checked"]["rows of versions"] == 3
    assert not state.exists()


def test_verify_while_mounted(start: Callable[..., Mounted]) -> None:
    """The mount goes on as before."""
    mounted = start()
    scope = mounted.make_scope()
    for n in range(20):
        (scope / f"f{n}").write_bytes(b"x" * n * 1000)
        if n % 5 == 0:
            assert scopefs(mounted.vault, "verify").returncode == 0
    assert scopefs(mounted.vault, "verify").returncode == 0


def test_lost_index(path: Path) -> None:
    """Every command names the one that helps; then all is there again."""
    (path / "index.db").unlink()
    done = scopefs(path, "ls")
    assert done.returncode == 7
    assert b"scopefs reindex" in done.stderr
    done = scopefs(path, "reindex")
    assert done.returncode == 6
    assert b"the index was made again: 3 version(s), 6 name(s)" in done.stdout
    assert b"what was not yet settled is lost" in done.stdout
    assert scopefs(path, "verify").returncode == 0
    assert scopefs(path, "get", "my.notes", "--name", "a.txt").stdout == b"two"


def test_damaged_index(path: Path) -> None:
    """It is set aside, and its place is told."""
    content = (path / "index.db").read_bytes()
    (path / "index.db").write_bytes(b"\xff" * 100 + content[100:])
    done = scopefs(path, "verify")
    assert done.returncode == 7
    assert b"scopefs reindex" in done.stderr
    done = scopefs(path, "reindex", "--json")
    found = json.loads(done.stdout)
    assert Path(found["oldIndex"]).exists()
    assert [item["where"] for item in found["problems"]] == ["index.db"]
    assert scopefs(path, "verify").returncode == 0


def test_healthy_index_is_rebuilt_without_a_word(path: Path) -> None:
    """Nothing is lost: exit code 0."""
    done = scopefs(path, "reindex")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].startswith(b"the index was made again: 3 version(s)")


def test_reindex_is_refused_while_mounted(start: Callable[..., Mounted]) -> None:
    """With the process and the place."""
    mounted = start()
    done = scopefs(mounted.vault, "reindex")
    assert done.returncode == 7
    assert f"process {mounted.process.pid}".encode() in done.stderr
    assert str(mounted.point).encode() in done.stderr


def test_no_vault(tmp_path: Path) -> None:
    """Neither command makes one."""
    for command in ("verify", "reindex"):
        assert scopefs(tmp_path / "none", command).returncode == 7
        assert not (tmp_path / "none").exists()
