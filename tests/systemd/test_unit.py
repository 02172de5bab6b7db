"""The units under a real `systemd --user`, as root and as an ordinary user.

Only the latter shows what hardening breaks: root mounts without fusermount3.
"""

import configparser
import dataclasses
import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

import scopefs
from scopefs import __version__, daemon
from scopefs.cli.service import UNIT_FILES, find_manager, plan_install, plan_remove
from scopefs.errors import NotFound
from tests.mounting import PATIENCE_S, wait_until
from tests.systemd.user_manager import Account, UserManager, logged_in

UNIT = "scopefs@vault.service"
CHECK = "scopefs-verify@vault.service"

# On the machines of developers and CI the venv's program and the journal are elsewhere.
_PROGRAM = f'#!/bin/sh\nexec {sys.executable} -m scopefs "$@"\n'
_LOG_DROP_IN = "[Service]\nStandardOutput=append:%h/scopefs.log\nStandardError=inherit\n"
_ALARM = re.compile(r"Traceback|ERROR|CRITICAL|Warning:")


class Desk:
    """A user's home with the units in it that `scopefs service install` writes."""

    def __init__(self, account: Account, home: Path) -> None:
        self.account = account
        self.home = home
        self.point = home / "vault"
        self.vault = home / ".local" / "share" / "scopefs" / "vault"
        self.program = home / ".local" / "bin" / "scopefs"
        self.check_log_path = home / "check.log"
        self.install(".local/bin/scopefs", _PROGRAM, 0o755)
        for file in UNIT_FILES:
            self.install(f".config/systemd/user/{file}", find_manager(system=False).render(file))
        self.add_drop_in("log", _LOG_DROP_IN)
        self.install(".config/systemd/user/scopefs-verify@.service.d/log.conf",
                     _LOG_DROP_IN.replace("scopefs.log", "check.log"))  # fmt: skip

    def log_in(self) -> AbstractContextManager[UserManager]:
        """A new user manager, as at login."""
        return logged_in(self.account, self.home)

    def add_drop_in(self, name: str, text: str) -> None:
        """What `systemctl --user edit` writes."""
        self.install(f".config/systemd/user/scopefs@.service.d/{name}.conf", text)

    def versions(self) -> list[Path]:
        """The files in data/, as they are found without a mount."""
        return sorted(path for path in (self.vault / "data").rglob("*.json") if path.is_file())

    def check_log(self) -> None:
        """Fail on any line of the daemon's that alarms."""
        log = self.home / "scopefs.log"
        text = log.read_text(errors="replace") if log.exists() else ""
        assert not _ALARM.search(text), text

    def install(self, name: str, text: str, mode: int = 0o644) -> None:
        """A file of the user's."""
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


def test_systemd_has_nothing_to_say_about_the_units(desk: Desk) -> None:
    """`systemd-analyze verify` prints nothing; its exit code is 0 for unknown keys, too."""
    with desk.log_in() as manager:
        for file in UNIT_FILES:
            unit = file.replace("@", "@vault")
            done = manager.run("systemd-analyze", "verify", "--user", unit)
            assert (done.stdout, done.stderr) == ("", ""), unit


def test_unit_is_more_patient_than_the_daemon() -> None:
    """systemd kills neither a start that waits for the lock nor a stop that waits for writers."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.read_string(find_manager(system=False).render("scopefs@.service"))
    assert unit.getint("Service", "TimeoutStartSec") > 2 * daemon.RELOCK_WAIT_S
    assert unit.getint("Service", "TimeoutStopSec") > 2 * daemon.STOP_GRACE_S


def test_regression_what_is_told_after_system_says_system(tmp_path: Path) -> None:
    """Commands that are named to who said --system ask the machine's systemd, too."""
    manager = dataclasses.replace(
        find_manager(system=True), units=tmp_path / "units", point=f"{tmp_path}/%i"
    )
    told = plan_install(manager, "vault").notes
    assert any("`scopefs service status --system`" in note for note in told)
    with pytest.raises(NotFound, match="`scopefs service install --system`"):
        plan_remove(manager, "vault")


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


def test_stopped_daemon_is_restarted(desk: Desk) -> None:
    """A process that no longer runs (SIGSTOP) is ended by the watchdog, and mounted again."""
    desk.add_drop_in("watchdog", "[Service]\nWatchdogSec=2\n")
    with desk.log_in() as manager:
        manager.systemctl("start", UNIT)
        store(manager, desk, "profile.json", '{"name":"ada"}\n')
        [pid] = manager.show(UNIT, "MainPID")
        os.kill(int(pid), signal.SIGSTOP)
        wait_until(lambda: manager.show(UNIT, "NRestarts", "ActiveState") == ["1", "active"])
        assert manager.show(UNIT, "MainPID") != [pid]
        assert answers(manager, desk)
        assert read(manager, desk, "profile.json") == '{"name":"ada"}\n'
        # Where it was is told.
        assert "Fatal Python error: Aborted" in (desk.home / "scopefs.log").read_text()


def test_daemon_that_is_well_is_left_alone(desk: Desk) -> None:
    """It reports in time, again and again, also while it is unmounted but still in use."""
    desk.add_drop_in("watchdog", "[Service]\nWatchdogSec=2\n")

    def beats() -> int:
        return int(manager.show(UNIT, "WatchdogTimestampMonotonic")[0])

    def wait_beats(count: int) -> None:
        for _ in range(count):
            last = beats()
            wait_until(lambda last=last: beats() != last, 5)

    with desk.log_in() as manager:
        manager.systemctl("start", UNIT)
        [pid] = manager.show(UNIT, "MainPID")
        store(manager, desk, "profile.json", '{"name":"ada"}\n')
        wait_beats(5)
        with holding(manager, desk, "profile.json") as holder:
            manager.run("fusermount3", "-uz", desk.point)
            wait_beats(5)
            assert manager.show(UNIT, "ActiveState", "MainPID") == ["active", pid]
            holder.communicate(b"\n")
        wait_until(lambda: manager.show(UNIT, "ActiveState") == ["inactive"])
        assert manager.show(UNIT, "Result", "NRestarts") == ["success", "0"]


def test_stop_ends_though_a_program_writes_on(desk: Desk) -> None:
    """Who does not close in time is not waited for; what it wrote is in partial/."""
    with desk.log_in() as manager:
        manager.systemctl("start", UNIT)
        store(manager, desk, "profile.json", '{"name":"ada"}\n')
        path = desk.point / "instagram" / "profile" / "open.txt"
        # A shell that redirects closes the file again and again; cat does not.
        writer = subprocess.Popen(
            manager.command("sh", "-c", 'exec cat >"$1"', "sh", path), stdin=subprocess.PIPE
        )
        with writer:
            assert writer.stdin is not None
            writer.stdin.write(b"begun\n")
            writer.stdin.flush()
            wait_until(lambda: read(manager, desk, "open.txt") == "begun\n")
            manager.systemctl("stop", UNIT)
            assert manager.show(UNIT, "ActiveState", "Result") == ["inactive", "success"]
        assert not is_mounted(manager, desk)
        assert [path.read_text() for path in (desk.vault / "partial").glob("*.bin")] == ["begun\n"]
        assert len(desk.versions()) == 1


def test_restart_while_a_program_holds_a_file(desk: Desk) -> None:
    """The new mount is there for everybody; the old handle is an error, not a hang."""
    with desk.log_in() as manager:
        manager.systemctl("start", UNIT)
        store(manager, desk, "profile.json", '{"name":"ada"}\n')
        [pid] = manager.show(UNIT, "MainPID")
        with holding(manager, desk, "profile.json") as holder:
            manager.systemctl("restart", UNIT)
            assert manager.show(UNIT, "MainPID") != [pid]
            assert answers(manager, desk)
            assert read(manager, desk, "profile.json") == '{"name":"ada"}\n'
            _, said = holder.communicate(b"\n")
            assert b"not connected" in said
        assert manager.show(UNIT, "ActiveState", "NRestarts") == ["active", "0"]


def test_status_line_follows_the_vault(desk: Desk) -> None:
    """`systemctl status` shows versions, the last write, and that all is well."""
    with desk.log_in() as manager:
        manager.systemctl("start", UNIT)
        wait_until(lambda: manager.show(UNIT, "StatusText")[0].startswith("0 version(s)"))
        store(manager, desk, "profile.json", '{"name":"ada"}\n')
        wait_until(lambda: manager.show(UNIT, "StatusText")[0].startswith("1 version(s)"))
        [text] = manager.show(UNIT, "StatusText")
        assert re.fullmatch(
            r"1 version\(s\) in 1 scope\(s\); last write \S+Z in instagram\.profile; well", text
        )


def test_check_of_a_mounted_vault(desk: Desk) -> None:
    """The weekly check passes; one that finds damage fails, and the mount goes on."""
    with desk.log_in() as manager:
        manager.systemctl("start", CHECK)
        assert not desk.check_log_path.exists()
        manager.systemctl("start", UNIT)
        store(manager, desk, "profile.json", '{"name":"ada"}\n')
        wait_until(lambda: len(desk.versions()) == 1)
        manager.systemctl("start", CHECK)
        assert desk.check_log_path.read_text().endswith(": all is well\n")
        stray = desk.vault / "data" / "stray"
        stray.write_text("not of scopefs")
        assert manager.run("systemctl", "--user", "start", CHECK, check=False).returncode
        assert manager.show(CHECK, "Result", "ExecMainStatus") == ["exit-code", "6"]
        assert answers(manager, desk)
        assert manager.show(UNIT, "ActiveState", "NRestarts") == ["active", "0"]


def test_install_status_remove(desk: Desk) -> None:
    """`scopefs service` writes, enables, tells and takes away again; the vault stays."""
    units = desk.home / ".config" / "systemd" / "user"
    for file in UNIT_FILES:
        (units / file).unlink()
    with desk.log_in() as manager:

        def service(*arguments: str) -> str:
            return manager.run(desk.program, "service", *arguments).stdout

        said = service("install")
        assert f"{desk.vault} is mounted at {desk.point}" in said
        assert "enable-linger" in said
        assert "user_allow_other" in said
        assert answers(manager, desk)
        store(manager, desk, "profile.json", '{"name":"ada"}\n')
        [told] = json.loads(service("status", "--json"))
        assert (told["state"], told["enabled"], told["restarts"]) == ("active", True, 0)
        assert (told["vault"], told["mountpoint"]) == (str(desk.vault), str(desk.point))
        assert told["check"]["enabled"]
        assert told["check"]["next"]
        assert "version(s)" in service("status", "vault")
        service("install", "second")
        assert "second" in service("remove")
        assert (units / "scopefs@.service").exists()
        assert not is_mounted(manager, desk)
        said = service("remove", "second")
        assert "stays" in said
        assert str(desk.vault.with_name("second")) in said
        assert not any((units / file).exists() for file in UNIT_FILES)
        assert "nothing is installed" in service("status")
    assert len(desk.versions()) == 1


def test_upgrade_while_mounted(desk: Desk) -> None:
    """`service install` of the newer scopefs lets that one run; what is being written is kept."""
    program = make_program(desk, "0.0.9")
    with desk.log_in() as manager:
        manager.run(program, "service", "install")
        store(manager, desk, "profile.json", '{"name":"ada"}\n')
        assert running_version(manager, desk) == "0.0.9"
        [pid] = manager.show(UNIT, "MainPID")
        # As pip does it, under the feet of the running mount.
        set_version(desk, __version__)
        assert "and this is" in manager.run(program, "status").stdout
        script = 'exec 3>"$1"; echo one >&3; echo open; read -r _; echo two >&3'
        late = desk.point / "instagram" / "profile" / "late.txt"
        writer = subprocess.Popen(
            manager.command("sh", "-c", script, "sh", late),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        with writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"open\n"
            upgrade = subprocess.Popen(manager.command(program, "service", "install"))
            wait_until(lambda: manager.show(UNIT, "ActiveState") == ["deactivating"])
            writer.communicate(b"\n")
            assert upgrade.wait(PATIENCE_S) == 0
        assert running_version(manager, desk) == __version__
        assert manager.show(UNIT, "ActiveState", "NRestarts") == ["active", "0"]
        assert manager.show(UNIT, "MainPID") != [pid]
        assert read(manager, desk, "profile.json") == '{"name":"ada"}\n'
        assert read(manager, desk, "late.txt") == "one\ntwo\n"
        assert "and this is" not in manager.run(program, "status").stdout


def make_program(desk: Desk, version: str) -> Path:
    """A scopefs of its own in the user's home, whose version can be changed as an upgrade does."""
    venv = desk.home / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    place = site_packages(desk)
    shutil.copytree(Path(scopefs.__file__).parent, place / "scopefs")
    # What it needs besides is that of these tests.
    (place / "needed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    set_version(desk, version)
    program = venv / "bin" / "scopefs"
    program.write_text(f"#!{venv}/bin/python\nfrom scopefs.cli import main\nmain()\n")
    program.chmod(0o755)
    return program


def site_packages(desk: Desk) -> Path:
    """Where the user's own scopefs is."""
    (found,) = (desk.home / "venv" / "lib").glob("python*/site-packages")
    return found


def set_version(desk: Desk, version: str) -> None:
    """Let the user's own scopefs be another one."""
    path = site_packages(desk) / "scopefs" / "__init__.py"
    path.write_text(
        re.sub(r'^__version__ = ".*"$', f'__version__ = "{version}"', path.read_text(), flags=re.M)
    )
    # Of the same length, and written within a second of the old one: to Python it is the old one.
    shutil.rmtree(path.with_name("__pycache__"), ignore_errors=True)


def running_version(manager: UserManager, desk: Desk) -> str:
    """Which scopefs serves the mount."""
    text = manager.run("cat", desk.point / ".scopefs" / "status.json").stdout
    return str(json.loads(text)["version"])


def test_unit_for_servers(desk: Desk) -> None:
    """It mounts /var/lib/scopefs/vault at /mnt/vault, and others may look into it.

    Run by root's own systemd, in a namespace where these directories are new.
    """
    if desk.account.uid != 0:
        pytest.skip("a unit of the machine is root's")
    system = find_manager(system=True)
    with desk.log_in() as manager:
        for place in ("/mnt", "/var/lib", "/etc/systemd/system"):
            manager.run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", place)
        for file in UNIT_FILES:
            manager.run("sh", "-c", 'cat >"$1" <<END\n' + quoted(system.render(file)) + "END\n",
                        "sh", f"/etc/systemd/system/{file}")  # fmt: skip
            unit = f"/etc/systemd/system/{file}"
            done = manager.run("systemd-analyze", "verify", "--system", "--man=no", unit)
            assert (done.stdout, done.stderr) == ("", ""), file
        for file in UNIT_FILES:
            desk.install(f".config/systemd/user/{file}", system.render(file))
        manager.systemctl("daemon-reload")
        manager.systemctl("start", UNIT)
        manager.run("mkdir", "-p", "/mnt/vault/my/notes")
        manager.run("sh", "-c", "echo hello >/mnt/vault/my/notes/a.txt")
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        assert manager.run(*nobody, "ls", "/mnt/vault/my").stdout == "notes\n"
        assert manager.run(*nobody, "touch", "/mnt/vault/my/notes/b", check=False).returncode
        manager.systemctl("start", CHECK)
        assert desk.check_log_path.read_text().endswith(": all is well\n")
        manager.systemctl("stop", UNIT)
        assert manager.show(UNIT, "ActiveState", "Result") == ["inactive", "success"]
        assert manager.run("ls", "/var/lib/scopefs/vault/data/my/notes").stdout.count("Z.json") == 1


def quoted(text: str) -> str:
    """Text for a here-document."""
    return text.replace("\\", "\\\\").replace("$", "\\$").replace("`", "\\`")


@contextmanager
def holding(manager: UserManager, desk: Desk, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that has a file open until it gets a line, and reads from it only then."""
    path = desk.point / "instagram" / "profile" / name
    script = 'exec 3<&0 <"$1"; echo open >&2; read -r _ <&3; cat'
    holder = subprocess.Popen(
        manager.command("sh", "-c", script, "sh", path),
        stdin=subprocess.PIPE, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    with holder:
        assert holder.stderr is not None
        assert holder.stderr.readline() == b"open\n"
        yield holder
        if holder.poll() is None:
            holder.communicate(b"\n")
