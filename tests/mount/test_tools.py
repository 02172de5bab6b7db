"""What people's tools do, and how many versions each action makes: semantics S1."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mount.reading import count_versions, list_stamps, read_history
from tests.mounting import Mounted

OLD = b"old content\n"
NEW = b"new and longer content\n"


@dataclass(frozen=True)
class Action:
    """What is typed in a scope with a file `f`; $S is a source outside that holds NEW."""

    command: str
    versions: int
    content: bytes | None = NEW
    """Of `f` afterwards; None if it is gone."""


ACTIONS = {
    "cp over": Action("cp $S f", 1),
    "cp new": Action("rm f; cp $S f", 1),
    "cp --remove-destination": Action("cp --remove-destination $S f", 1),
    "cp -p": Action("cp -p $S f", 1),
    "cp -a": Action("cp -a $S f", 1),
    "cp inside": Action("cp f g; cp $S f", 2),
    "cp /dev/null": Action("cp /dev/null f", 0, b""),
    "touch": Action("touch f", 0, OLD),
    "touch -d": Action("touch -d 2001-01-01 f", 0, OLD),
    "chmod": Action("chmod 600 f", 0, OLD),
    "mv in": Action("cp $S $S.2; mv $S.2 f", 1),
    "mv inside": Action("mv f g; mv g f", 0, OLD),
    "mv over": Action("cp $S g; mv g f", 1),
    "install": Action("install -m 600 $S f", 1),
    "rsync": Action("rsync -a $S f", 1),
    "rsync twice": Action("rsync -a $S f; rsync -a $S f; rsync -a --checksum $S f", 1),
    "rsync --inplace": Action("rsync -a --inplace --no-whole-file $S f", 1),
    "dd": Action("dd if=$S of=f status=none", 1),
    "dd conv=notrunc": Action("printf new | dd of=f conv=notrunc status=none", 1, b"new content\n"),
    "dd conv=fsync": Action("dd if=$S of=f conv=fsync status=none", 1),
    "dd seek": Action(
        "printf X | dd of=f bs=1 seek=15 conv=notrunc status=none", 1, OLD + b"\0\0\0X"
    ),
    "group": Action("{ printf 'new and '; printf 'longer content\\n'; } > f", 1),
    "loop": Action("for i in 1 2 3; do echo $i; done > f", 1, b"1\n2\n3\n"),
    "append": Action("echo 1 >> f", 1, OLD + b"1\n"),
    "append in a group": Action("{ echo 1; sh -c 'echo 2'; echo 3; } >> f", 1, OLD + b"1\n2\n3\n"),
    "tee": Action("tee f < $S > /dev/null", 1),
    "tee -a": Action("echo x | tee -a f > /dev/null", 1, OLD + b"x\n"),
    "sed -i": Action("sed -i s/old/new/ f", 1, b"new content\n"),
    "sort -o": Action("sort -o f $S", 1),
    "truncate": Action("truncate -s 3 f", 1, b"old"),
    "truncate to nothing": Action("truncate -s 0 f", 0, b""),
    "tar x": Action("tar c -C ${S%/*} f | tar x", 1),
    "tar c": Action("tar cf g f; cp $S f", 2),
    "gzip": Action("gzip f", 1, None),
    "gunzip": Action("cp $S f; gzip f; gunzip f.gz", 3),
    "ln": Action("ln f g", 0, OLD),
    "ln -sf": Action("cp $S g; ln -sf g f", 1),
    "rm": Action("rm f", 0, None),
    "split": Action("split -n 2 $S p; cat p?? > f; rm p??", 3),
    "patch": Action("diff -u f $S | patch -s f", 1),
    "perl -i": Action("perl -pi -e s/old/new/ f", 1, b"new content\n"),
    "ed": Action("printf '1s/old/new/\\nw\\nq\\n' | ed -s f", 1, b"new content\n"),
    "vim": Action("vim -n -u NONE -es -c 's/old/new/' -c wq f", 1, b"new content\n"),
    "curl": Action("curl -s -o f file://$S", 1),
    "curl -R": Action("curl -s -R -o f file://$S", 1),
}
OPTIONAL = {"patch", "perl", "ed", "vim", "curl"}
"""Not on every machine; the requirements of the tests name vim and curl."""


@pytest.mark.parametrize("name", ACTIONS)
def test_action_makes_its_versions(scope: Path, tmp_path: Path, name: str) -> None:
    """One user action is one version, and the file is as the tool left it."""
    action, tool = ACTIONS[name], name.partition(" ")[0]
    if tool in OPTIONAL and shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    source = tmp_path / "f"
    source.write_bytes(NEW)
    (scope / "f").write_bytes(OLD)
    assert count_versions(scope) == 1
    subprocess.run(
        ["bash", "-euc", action.command], cwd=scope, env={"S": str(source), "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path)}, check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert count_versions(scope) - 1 == action.versions
    found = (scope / "f").read_bytes() if (scope / "f").exists() else None
    assert found == action.content
    if action.content == NEW and "ln" not in name:
        assert read_history(scope, "f")[-1] == NEW


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_works_in_a_scope(scope: Path) -> None:
    """A repository can be made, committed to and cloned: many renames, links and locks."""
    script = (
        "git init -q . && git config user.email a@b && git config user.name n && echo 1 > a"
        " && git add a && git commit -qm one && echo 2 > a && git commit -qam two"
        " && git clone -q . Clone && git -C Clone log --oneline | wc -l && git fsck --strict"
    )
    (scope / "Work").mkdir()
    done = subprocess.run(
        ["bash", "-euc", script], cwd=scope / "Work", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "2"


def test_sqlite_works_in_a_scope(scope: Path) -> None:
    """A database in a scope: locks, journals, and one version when it is closed."""
    script = (
        "import sqlite3; db = sqlite3.connect('db.sqlite')"
        "\ndb.execute('PRAGMA journal_mode=MEMORY')"
        "\ndb.execute('CREATE TABLE t(x)')"
        "\nfor n in range(50):\n  db.execute('INSERT INTO t VALUES(?)', (n,)); db.commit()"
        "\nassert db.execute('SELECT SUM(x) FROM t').fetchone() == (1225,)"
        "\nassert db.execute('PRAGMA integrity_check').fetchone() == ('ok',)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=scope, check=True)
    assert len(read_history(scope, "db.sqlite")) == 1
    assert (scope / "db.sqlite").read_bytes() == read_history(scope, "db.sqlite")[0]


def test_copying_a_scope_leaves_history_alone(shared: Mounted, scope: Path, tmp_path: Path) -> None:
    """cp -r, tar, rsync --delete, find, grep -r and du see an ordinary tree."""
    (scope / "f").write_bytes(OLD)
    (scope / "f").write_bytes(NEW)
    (scope / "g").write_bytes(b"g")
    stamps = list_stamps(scope)
    other = tmp_path / "other"
    other.mkdir()
    (other / "f").write_bytes(NEW)
    script = (
        'cp -r . "$0/copy"; tar cf "$0/t.tar" .; du -s . > /dev/null; grep -r "old" . || true;'
        ' find . | sort; tar tf "$0/t.tar" | sort; rsync -a --delete "$0/other/" .'
    )
    done = subprocess.run(
        ["bash", "-euc", script, tmp_path], cwd=scope, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [".", "./f", "./g", "./", "./f", "./g"]
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["f", "g"]
    assert [path.name for path in scope.iterdir()] == ["f"]
    assert list_stamps(scope)[: len(stamps)] == stamps
