"""The user unit under a real `systemd --user`, as root and as an ordinary user.

Only the latter shows what hardening breaks: root mounts without fusermount3.
"""

import configparser
import os
import pwd
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from scopefs import daemon
from tests.mounting import PATIENCE_S, wait_until
from tests.systemd.user_manager import Account, UserManager, logged_in

UNIT_FILE = Path(__file__).parents[2] / "systemd" / "scopefs@.service"
UNIT = "scopefs@vault.service"

# On the machines of developers and CI the venv's program and the journal are elsewhere.
_PROGRAM = f'#!/bin/sh\nexec {sys.executable} -m scopefs "$@"\n'
_LOG_DROP_IN = "[Service]\nStandardOutput=append:%h/scopefs.log\nStandardError=inherit\n"
_ALARM = re.compile(r"Traceback|ERROR|CRITICAL|Warning:")


class Desk:
    """A user's home with the unit installed as the documentation says."""

    def __init__(self, account: Account, home: Path) -> None:
        self.account = account
        self.home = home
        self.point = home / "vault"
        self.vault = home / ".local" / "share" / "scopefs" / "vault"
        self.program = home / ".local" / "bin" / "scopefs"
        self._install(".local/bin/scopefs", _PROGRAM, 0o755)
        self._install(".config/systemd/user/scopefs@.service", UNIT_FILE.read_text())
        self.add_drop_in("log", _LOG_DROP_IN)

    def log_in(self) -> AbstractContextManager[UserManager]:
        """A new user manager, as at login."""
        return logged_in(self.account, self.home)

    def add_drop_in(self, name: str, text: str) -> None:
        """What `systemctl --user edit` writes."""
        self._install(f".config/systemd/user/scopefs@.service.d/{name}.conf", text)

    def versions(self) -> list[Path]:
        """The files in data/, as they are found without a mount."""
        return sorted(path for path in (self.vault / "data").rglob("*.json") if path.is_file())

    def check_log(self) -> None:
        """Fail on any line of the daemon's that alarms."""
        log = self.home / "scopefs.log"
        text = log.read_text(errors="replace") if log.exists() else ""
        assert not _ALARM.search(text), text

    def _install(self, name: str, text: str, mode: int = 0o644) -> None:
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        for made in (path, *path.parents):
            if made.is_relative_to(self.home):
                os.chown(made, self.account.uid, self.account.gid)


@pytest.fixture(params=["root", "nobody"])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Desk]:
    """A new home, of each of the two users."""
    if os.geteuid() != 0:
        pytest.skip("needs root, for a mount namespace and a cgroup of its own")
    entry = pwd.getpwnam(request.param)
    if entry.pw_uid != 0 and "NoNewPrivs:\t0" not in Path("/proc/self/status").read_text():
        pytest.skip("no setuid program works in this container (no-new-privileges)")
    home = tmp_path / "home"
    home.mkdir()
    made = Desk(Account(entry.pw_uid, entry.pw_gid), home)
    yield made
    made.check_log()


def is_mounted(manager: UserManager, desk: Desk) -> bool:
    """Whether exactly one scopefs is mounted there."""
    found = manager.run("findmnt", "-rno", "FSTYPE", "--mountpoint", desk.point, check=False)
    return found.stdout.split() == ["fuse.scopefs"]


def answers(manager: UserManager, desk: Desk) -> bool:
    """Whether the mount is there and answers its user."""
    return (
        is_mounted(manager, desk)
        and manager.run("stat", desk.point, check=False).returncode == 0
    )  # fmt: skip


def store(manager: UserManager, desk: Desk, name: str, text: str) -> None:
    """Copy a file into the mount."""
    scope = desk.point / "instagram" / "profile"
    source = desk.home / name
    source.write_text(text)
    manager.run("mkdir", "-p", scope)
    manager.run("cp", source, scope)


def read(manager: UserManager, desk: Desk, name: str) -> str:
    """A file in the mount; empty while it cannot be read."""
    path = desk.point / "instagram" / "profile" / name
    return manager.run("cat", path, check=False).stdout


def test_systemd_has_nothing_to_say_about_the_unit(desk: Desk) -> None:
    """`systemd-analyze verify` prints nothing; its exit code is 0 for unknown keys, too."""
    with desk.log_in() as manager:
        done = manager.run("systemd-analyze", "verify", "--user", UNIT)
    assert (done.stdout, done.stderr) == ("", "")


def test_unit_is_more_patient_than_the_daemon() -> None:
    """systemd kills neither a start that waits for the lock nor a stop that waits for writers."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read(UNIT_FILE)
    assert unit.getint("Service", "TimeoutStartSec") > 2 * daemon.RELOCK_WAIT_S
    assert unit.getint("Service", "TimeoutStopSec") > 2 * daemon.STOP_GRACE_S


def test_active_means_mounted_and_stopped_means_settled(desk: Desk) -> None:
    """`enable --now` returns with a mount that answers, `stop` with all in place and unmounted."""
    with desk.log_in() as manager:
        manager.systemctl("enable", "--now", "scopefs@vault")
        assert answers(manager, desk)
        assert manager.show(UNIT, "ActiveState") == ["active"]
        store(manager, desk, "profile.json", '{"name":"ada"}\n')
        listed = manager.run("ls", desk.point / "instagram" / "profile" / ".versions").stdout
        stamp, latest = listed.split()
        assert latest == "latest.json"
        manager.systemctl("stop", UNIT)
        assert not is_mounted(manager, desk)
        shown = manager.show(UNIT, "ActiveState", "Result", "ExecMainCode", "ExecMainStatus")
        assert shown == ["inactive", "success", str(os.CLD_EXITED), "0"]
        assert [path.name for path in desk.versions()] == [stamp]


def test_killed_daemon_comes_back(desk: Desk) -> None:
    """After kill -9 of the main process the unit mounts again by itself, with all it had."""
    with desk.log_in() as manager:
        manager.systemctl("start", UNIT)
        store(manager, desk, "profile.json", '{"name":"ada"}\n')
        [pid] = manager.show(UNIT, "MainPID")
        os.kill(int(pid), signal.SIGKILL)
        wait_until(lambda: manager.show(UNIT, "NRestarts", "ActiveState") == ["1", "active"])
        assert answers(manager, desk)
        assert manager.show(UNIT, "MainPID") != [pid]
        assert read(manager, desk, "profile.json") == '{"name":"ada"}\n'


def test_daemon_killed_for_good_leaves_no_dead_mount(desk: Desk) -> None:
    """A unit that ends as failed has cleared away what would answer ENOTCONN from then on."""
    desk.add_drop_in("once", "[Service]\nRestart=no\n")
    with desk.log_in() as manager:
        manager.systemctl("start", UNIT)
        manager.systemctl("kill", "--signal=KILL", UNIT)
        wait_until(lambda: manager.show(UNIT, "ActiveState") == ["failed"])
        assert not is_mounted(manager, desk)


def test_enabled_unit_mounts_at_login(desk: Desk) -> None:
    """Once enabled, the vault is there with default.target; a logout has stopped it cleanly."""
    with desk.log_in() as manager:
        manager.systemctl("enable", "--now", UNIT)
        store(manager, desk, "profile.json", '{"name":"ada"}\n')
    assert len(desk.versions()) == 1
    with desk.log_in() as manager:
        assert answers(manager, desk)
        assert read(manager, desk, "profile.json") == '{"name":"ada"}\n'


def test_stop_waits_for_open_writes(desk: Desk) -> None:
    """What a program writes after the stop began, until it closes the file, becomes a version."""
    with desk.log_in() as manager:
        manager.systemctl("start", UNIT)
        store(manager, desk, "first.txt", "first\n")
        path = desk.point / "instagram" / "profile" / "open.txt"
        script = 'exec >"$1"; echo one; echo begun >&2; read -r _; echo two'
        writer = subprocess.Popen(
            manager.command("sh", "-c", script, "sh", path),
            stdin=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        with writer:
            assert writer.stderr is not None
            assert writer.stderr.readline() == b"begun\n"
            manager.systemctl("stop", "--no-block", UNIT)
            wait_until(lambda: not is_mounted(manager, desk))
            assert manager.show(UNIT, "ActiveState", "SubState") == ["deactivating", "stop-sigterm"]
            writer.communicate(b"\n")
        wait_until(lambda: manager.show(UNIT, "ActiveState") == ["inactive"])
        assert manager.show(UNIT, "Result", "ExecMainStatus") == ["success", "0"]
        assert len(desk.versions()) == 2
        manager.systemctl("start", UNIT)
        assert read(manager, desk, "open.txt") == "one\ntwo\n"


def test_start_takes_over_from_a_mount_by_hand(desk: Desk) -> None:
    """What is mounted there is taken away first; that daemon settles and gives the vault up."""
    with desk.log_in() as manager:
        by_hand = subprocess.Popen(
            manager.command(desk.program, "mount", "-f", "--vault", desk.vault, desk.point),
            stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_until(lambda: answers(manager, desk))
            store(manager, desk, "profile.json", '{"name":"ada"}\n')
            manager.systemctl("start", UNIT)
            assert by_hand.wait(PATIENCE_S) == 0
            assert answers(manager, desk)
            assert read(manager, desk, "profile.json") == '{"name":"ada"}\n'
        finally:
            by_hand.kill()
            by_hand.wait()


def test_unmount_by_hand_is_respected(desk: Desk) -> None:
    """`fusermount3 -u` ends the unit as a success, and it does not mount again."""
    with desk.log_in() as manager:
        manager.systemctl("start", UNIT)
        manager.run("fusermount3", "-u", desk.point)
        wait_until(lambda: manager.show(UNIT, "ActiveState") == ["inactive"])
        assert manager.show(UNIT, "Result", "NRestarts") == ["success", "0"]
        assert not is_mounted(manager, desk)
