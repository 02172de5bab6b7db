"""What the rows of docs/tools.md have no room for: whole trees, and git's own."""

import os
import subprocess
import time
from pathlib import Path

from tests.mount.reading import list_stamps, read_history


def test_copying_a_scope_leaves_history_alone(scope: Path, tmp_path: Path) -> None:
    """cp -r, tar, rsync --delete, find, grep -r and du see an ordinary tree: semantics V7."""
    (scope / "f").write_bytes(b"old\n")
    (scope / "f").write_bytes(b"new\n")
    (scope / "g").write_bytes(b"g")
    stamps = list_stamps(scope)
    other = tmp_path / "other"
    other.mkdir()
    (other / "f").write_bytes(b"new\n")
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


def test_publication_changes_no_directory(scope: Path) -> None:
    """What is published after its close leaves the directory's times alone, as tar checks them."""
    for number in range(20):
        (scope / str(number)).write_bytes(b"x")
        before = os.stat(scope)
        list_stamps(scope)
        # Reading a directory makes the kernel ask for its times again.
        os.listdir(scope)
        after = os.stat(scope)
        assert (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)


def test_regression_publication_changes_no_file_either(scope: Path) -> None:
    """What is published while tar reads it was "file changed as we read it": its ctime moved."""
    path = scope / "f"
    for content in (b"one", b"two"):
        path.write_bytes(content)
        before = os.stat(path)
        assert list_stamps(scope)
        after = os.stat(path)
        assert (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)
    path.chmod(0o600)
    changed = os.stat(path)
    assert changed.st_ctime_ns > after.st_ctime_ns
    os.utime(path, ns=(1, 1))
    timed = os.stat(path)
    assert timed.st_ctime_ns > changed.st_ctime_ns
    path.write_bytes(b"three")
    assert list_stamps(scope)
    published = os.stat(path)
    os.link(path, scope / "g")
    linked = os.stat(path)
    assert linked.st_ctime_ns > published.st_ctime_ns
    path.rename(scope / "h")
    assert os.stat(scope / "g").st_ctime_ns > linked.st_ctime_ns


def test_recording_a_new_name_changes_no_time(scope: Path) -> None:
    """An empty file that is synced is in the index from then on, and is what it was."""
    with (scope / "f").open("wb") as file:
        before = os.fstat(file.fileno())
        os.fsync(file.fileno())
    after = os.stat(scope / "f")
    assert (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)


def test_times_set_before_publication_leave_the_ctime_true(scope: Path) -> None:
    """cp -p sets an old mtime: the ctime says when, as on any file system, before and after."""
    begin = time.time_ns()
    path = scope / "f"
    with path.open("wb", buffering=0) as file:
        file.write(b"one")
        os.utime(file.fileno(), ns=(1, 1))
    before = os.stat(path)
    assert before.st_mtime_ns == 1
    assert begin <= before.st_ctime_ns <= time.time_ns()
    assert list_stamps(scope)
    assert os.stat(path).st_ctime_ns == before.st_ctime_ns


def test_directory_tells_of_each_change_at_once(scope: Path) -> None:
    """Its times move with each name that is made, ended, moved or linked, and with its mode."""
    folder = scope / "Work"
    folder.mkdir()
    seen = [os.stat(folder).st_mtime_ns]

    def changed() -> bool:
        # As a path that is walked: the kernel asks again for what it was told long ago, or changed.
        os.listdir(folder)
        seen.append(os.stat(folder).st_mtime_ns)
        return seen[-1] > seen[-2]

    (folder / "a").write_bytes(b"1")
    assert changed()
    list_stamps(scope)
    (folder / "b").write_bytes(b"2")
    assert changed()
    (folder / "a").unlink()
    assert changed(), "though b is not published yet"
    list_stamps(scope)
    assert not changed()
    (folder / "b").rename(folder / "c")
    assert changed()
    os.link(folder / "c", folder / "d")
    assert changed()
    (folder / "e").symlink_to("c")
    assert changed()
    (folder / "Sub").mkdir()
    assert changed()
    (folder / "Sub").rmdir()
    assert changed()
    folder.chmod(0o700)
    assert os.stat(folder).st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    assert os.stat(folder).st_mode & 0o777 == 0o755
    os.utime(folder, ns=(5, 5))
    assert os.stat(folder).st_mtime_ns == 5
    (folder / "f").write_bytes(b"3")
    assert os.stat(folder).st_mtime_ns > seen[-1]


def test_git_works_in_a_scope(scope: Path) -> None:
    """A repository can be made, committed to and cloned: many renames, links and locks."""
    script = (
        "git init -q . && git config user.email a@b && git config user.name n && echo 1 > a"
        " && git add a && git commit -qm one && echo 2 > a && git commit -qam two"
        " && git clone -q . Clone && git -C Clone log --oneline | wc -l && git fsck --strict"
    )
    work = scope / "Work"
    work.mkdir()
    done = subprocess.run(["bash", "-euc", script], cwd=work, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "2"
    list_stamps(scope)
    files = [path for path in work.rglob("*") if path.is_file() and path.stat().st_size]
    assert len(files) > 40
    for path in files:
        assert read_history(scope, str(path.relative_to(scope)))[-1] == path.read_bytes()
