"""A lock between processes that is waited for in turn, and not for ever.

`flock` alone waits without limit: a process that is stopped (SIGSTOP, a debugger) with the lock in
hand would stop all others. Whoever has to wait does so in a thread, by the kernel's own queue
(trying again and again would let one process starve the others), and gives up after a time. Raises
`Unavailable`, which names the holder.
"""

import fcntl
import os
import threading
from pathlib import Path

from scopefs.errors import Unavailable

GATE_PATIENCE_S = 10.0


class Gate:
    """A lock file. For one thread of this process at a time."""

    def __init__(self, path: Path, patience_s: float = GATE_PATIENCE_S) -> None:
        """Open the lock file, making it if it is missing. Raises `OSError`."""
        self._path = path
        self._patience_s = patience_s
        self._fd = _open(path)
        self._held = -1
        self._waiter: _Waiter | None = None

    def try_acquire(self) -> bool:
        """Take the lock unless somebody has it."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self._held = self._fd
        return True

    def acquire(self) -> None:
        """Take the lock, waiting for it if need be; again is no matter. Raises `Unavailable`."""
        if self._held >= 0 or self.try_acquire():
            return
        waiter = self._waiter
        if waiter is None or not waiter.want():
            waiter = self._waiter = _Waiter(self._path)
        if not waiter.wait(self._patience_s):
            raise Unavailable(
                f"{self._path} has been held for {self._patience_s:.0f} s by "
                f"{_describe_holder(self._fd)}"
            )
        self._waiter = None
        self._held = waiter.fd

    def release(self) -> None:
        """Give the lock back, if it was taken."""
        held, self._held = self._held, -1
        if held == self._fd:
            fcntl.flock(held, fcntl.LOCK_UN)
        elif held >= 0:
            os.close(held)

    def close(self) -> None:
        """Close the lock file; the lock goes with it."""
        self.release()
        os.close(self._fd)


class _Waiter:
    """A thread that waits for a lock; if nobody wants that any more, it lets go of it at once."""

    def __init__(self, path: Path) -> None:
        self.fd = _open(path)
        self._lock = threading.Lock()
        self._is_wanted = True
        self._is_over = False
        self._got = threading.Event()
        threading.Thread(target=self._run, name="scopefs-gate", daemon=True).start()

    def want(self) -> bool:
        """Ask for the lock again; False if it came in vain already."""
        with self._lock:
            self._is_wanted = not self._is_over
            return self._is_wanted

    def wait(self, patience_s: float) -> bool:
        """Whether the lock was got in time; the caller then has `fd`."""
        try:
            self._got.wait(patience_s)
        except BaseException:
            with self._lock:
                self._is_wanted = False
                if self._got.is_set():
                    os.close(self.fd)
            raise
        with self._lock:
            self._is_wanted = False
            return self._got.is_set()

    def _run(self) -> None:
        fcntl.flock(self.fd, fcntl.LOCK_EX)
        with self._lock:
            self._is_over = True
            if self._is_wanted:
                self._got.set()
            else:
                os.close(self.fd)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _describe_holder(fd: int) -> str:
    """Who has a lock, in words, by the kernel's table."""
    inode = str(os.fstat(fd).st_ino)
    try:
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            fields = line.split()
            # `1: FLOCK  ADVISORY  WRITE 4711 08:01:131 0 EOF`; one that waits has an arrow.
            if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == inode:
                pid = fields[4]
                state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2]
                if state.split()[0] in "Tt":
                    return f"process {pid}, which is stopped: `kill -CONT {pid}` lets it go on"
                return f"process {pid}"
    except (OSError, IndexError):
        pass
    return "another process"
