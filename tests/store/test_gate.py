"""The gate: one process at a time, in turn, and nobody waits for a stopped one for ever."""

import fcntl
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scopefs import Vault
from scopefs.errors import Unavailable
from scopefs.store import gate
from scopefs.store.gate import Gate
from tests.mounting import wait_until
from tests.store.inspection import run_python_until_it_dies, start_python

_HOLD = """
import fcntl, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(fd, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


@contextmanager
def held_elsewhere(path: Path, *, stopped: bool) -> "Iterator[subprocess.Popen[str]]":
    """Another process that has a lock, and may be stopped."""
    path.touch()
    process = start_python(_HOLD, path)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        if stopped:
            process.send_signal(signal.SIGSTOP)
        yield process
    finally:
        process.kill()
        process.communicate()


def is_free(path: Path) -> bool:
    """Whether anybody could take a lock."""
    fd = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def test_stopped_holder_is_named_and_not_waited_for(tmp_path: Path) -> None:
    """After the patience is over: Unavailable, which says who it is and what to do."""
    path = tmp_path / "write.lock"
    with held_elsewhere(path, stopped=True) as holder:
        opened = Gate(path, patience_s=0.05)
        before = threading.active_count()
        for _ in range(3):
            with pytest.raises(Unavailable, match=rf"process {holder.pid}.*kill -CONT"):
                opened.acquire()
        assert threading.active_count() <= before + 1
        opened.close()


def test_lock_that_comes_too_late_is_let_go(tmp_path: Path) -> None:
    """Who has given up does not hold the lock when it is free at last, and can take it again."""
    path = tmp_path / "write.lock"
    opened = Gate(path, patience_s=0.05)
    with (
        held_elsewhere(path, stopped=False) as holder,
        pytest.raises(Unavailable, match=f"by process {holder.pid}$"),
    ):
        opened.acquire()
    wait_until(lambda: is_free(path))
    opened.acquire()
    assert not is_free(path)
    opened.release()
    assert is_free(path)
    opened.close()


def test_waiting_ends_when_the_holder_goes_on(tmp_path: Path) -> None:
    """A holder that goes on in time is waited for; afterwards the lock is the waiter's."""
    path = tmp_path / "write.lock"
    opened = Gate(path, patience_s=30)
    with held_elsewhere(path, stopped=True) as holder:
        timer = threading.Timer(0.1, holder.kill)
        timer.start()
        opened.acquire()
        timer.join()
        assert not is_free(path)
    opened.close()
    assert is_free(path)


def test_asking_again_while_the_first_wait_lasts(tmp_path: Path) -> None:
    """A second attempt joins the wait of the first, and gets the lock."""
    path = tmp_path / "write.lock"
    opened = Gate(path, patience_s=0.3)
    with held_elsewhere(path, stopped=False) as holder:
        with pytest.raises(Unavailable):
            opened.acquire()
        timer = threading.Timer(0.05, holder.kill)
        timer.start()
        opened.acquire()
        timer.join()
    assert not is_free(path)
    opened.close()


def test_stopped_process_does_not_hang_a_put(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A put, and the close behind it, end in words while write.lock is held; later all works."""
    monkeypatch.setattr(gate.Gate.__init__, "__defaults__", (0.1,))
    with Vault.open(tmp_path / "v", create=True) as vault:
        with held_elsewhere(vault.layout.lock("write"), stopped=True):
            began = time.monotonic()
            with pytest.raises(Unavailable, match="is stopped"):
                vault.put("a.b", b"one")
            assert time.monotonic() - began < 20
        assert vault.versions("a.b") == []
        version = vault.put("a.b", b"one")
        assert vault.read_payload(version) == b"one"


_DIE_WITH_LOCKS = """
import fcntl, os, signal, sys
from pathlib import Path
from scopefs import Vault
vault = Vault.open(sys.argv[1])
vault.put("a.b", b"x")
for name in ("write", "settle", "recover"):
    fd = os.open(vault.layout.lock(name), os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_locks_of_a_killed_process_block_nobody(tmp_path: Path) -> None:
    """Whatever a process held when it was killed, the next one works at once."""
    Vault.open(tmp_path / "v", create=True).close()
    run_python_until_it_dies(_DIE_WITH_LOCKS, tmp_path / "v")
    began = time.monotonic()
    with Vault.open(tmp_path / "v") as vault:
        vault.put("a.b", b"y")
        vault.settle()
        assert len(vault.versions("a.b")) == 2
    assert time.monotonic() - began < 5
