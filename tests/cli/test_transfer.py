"""scopefs export and import, as a user calls them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scopefs import Vault
from tests.mounting import run_scopefs


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


@pytest.mark.parametrize("dest", ["export", "x.tar", "x.tar.gz"])
def test_out_and_in_again(path: Path, tmp_path: Path, dest: str) -> None:
    """What is told, and that the second time nothing is done."""
    done = scopefs(path, "export", tmp_path / dest)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"exported 3 version(s) (0 there already)\n"
    other = tmp_path / "other"
    done = scopefs(other, "import", tmp_path / dest)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"imported 3 version(s) (0 there already), 2 name(s)\n"
    done = scopefs(other, "import", tmp_path / dest)
    assert done.stdout == b"imported 0 version(s) (3 there already), 0 name(s)\n"
    assert scopefs(other, "get", "my.notes", "--name", "a.txt").stdout == b"two"


def test_exporting_twice(path: Path, tmp_path: Path) -> None:
    """A directory is brought up to date."""
    scopefs(path, "export", tmp_path / "x")
    done = scopefs(path, "export", tmp_path / "x", "--json")
    assert json.loads(done.stdout) == {
        "scopes": ["my.notes", "other.files"], "versions": 3, "alreadyThere": 3, "problems": [],
    }  # fmt: skip


def test_some_scopes_alone(path: Path, tmp_path: Path) -> None:
    """Those that are named; one that is not there is 4."""
    done = scopefs(path, "export", "my.notes", tmp_path / "x.tar")
    assert done.stdout == b"exported 2 version(s) (0 there already)\n"
    assert scopefs(path, "export", "no.such", tmp_path / "y.tar").returncode == 4
    assert scopefs(path, "export", "No.such", tmp_path / "y.tar").returncode == 2
    assert not (tmp_path / "y.tar").exists()
    done = scopefs(tmp_path / "other", "import", tmp_path / "x.tar", "--json")
    assert json.loads(done.stdout) == {
        "imported": 2, "alreadyThere": 0, "names": 1, "problems": []
    }  # fmt: skip


def test_through_a_pipe(path: Path, tmp_path: Path) -> None:
    """- is an archive on standard output, and on standard input."""
    done = scopefs(path, "export", "-")
    assert done.stderr == b"exported 3 version(s) (0 there already)\n"
    other = scopefs(tmp_path / "other", "import", "-", input=done.stdout)
    assert other.stdout == b"imported 3 version(s) (0 there already), 2 name(s)\n"


def test_damage_ends_with_6_and_a_conflict_with_5(path: Path, tmp_path: Path) -> None:
    """What is left out is told on standard error; the rest is done."""
    blob = next(file for file in (path / "blobs").rglob("*") if file.is_file())
    blob.write_bytes(bytes(50_000))
    done = scopefs(path, "export", tmp_path / "x")
    assert done.returncode == 6
    assert done.stdout == b"exported 2 version(s) (0 there already)\n"
    assert b"other.files" in done.stderr
    assert b"does not have the hash" in done.stderr
    envelope = sorted((tmp_path / "x/data/my/notes").glob("*.json"))[0]
    content = envelope.read_bytes()
    envelope.write_bytes(content.replace(b"a.txt", b"b.txt"))
    os.unlink(tmp_path / "x/names/other.files.jsonl")
    done = scopefs(path, "import", tmp_path / "x")
    assert done.returncode == 5
    assert b"never overwritten" in done.stderr
    envelope.write_bytes(b"x")
    assert scopefs(path, "import", tmp_path / "x").returncode == 2


@pytest.mark.parametrize("wrong", ["nothing", "file", "."])
def test_what_is_no_export_is_told(path: Path, tmp_path: Path, wrong: str) -> None:
    """Missing 4, else 2."""
    (tmp_path / "file").write_bytes(b"x")
    done = scopefs(path, "import", tmp_path / wrong)
    assert done.returncode == (4 if wrong == "nothing" else 2)
    assert done.stderr.startswith(b"scopefs: ")


def test_interrupted_and_repeated(tmp_path: Path) -> None:
    """Ctrl+C ends with 130 and leaves a beginning; the same command finishes it."""
    many = tmp_path / "many"
    with Vault.open(many, create=True) as vault:
        for number in range(600):
            vault.put("my.notes", b"%d" % number, name=f"{number}.txt")
    assert scopefs(many, "export", tmp_path / "x.tar").returncode == 0
    other = tmp_path / "other"
    scopefs(other, "put", "my.start", "-", input=b"x")
    script = (
        "import os, signal, sys\n"
        "from scopefs.cli import main\n"
        "from scopefs.transfer import imports\n"
        "flush = imports.Importer._flush\n"
        "def once(self):\n"
        "    flush(self); os.kill(os.getpid(), signal.SIGINT)\n"
        "imports.Importer._flush = once\n"
        "main(sys.argv[1:])\n"
    )
    command = [
        sys.executable,
        "-c",
        script,
        "import",
        "--vault",
        str(other),
        str(tmp_path / "x.tar"),
    ]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 130
    with Vault.open(other) as vault:
        assert len(vault.versions("my.notes")) == 200
    done = scopefs(other, "import", tmp_path / "x.tar")
    assert done.stdout == b"imported 400 version(s) (200 there already), 400 name(s)\n"
    with Vault.open(other) as vault:
        assert len(list(vault.names("my.notes"))) == 600
