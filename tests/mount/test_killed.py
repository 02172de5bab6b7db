"""Writers that a signal ended: semantics S9."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.mount.reading import count_versions, read_history
from tests.mounting import Mounted, run_scopefs, wait_until

LARGE = 300_000


class Writing:
    """A Python process with the file `f` open in a scope, and `fd` its descriptor."""

    def __init__(self, scope: Path, flags: str = "os.O_CREAT|os.O_WRONLY", then: str = "") -> None:
        script = (
            f"import os, sys, signal; fd = os.open('f', {flags})\n"
            "os.write(fd, sys.argv[1].encode())\n"
            f"print('written', flush=True)\n{then}\nsys.stdin.readline()"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", script, "half"], cwd=scope, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"written\n"

    def end(self, number: int) -> None:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        self.wait()

    def wait(self) -> None:
        """Wait for the end."""
        self.process.wait()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()


def read_stories(mounted: Mounted, scope: Path) -> list[dict[str, Any]]:
    """The stories of a scope's interrupted writes, oldest first, with their bytes."""
    name = ".".join(scope.relative_to(mounted.point).parts)
    found = []
    for path in sorted((mounted.vault / "partial").glob("*.json")):
        # One that is being written is empty.
        story = json.loads(path.read_bytes() or b"{}")
        if story.get("scope") == name:
            found.append({**story, "content": path.with_suffix(".bin").read_bytes()})
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_killed_writer_makes_no_version(shared: Mounted, scope: Path, number: int) -> None:
    """Its bytes are in partial/, with the reason, the program, the time and the name."""
    then = "signal.signal(signal.SIGINT, signal.SIG_DFL)"
    Writing(scope, then=then).end(number)
    wait_until(lambda: read_stories(shared, scope))
    (story,) = read_stories(shared, scope)
    assert story["content"] == b"half"
    assert story["reason"] == "its writer was killed"
    assert story["name"] == "f"
    assert story["process"].startswith("python")
    assert story["uid"] == os.getuid()
    assert story["at"]
    assert count_versions(scope) == 0
    assert not (scope / "f").exists()


def test_killed_writer_takes_nothing_that_others_have_closed(shared: Mounted, scope: Path) -> None:
    """What was closed before it began is a version, though the handle lives on; so is what
    that handle writes while the other is killed.
    """
    with (scope / "f").open("wb", buffering=0) as first:
        first.write(b"closed")
        os.close(os.dup(first.fileno()))
        killed = Writing(scope, flags="os.O_WRONLY")
        killed.end(signal.SIGKILL)
        wait_until(lambda: read_stories(shared, scope))
        assert read_history(scope, "f") == [b"closed"]
        first.write(b" and more")
    assert [story["content"] for story in read_stories(shared, scope)] == [b"halfed"]
    assert read_history(scope, "f") == [b"closed", b"closed and more"]


def test_the_name_keeps_its_last_version(shared: Mounted, scope: Path) -> None:
    """An overwrite that is killed leaves the file as it was."""
    (scope / "Folder").mkdir()
    (scope / "Folder" / "f").write_bytes(b"whole")
    Writing(scope / "Folder", flags="os.O_WRONLY|os.O_TRUNC").end(signal.SIGKILL)
    wait_until(lambda: read_stories(shared, scope))
    assert read_stories(shared, scope)[0]["name"] == "Folder/f"
    assert (scope / "Folder" / "f").read_bytes() == b"whole"
    assert read_history(scope, "Folder/f") == [b"whole"]


def test_killed_appender_s_bytes_stay(shared: Mounted, scope: Path) -> None:
    """What a log received, it keeps."""
    (scope / "f").write_bytes(b"log\n")
    Writing(scope, flags="os.O_WRONLY|os.O_APPEND").end(signal.SIGKILL)
    assert read_history(scope, "f") == [b"log\n", b"log\nhalf"]
    assert (scope / "f").read_bytes() == b"log\nhalf"
    assert read_stories(shared, scope) == []


@pytest.mark.parametrize("then", ["os._exit(3)", "sys.exit(1)", "raise SystemExit", "1 / 0"])
def test_exit_without_a_close_is_no_kill(shared: Mounted, scope: Path, then: str) -> None:
    """A program that ends by itself has finished, however it ends."""
    writing = Writing(scope, then=f"import io; sys.stderr = io.StringIO()\n{then}")
    writing.wait()
    assert read_history(scope, "f") == [b"half"]
    assert read_stories(shared, scope) == []


def test_closed_before_the_kill_is_finished(shared: Mounted, scope: Path) -> None:
    """What was closed is a version, whatever becomes of its program."""
    writing = Writing(scope, then="os.close(fd)\nprint('closed', flush=True)")
    assert writing.process.stdout is not None
    assert writing.process.stdout.readline() == b"closed\n"
    writing.end(signal.SIGKILL)
    assert read_history(scope, "f") == [b"half"]
    assert read_stories(shared, scope) == []


def test_synced_and_killed_is_partial(shared: Mounted, scope: Path) -> None:
    """fsync alone does not finish a write."""
    Writing(scope, then="os.fsync(fd)\nprint('synced', flush=True)").end(signal.SIGKILL)
    wait_until(lambda: read_stories(shared, scope))
    assert [story["content"] for story in read_stories(shared, scope)] == [b"half"]
    assert count_versions(scope) == 0


def test_parent_that_goes_on_finishes_what_its_child_began(shared: Mounted, scope: Path) -> None:
    """A child that is killed is not the writer who opened the file."""
    script = "{ bash -c 'printf child; kill -9 $$'; printf parent; } > f"
    subprocess.run(["bash", "-c", script], cwd=scope, check=False, capture_output=True)
    assert read_history(scope, "f") == [b"childparent"]
    assert read_stories(shared, scope) == []


def test_heir_that_ends_well_after_its_parent_was_killed(shared: Mounted, scope: Path) -> None:
    """A FLUSH of a process that lives is not judged by the one that is dead."""
    then = (
        "read, write = os.pipe()\n"
        "if os.fork() == 0:\n"
        "    os.close(write); os.read(read, 1); os.write(fd, b' whole'); os._exit(0)\n"
        "os.close(read)\n"
        "os.close(0)\n"
        "os.kill(os.getpid(), 9)"
    )
    writing = Writing(scope, then=then)
    writing.wait()
    wait_until(lambda: count_versions(scope) == 1)
    assert read_history(scope, "f") == [b"half whole"]
    assert read_stories(shared, scope) == []


def test_killed_thread_group_is_seen_through_any_thread(shared: Mounted, scope: Path) -> None:
    """A file that a thread opened is judged by its process."""
    script = (
        "import os, threading\n"
        "def work():\n"
        "    global fd; fd = os.open('f', os.O_CREAT|os.O_WRONLY); os.write(fd, b'half')\n"
        "thread = threading.Thread(target=work); thread.start(); thread.join()\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=scope, check=False)
    wait_until(lambda: read_stories(shared, scope))
    assert count_versions(scope) == 0


def test_exec_with_a_dirty_file_does_not_hang(scope: Path) -> None:
    """execve closes files while parts of /proc wait for it: the mount does not wait for those."""
    script = (
        "import os; fd = os.open('f', os.O_CREAT|os.O_WRONLY); os.write(fd, b'whole');"
        "os.execv('/bin/true', ['true'])"
    )
    subprocess.run([sys.executable, "-c", script], cwd=scope, check=True, timeout=10)
    assert read_history(scope, "f") == [b"whole"]


def test_large_file_of_a_killed_writer(shared: Mounted, scope: Path) -> None:
    """Bytes that were in a staging file are moved, whole."""
    then = f"os.write(fd, b'x' * {LARGE})\nprint('more', flush=True)"
    writing = Writing(scope, then=then)
    assert writing.process.stdout is not None
    assert writing.process.stdout.readline() == b"more\n"
    writing.end(signal.SIGKILL)
    wait_until(lambda: read_stories(shared, scope))
    assert read_stories(shared, scope)[0]["content"] == b"half" + b"x" * LARGE
    assert count_versions(scope) == 0


def test_log_names_the_writer(shared: Mounted, scope: Path) -> None:
    """Each version records who wrote it: user and program, and the time of the source."""
    source = shared.point.parent / "source"
    source.write_bytes(b"x")
    os.utime(source, ns=(0, 1_234_567_890))
    subprocess.run(["cp", "-p", str(source), str(scope / "f")], check=True)
    subprocess.run(["bash", "-c", "cat > g"], cwd=scope, input=b"y", check=True)
    name = ".".join(scope.relative_to(shared.point).parts)
    events = json.loads(run_scopefs("log", name, "--json", vault=shared.vault).stdout)
    versions = [event for event in events if event["op"] == "version"]
    assert [(event["file"], event["writer"], event["uid"]) for event in versions] == [
        ("g", "cat", os.getuid()), ("f", "cp", os.getuid()),
    ]  # fmt: skip
    # cp -p sets the time while it has the file open.
    assert versions[1]["mtimeNs"] == 1_234_567_890
    envelope = (scope / ".versions" / "latest.json").read_text()
    assert "cat" not in envelope
    assert "cp" not in run_scopefs("get", name, "--envelope", vault=shared.vault).stdout.decode()
