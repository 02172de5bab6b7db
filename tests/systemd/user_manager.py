"""A real `systemd --user` for tests, in its own mount namespace and cgroup.

The machine need not have been booted with systemd, and its own managers are neither seen nor
touched. No D-Bus: `systemctl --user` talks to the manager's private socket. What is mounted is
mounted in the namespace alone, so commands that look at it are run in there. Needs root.
"""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import scopefs
from tests.mounting import PATIENCE_S, wait_until

_SCRIPT = Path(__file__).with_name("user_manager.sh")

# What the user must be able to read to run this Python with this scopefs.
_NEEDED = [
    sys.prefix, sys.base_prefix, os.path.realpath(sys.base_prefix),
    os.path.dirname(os.path.dirname(os.path.abspath(scopefs.__file__))),
]  # fmt: skip


@dataclass(frozen=True)
class Account:
    """Who the manager and all its units run as."""

    uid: int
    gid: int


class UserManager:
    """One login: a manager, from its start to its exit."""

    def __init__(self, account: Account, home: Path) -> None:
        """Start the manager; it goes on to default.target by itself."""
        self.account = account
        self.home = home
        self._name = f"scopefs-test-{secrets.token_hex(4)}"
        self.log_path = home / "manager.log"
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "bash", _SCRIPT,
             str(account.uid), str(account.gid), self._name, self.log_path, home, *_NEEDED],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, cwd="/",
        )  # fmt: skip
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"begun\n":
            self._holder.communicate()
            raise AssertionError(
                "no user manager can be started here (standard error says why; "
                "in a chroot, / must be a mount point: bind it on itself first)"
            )

    def command(self, *command: str | Path) -> list[str | Path]:
        """A command line that does this as the user, where the manager's mounts are."""
        inside = ["nsenter", f"--target={self._holder.pid}", "--mount", "--root", "--wd", "--"]
        return [*inside, "sh", "/run/enter", *command]

    def run(self, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in there, by default one that must succeed."""
        done = subprocess.run(
            self.command(*command), capture_output=True, text=True, timeout=PATIENCE_S
        )
        if check and done.returncode:
            raise AssertionError(
                f"{command} ended with {done.returncode}: {done.stderr}\n{self.read_logs()}"
            )
        return done

    def systemctl(self, *arguments: str, check: bool = True) -> str:
        """`systemctl --user ...`: what it prints."""
        return self.run("systemctl", "--user", *arguments, check=check).stdout.strip()

    def show(self, unit: str, *properties: str) -> list[str]:
        """Properties of a unit, in the order asked for."""
        printed = self.systemctl("show", f"--property={','.join(properties)}", unit)
        values = dict(line.split("=", 1) for line in printed.splitlines())
        return [values[name] for name in properties]

    def wait_started(self) -> None:
        """Wait until all that begins at login has begun."""

        def is_over() -> bool:
            return self._is_started() or not self._has_processes()

        wait_until(is_over)
        assert self._is_started(), f"the user manager ended at once\n{self.read_logs()}"

    def log_out(self) -> None:
        """Let the manager stop all units and end; fails if a process outlives it."""
        self.systemctl("exit")
        wait_until(lambda: not self._has_processes())
        self.end()

    def end(self) -> None:
        """End what is still running, and leave no process, mount or cgroup. May be repeated."""
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.stdout.close()
        code = self._holder.wait(PATIENCE_S)
        assert code == 0, f"the manager's namespace ended with {code}"

    def read_logs(self) -> str:
        """What the manager and its units have said."""
        return "".join(
            f"--- {path.name}\n{path.read_text(errors='replace')}"
            for path in sorted(self.home.glob("*.log"))
        )

    def _is_started(self) -> bool:
        return self.systemctl("is-active", "default.target", check=False) == "active"

    def _has_processes(self) -> bool:
        group = Path(f"/proc/{self._holder.pid}/root/run/cgroup") / self._name
        return "populated 1" in (group / "manager" / "cgroup.events").read_text()


@contextmanager
def logged_in(account: Account, home: Path) -> Iterator[UserManager]:
    """One login, all over at the end; a test that ends well has logged out cleanly, too."""
    manager = UserManager(account, home)
    try:
        manager.wait_started()
        yield manager
        manager.log_out()
    finally:
        manager.end()
