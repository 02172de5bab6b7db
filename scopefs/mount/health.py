"""How a mount is: what only it can tell, in numbers, in one line, and as a heartbeat.

`.scopefs/status.json` has the numbers. systemd gets the line (`STATUS=`) and the heartbeat
(`WATCHDOG=1`), which stops when the event loop or the mount does; it then starts the mount again.
Nothing here changes the vault.
"""

import logging
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from scopefs import __version__
from scopefs.errors import ScopefsError
from scopefs.model.stamps import format_collected_at
from scopefs.mount.open_files import OpenFiles
from scopefs.mount.refusals import Refusals
from scopefs.vault import Vault

STATUS_INTERVAL_S = 10.0
"""How often the line is looked at; it is told again only if it has changed."""

_LOW_SHARE = 0.05


class Health:
    """Of one mount, since it began."""

    def __init__(self, vault: Vault, open_files: OpenFiles, refusals: Refusals) -> None:
        self._vault = vault
        self._open_files = open_files
        self._refusals = refusals
        self._started_us = vault.clock_us()
        self._errors = _ErrorCount(logging.ERROR)
        logging.getLogger().addHandler(self._errors)

    def close(self) -> None:
        """Count no more errors of the log."""
        logging.getLogger().removeHandler(self._errors)

    def members(self) -> dict[str, Any]:
        """What status.json tells besides what the vault holds."""
        return {
            "version": __version__, "startedAt": format_collected_at(self._started_us),
            "openFiles": sum(bool(file.handles) for file in self._open_files),
            "openSessions": sum(file.draft is not None for file in self._open_files),
            "publishing": sum(file.publishing is not None for file in self._open_files),
            "errors": self._errors.count, "refused": self._refusals.count,
        }  # fmt: skip

    def describe(self) -> str:
        """One line for people. Waits for the disk."""
        try:
            status = self._vault.status()
            disk = os.statvfs(self._vault.layout.root)
        except (OSError, ScopefsError) as error:
            return f"NOT WELL: {error}"
        return describe(status, disk.f_bavail / max(1, disk.f_blocks), self._errors.count)


def describe(status: dict[str, Any], free_share: float, errors: int) -> str:
    """`12 versions in 3 scopes; last write 2026-01-21T10:00:00Z in my.notes; well`."""
    last = status["lastVersion"]
    unwell = [
        *([f"{errors} error(s) in the log"] if errors else []),
        *([f"{status['partial']} interrupted write(s)"] if status["partial"] else []),
        *([f"{free_share:.0%} of the disk left"] if free_share < _LOW_SHARE else []),
        *(["relaxed durability"] if status["durability"] != "strict" else []),
        *(["the file system is weak"] if status["fileSystem"]["warnings"] else []),
    ]
    return (
        f"{status['versions']} version(s) in {status['scopes']} scope(s); "
        + (f"last write {last['collectedAt']} in {last['scope']}; " if last else "")
        + (", ".join(unwell) if unwell else "well")
    )


async def keep_status(look: Callable[[], str], tell: Callable[[str], None]) -> None:
    """Tell what `look`, called in a thread, returns; again whenever it says something else."""
    told = ""
    while True:
        text = await trio.to_thread.run_sync(look)
        if text != told:
            tell(text)
            told = text
        await trio.sleep(STATUS_INTERVAL_S)


async def keep_beating(
    ask: Callable[[], object], beat: Callable[[], None], interval_s: float
) -> None:
    """Beat whenever `ask`, called in a thread, has returned; whatever the answer is.

    The thread is its own: that all others are busy is no reason to be killed.
    """
    limiter = trio.CapacityLimiter(1)
    while True:
        await trio.to_thread.run_sync(ask, abandon_on_cancel=True, limiter=limiter)
        beat()
        await trio.sleep(interval_s)


def wait_answer(mountpoint: Path) -> str:
    """Ask the mount for its root; returns the inode number, or nothing if the answer is an error.

    The kernel keeps the attributes of the root for a second at most, so that it has to ask. Another
    process does: a thread of the daemon that waits for the daemon cannot be killed, and a kill -9
    at that moment leaves a process that holds the mount and the vault for ever.
    """
    done = subprocess.run(
        ["stat", "-c", "%i", "--", mountpoint], capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def watchdog_interval_s() -> float | None:
    """How often systemd is to be told, thrice as often as it asks for; None if it does not."""
    allowed_us = os.environ.get("WATCHDOG_USEC", "")
    asked = os.environ.get("WATCHDOG_PID", str(os.getpid()))
    if not allowed_us.isdigit() or asked != str(os.getpid()):
        return None
    return int(allowed_us) / 3e6 or None


class _ErrorCount(logging.Handler):
    """Counts records, and does nothing else with them."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1
