"""Who writes: the process behind a request, and whether a signal has killed it.

The kernel names the thread that opened a file, and nobody at FLUSH. What can be known is read from
/proc. Some files there block while their process is in the middle of an execve, which may itself be
waiting for the FLUSH that is being answered: `stat` and `exe` do, `statm`, `status` and `comm` not
(tried on Linux 6.18). So `stat` is read only of a process that has given up its memory, which one
in an execve has not, and in a thread, for `JUDGE_S` at most.

What is read at each FLUSH is kept open while files are written: to open it costs five times what
reading does.
"""

import functools
import os
import time
from collections import OrderedDict
from dataclasses import dataclass

import trio

from scopefs.store.atomic import Descriptor

JUDGE_S = 2.0
"""How long a FLUSH of a process that is ending waits to learn whether it was killed. It takes some
40 ms, or as long as a busy machine needs for that; what could wait longer is not known.
"""

_END_S = 0.04
"""How long a killed process is watched: one that waits for the answer to its FLUSH cannot end."""

KNOWN_S = 1.0
"""How long a thread's process is taken for known: no id is used again within that."""

_KNOWN_MAX = 256
_PF_SIGNALED = 0x400
_PF_EXITING = 0x4
_SIGNAL_MASK = 0x7F


@dataclass(frozen=True, slots=True)
class Writer:
    """A process, as it was when it opened a file. `started`: clock ticks since boot."""

    tgid: int
    started: int
    uid: int
    name: str

    def is_same(self, other: "Writer | None") -> bool:
        """Whether both are one process."""
        return other is not None and (self.tgid, self.started) == (other.tgid, other.started)


class Writers:
    """Finds the processes of threads; remembers them for a moment, as `cp -r` asks often."""

    def __init__(self) -> None:
        self._known: OrderedDict[int, tuple[float, Writer | None]] = OrderedDict()

    def find(self, thread: int, uid: int) -> Writer | None:
        """The process of a thread; None if it cannot be known (another PID namespace)."""
        now = time.monotonic()
        known = self._known.get(thread)
        if known is not None and now - known[0] < KNOWN_S:
            return known[1]
        found = _load_writer(thread, uid) if thread > 0 else None
        self._known[thread] = (now, found)
        self._known.move_to_end(thread)
        if len(self._known) > _KNOWN_MAX:
            self._known.popitem(last=False)
        return found


def find_program_name(writer: Writer) -> str:
    """What the process is called now: a shell that opened the file has become its command."""
    try:
        comm = _open_files(writer.tgid, writer.started)[1]
        return os.pread(comm.number, 64, 0).rstrip(b"\n").decode("utf-8", "replace")
    except OSError:
        return writer.name


async def is_killed(writer: Writer) -> bool:
    """Whether a signal is ending the process right now; False if that cannot be known."""
    try:
        statm = _open_files(writer.tgid, writer.started)[0]
        if not os.pread(statm.number, 64, 0).startswith(b"0 "):
            return False
    except OSError:
        return False
    killed = False
    with trio.move_on_after(JUDGE_S):
        killed = await trio.to_thread.run_sync(_is_killed, writer, abandon_on_cancel=True)
    return killed


def _is_killed(writer: Writer) -> bool:
    until = time.monotonic() + _END_S
    while _is_ending(writer):
        if time.monotonic() > until:
            return True
        time.sleep(0.005)
    return False


def _is_ending(writer: Writer) -> bool:
    """Whether a signal is ending the process, which is not over yet."""
    try:
        fields = _read_stat(writer.tgid)
    except (OSError, ValueError):
        return False
    state, threads, started, flags = fields[0], int(fields[17]), int(fields[19]), int(fields[6])
    if started != writer.started or not flags & _PF_EXITING:
        return False
    if state in (b"Z", b"X") and threads < 2:
        # It is dead already: the FLUSH comes from somebody who inherited the file.
        return False
    exit_code = int(fields[49])
    return bool(exit_code & _SIGNAL_MASK) or bool(flags & _PF_SIGNALED)


def _load_writer(thread: int, uid: int) -> Writer | None:
    try:
        status = _read(f"/proc/{thread}/status")
        members = dict(line.split(b":", 1) for line in status.splitlines() if b":" in line)
        tgid = int(members[b"Tgid"])
        name = members[b"Name"].strip().decode("utf-8", "replace")
        # Nobody who is opening a file is in an execve.
        return Writer(tgid, int(_read_stat(tgid)[19]), uid, name)
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _read_stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the third (state) on: proc(5)'s number less 3."""
    return _read(f"/proc/{pid}/stat").rpartition(b") ")[2].split()


@functools.lru_cache(maxsize=64)
def _open_files(tgid: int, _started: int) -> tuple[Descriptor, Descriptor]:
    """The files statm and comm of a process; they stay its own, whoever has its id later."""
    return _open(f"/proc/{tgid}/statm"), _open(f"/proc/{tgid}/comm")


def close_files() -> None:
    """Let go of what is kept open: nobody writes at the moment."""
    _open_files.cache_clear()


def _open(path: str) -> Descriptor:
    return Descriptor(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 8192)
    finally:
        os.close(fd)
