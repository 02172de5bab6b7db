"""scopefs service: vaults that systemd mounts and checks

The unit files are made from systemd/*.in, the one place for what they say; what differs between a
user's systemd and the machine's stands in `_user_manager` and `_system_manager`. What is to be done
is planned first, as steps; `--dry-run` prints them.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import click

from scopefs.cli.options import json_option, print_json, print_rows
from scopefs.errors import Forbidden, InvalidName, MountRefused, NotFound, Unavailable

UNIT_FILES = ("scopefs@.service", "scopefs-verify@.service", "scopefs-verify@.timer")
OTHERS_DROP_IN = "allow-other.conf"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}\Z")
_PLACEHOLDER = re.compile(r"@([A-Z]+)@")
_FUSE_CONF = Path("/etc/fuse.conf")
_LINGER = Path("/var/lib/systemd/linger")
_OTHERS = '[Service]\nEnvironment="MOUNT_OPTIONS=-o allow_other"\n'
_HARDENING = """\
# root mounts without fusermount3, so that these harm nothing. What implies a mount namespace
# (PrivateTmp=, ProtectSystem= and the like) would hide the mount from everybody else.
NoNewPrivileges=yes
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
SystemCallArchitectures=native"""
_NO_HARDENING = """\
# In a user unit nothing that implies NoNewPrivileges= or a mount namespace can be used
# (PrivateTmp=, ProtectSystem=, SystemCallFilter=, RestrictNamespaces= and the like). The first
# takes from fusermount3, which is setuid, the right to mount; the second hides the mount from
# everybody else."""
_SHOWN = (
    "LoadState", "UnitFileState", "ActiveState", "SubState", "Result", "MainPID", "NRestarts",
    "StatusText", "ActiveEnterTimestamp",
)  # fmt: skip


@dataclass(frozen=True)
class Manager:
    """One systemd, and where it has its units and vaults. `%h` and `%i` are systemd's."""

    home: Path
    """What `%h` stands for."""
    units: Path
    vault: str
    point: str
    scope: tuple[str, ...]
    """What systemctl must be told to reach it."""
    placeholders: dict[str, str]

    @property
    def option(self) -> str:
        """What `scopefs service ...` must be told to mean it, with a blank before it."""
        return "" if self.scope else " --system"

    def vault_path(self, name: str) -> Path:
        """The directory of a named vault."""
        return self._expand(self.vault, name)

    def mountpoint(self, name: str) -> Path:
        """Where a named vault is mounted."""
        return self._expand(self.point, name)

    def systemctl(self, *arguments: str) -> list[str]:
        """A command for it."""
        return ["systemctl", *self.scope, *arguments]

    def render(self, file: str) -> str:
        """The text of one of `UNIT_FILES`."""
        template = (files("scopefs") / "units" / f"{file}.in").read_text(encoding="utf-8")
        values = {
            "VAULT": self.vault, "POINT": self.point, "PROGRAM": program(),
            "SCOPE": "".join(f" {word}" for word in self.scope), **self.placeholders,
        }  # fmt: skip
        text = _PLACEHOLDER.sub(lambda match: values[match.group(1)], template)
        return re.sub(r"\n{3,}", "\n\n", text)

    def instances(self) -> list[str]:
        """The names of the vaults that are mounted at its start."""
        found = self.units.glob("*.wants/scopefs@*.service")
        return sorted({path.name[len("scopefs@") : -len(".service")] for path in found})

    def _expand(self, text: str, name: str) -> Path:
        values = {"%h": str(self.home), "%i": name, "%%": "%"}
        return Path(re.sub(r"%[hi%]", lambda match: values[match.group()], text))


@dataclass(frozen=True)
class Write:
    """Write a file."""

    path: Path
    text: str


@dataclass(frozen=True)
class Remove:
    """Remove a file, and its directory if that is empty then."""

    path: Path


@dataclass(frozen=True)
class Run:
    """Run a program."""

    command: list[str]


@dataclass
class Plan:
    """What is to be done, in order, and what to tell."""

    steps: list[Write | Remove | Run] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def find_manager(*, system: bool) -> Manager:
    """The systemd of this user, or of the machine."""
    return _system_manager() if system else _user_manager()


def _user_manager() -> Manager:
    import platformdirs

    home = Path.home()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    # Where the other commands look, too.
    data = Path(platformdirs.user_data_dir("scopefs", appauthor=False))
    shown = f"%h/{data.relative_to(home)}" if data.is_relative_to(home) else _escape(data)
    return Manager(
        home, config / "systemd" / "user", f"{shown}/%i", "%h/%i", ("--user",),
        {"TARGET": "default.target", "OPTIONS": "", "UNIT": "", "HARDENING": _NO_HARDENING},
    )  # fmt: skip


def _system_manager() -> Manager:
    return Manager(
        Path("/root"), Path("/etc/systemd/system"), "/var/lib/scopefs/%i", "/mnt/%i", (),
        {"TARGET": "multi-user.target", "OPTIONS": "-o allow_other",
         "UNIT": "RequiresMountsFor=/var/lib/scopefs", "HARDENING": _HARDENING},
    )  # fmt: skip


def program() -> str:
    """How a unit calls this scopefs: by its script, or as a module of this Python."""
    python = Path(sys.executable)
    script = python.with_name("scopefs")
    if os.access(script, os.X_OK):
        return f'"{_escape(script)}"'
    return f'"{_escape(python)}" -m scopefs'


def _escape(path: Path) -> str:
    text = str(path)
    if '"' in text or "\\" in text or not text.isprintable():
        raise InvalidName(f"{path}: a unit file cannot name this path")
    return text.replace("%", "%%")


def plan_install(
    manager: Manager, name: str, *, allow_other: bool = False, linger: bool = False
) -> Plan:
    """Write the unit files, mount the vault now and at every start, check it every week.

    Raises `MountRefused` for a mount point that holds something, and for what fuse.conf forbids.
    """
    point = manager.mountpoint(name)
    _check_point(point)
    plan = Plan()
    plan.steps += [Write(manager.units / file, manager.render(file)) for file in UNIT_FILES]
    if allow_other and manager.scope:
        if os.geteuid() != 0 and not allows_other():
            raise MountRefused(
                f"--allow-other: {_FUSE_CONF} does not allow it: have root put a line with "
                "user_allow_other there, then try again"
            )
        plan.steps.append(Write(_drop_ins(manager, name) / OTHERS_DROP_IN, _OTHERS))
    plan.steps.append(Run(manager.systemctl("daemon-reload")))
    plan.steps.append(Run(manager.systemctl("enable", *_unit_names(name))))
    # What runs already is another scopefs after an upgrade, and has other options.
    plan.steps.append(Run(manager.systemctl("restart", *_unit_names(name))))
    if linger and manager.scope:
        plan.steps.append(Run(["loginctl", "enable-linger"]))
    plan.notes = [
        f"the vault {manager.vault_path(name)} is mounted at {point}, now and at every "
        + ("login" if manager.scope else "boot"),
        f"it is checked once a week: `scopefs service status{manager.option}` says how that went",
        *(
            f"{other} goes on as it was; after an upgrade: "
            f"`scopefs service install{manager.option} {other}`"
            for other in manager.instances()
            if other != name
        ),
        *(_user_notes(allow_other, linger) if manager.scope else _system_notes(name, point)),
    ]
    return plan


def _user_notes(allow_other: bool, linger: bool) -> Iterator[str]:
    if linger or (_LINGER / _user_name()).exists():
        yield "you linger: it is mounted from boot on, and stays when you log out"
    else:
        yield (
            "it is unmounted when you log out for the last time; to have it from boot on: "
            "`scopefs service install --linger` (loginctl enable-linger)"
        )
    if allow_other:
        yield "other users may enter, as far as the permission bits of files allow"
    else:
        yield (
            "you alone may enter it, and root neither; for others: --allow-other, which needs a "
            f"line user_allow_other in {_FUSE_CONF} "
            f"({'it is there' if allows_other() else 'it is not there'})"
        )


def _system_notes(name: str, point: Path) -> Iterator[str]:
    yield (
        f"everything in {point} belongs to root. Other users may enter, and read what the "
        "permission bits allow: `chmod` says which. root alone can write"
    )
    yield (
        f"commands need to know the vault: `scopefs status --vault /var/lib/scopefs/{name}`, as "
        "root, or SCOPEFS_VAULT"
    )
    script = Path(sys.executable)
    if script.stat().st_uid != 0 or Path(__file__).stat().st_uid != 0:
        yield (
            f"root will run {script} with {Path(__file__).parents[1]}, which belong to another "
            "user: who can write there becomes root. Better install scopefs as root"
        )


def plan_remove(manager: Manager, name: str) -> Plan:
    """Unmount the vault and forget its units; the vault stays.

    The unit files go with the last vault. Raises `NotFound` if there is no unit of that name.
    """
    others = [found for found in manager.instances() if found != name]
    drop_in = _drop_ins(manager, name) / OTHERS_DROP_IN
    written = [manager.units / file for file in UNIT_FILES if (manager.units / file).exists()]
    if not written:
        raise NotFound(
            f"no unit of scopefs is in {manager.units}: `scopefs service install{manager.option}` "
            "first"
        )
    if name not in manager.instances() and others:
        raise NotFound(f"{name} is not installed; installed: {', '.join(others)}")
    plan = Plan([Run(manager.systemctl("disable", "--now", *_unit_names(name)))])
    if drop_in.exists():
        plan.steps.append(Remove(drop_in))
    if not others:
        plan.steps += [Remove(path) for path in written]
    plan.steps.append(Run(manager.systemctl("daemon-reload")))
    vault = manager.vault_path(name)
    plan.notes = [
        f"the vault stays as it is, in {vault}: `scopefs mount --vault {vault}` shows it again",
    ]
    if others:
        plan.notes.append(f"the unit files stay for: {', '.join(others)}")
    return plan


def apply_plan(plan: Plan) -> None:
    """Do it. Raises `Unavailable` for a program that fails, and `OSError`."""
    for step in plan.steps:
        match step:
            case Write(path, text):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            case Remove(path):
                path.unlink(missing_ok=True)
                if path.parent.name.endswith(".d") and not os.listdir(path.parent):
                    path.parent.rmdir()
            case Run(command):
                run(command)


def run(command: Sequence[str]) -> str:
    """Run a program; what it prints. Raises `Unavailable`."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Unavailable(f"{command[0]} is missing: does systemd run this machine?") from error
    if done.returncode:
        text = done.stderr.strip() or f"exit code {done.returncode}"
        hint = ""
        if "bus" in text:
            hint = (
                "; systemd cannot be reached from here: log in as this user (su does not), or use "
                "--system as root"
            )
        raise Unavailable(f"`{' '.join(command)}` failed: {text}{hint}")
    return done.stdout


def allows_other() -> bool:
    """Whether fuse.conf lets every user mount for others."""
    try:
        lines = _FUSE_CONF.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.strip() == "user_allow_other" for line in lines)


def _check_point(point: Path) -> None:
    """Refuse a directory that holds something; what is mounted there is taken over."""
    from scopefs.mount.point import find_mounts

    if point in find_mounts():
        return
    try:
        is_used = bool(os.listdir(point))
    except FileNotFoundError:
        return
    except NotADirectoryError:
        is_used = True
    if is_used:
        raise MountRefused(
            f"{point} is not an empty directory: move what is there, or choose another NAME"
        )


def _unit_names(name: str) -> tuple[str, str]:
    return f"scopefs@{name}.service", f"scopefs-verify@{name}.timer"


def _drop_ins(manager: Manager, name: str) -> Path:
    return manager.units / f"scopefs@{name}.service.d"


def _user_name() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def _check_name(_context: object, _parameter: object, value: str | None) -> str | None:
    if value is not None and not _NAME.match(value):
        raise click.BadParameter(
            f"{value!r}: a name is made of letters, digits, _ and -, and names the directory"
        )
    return value


_system_option = click.option(
    "--system", is_flag=True, help="For servers: the machine's systemd, root's vault at /mnt/NAME."
)
_dry_run_option = click.option(
    "-n", "--dry-run", is_flag=True, help="Print what would be written and run."
)


@click.group("service")
def command() -> None:
    """Let systemd mount a vault at login, or at boot.

    The vault NAME (`vault`, unless told) is ~/.local/share/scopefs/NAME, mounted at ~/NAME. With
    --system it is /var/lib/scopefs/NAME, mounted at /mnt/NAME. A mount that crashes or hangs is
    started again, and the vault is checked once a week. A vault that is elsewhere (--vault DIR of
    the other commands) needs a symbolic link with its NAME there.

    \b
    Example:
        scopefs service install --dry-run
        scopefs service install
        scopefs service status
        scopefs service remove
    """


@command.command("install")
@click.argument("name", default="vault", callback=_check_name)
@_system_option
@click.option("--allow-other", is_flag=True, help="Other users may enter, too.")
@click.option("--linger", is_flag=True, help="From boot on, without a login (loginctl).")
@_dry_run_option
def install_command(
    name: str, system: bool, allow_other: bool, linger: bool, dry_run: bool
) -> None:  # fmt: skip
    """Write the units, mount the vault, and do so from now on.

    Again after an upgrade, or if scopefs has moved: it writes the units anew, and mounts anew with
    this scopefs. Who is writing then has 10 s to close the file.

    \b
    Example:
        scopefs service install
        scopefs service install photos --linger
        sudo scopefs service install --system
    """
    _check_root(system, dry_run)
    manager = find_manager(system=system)
    _carry_out(plan_install(manager, name, allow_other=allow_other, linger=linger), dry_run)


@command.command("remove")
@click.argument("name", default="vault", callback=_check_name)
@_system_option
@_dry_run_option
def remove_command(name: str, system: bool, dry_run: bool) -> None:
    """Unmount the vault, and mount it no more. The vault itself stays.

    \b
    Example:
        scopefs service remove
        scopefs service remove photos --dry-run
    """
    _check_root(system, dry_run)
    _carry_out(plan_remove(find_manager(system=system), name), dry_run)


@command.command("status")
@click.argument("name", required=False, callback=_check_name)
@_system_option
@json_option
def status_command(name: str | None, system: bool, as_json: bool) -> None:
    """Show what systemd knows: of the vault NAME, or of all that are installed.

    \b
    Example:
        scopefs service status
        scopefs service status photos --json
    """
    manager = find_manager(system=system)
    names = [name] if name is not None else manager.instances()
    found = [describe_instance(manager, each) for each in names]
    if as_json:
        print_json(found)
        return
    if not found:
        start = "login" if manager.scope else "boot"
        click.echo(
            f"nothing is installed: `scopefs service install{manager.option}` mounts a vault at "
            f"{start}"
        )
    for number, members in enumerate(found):
        if number:
            click.echo()
        print_rows(_status_rows(members))


def describe_instance(manager: Manager, name: str) -> dict[str, Any]:
    """What systemd knows about a vault's units. Raises `NotFound` if it knows no such unit."""
    mount, _ = _unit_names(name)
    shown = _show(manager, mount, *_SHOWN)
    if shown["LoadState"] == "not-found":
        raise NotFound(
            f"{mount} is not installed: `scopefs service install{manager.option} {name}`"
        )
    check = _show(manager, f"scopefs-verify@{name}.service", "Result", "ExecMainExitTimestamp")
    ended = check["ExecMainExitTimestamp"]
    times = ("NextElapseUSecRealtime", "LastTriggerUSec")
    timer = _show(manager, f"scopefs-verify@{name}.timer", "ActiveState", *times)
    linger = not manager.scope or (_LINGER / _user_name()).exists()
    return {
        "name": name, "unit": mount, "vault": str(manager.vault_path(name)),
        "mountpoint": str(manager.mountpoint(name)), "enabled": shown["UnitFileState"] == "enabled",
        "state": shown["ActiveState"], "subState": shown["SubState"], "result": shown["Result"],
        "pid": int(shown["MainPID"]) or None, "restarts": int(shown["NRestarts"]),
        "text": shown["StatusText"], "since": shown["ActiveEnterTimestamp"] or None,
        "fromBoot": linger,
        "check": {"enabled": timer["ActiveState"] == "active",
                  "last": ended or timer["LastTriggerUSec"] or None,
                  "result": check["Result"] if ended else None,
                  "next": timer["NextElapseUSecRealtime"] or None},
    }  # fmt: skip


def _show(manager: Manager, unit: str, *properties: str) -> dict[str, str]:
    printed = run(manager.systemctl("show", f"--property={','.join(properties)}", unit))
    lines = (line.partition("=") for line in printed.splitlines())
    return {**dict.fromkeys(properties, ""), **{key: value for key, _, value in lines}}


def _status_rows(members: dict[str, Any]) -> Iterator[tuple[str, str]]:
    check = members["check"]
    since = f" since {members['since']}" if members["since"] else ""
    yield "unit", members["unit"]
    yield "vault", members["vault"]
    yield "mount point", members["mountpoint"]
    yield "state", f"{members['state']} ({members['subState']}){since}"
    if members["result"] != "success":
        yield "last end", members["result"]
    if members["text"]:
        yield "says", members["text"]
    if members["pid"]:
        yield "process", str(members["pid"])
    yield "restarts", str(members["restarts"])
    yield "begins", (
        "by hand only" if not members["enabled"]
        else "at boot" if members["fromBoot"] else "at login"
    )  # fmt: skip
    last = f"{check['result'] or 'began'}, {check['last']}"
    yield "last check", last if check["last"] else "none yet"
    yield "next check", check["next"] or ("soon" if check["enabled"] else "none")


def _check_root(system: bool, dry_run: bool) -> None:
    if system and not dry_run and os.geteuid() != 0:
        raise Forbidden("--system changes the machine: run this as root, for instance with sudo")


def _carry_out(plan: Plan, dry_run: bool) -> None:
    if dry_run:
        for step in plan.steps:
            match step:
                case Write(path, text):
                    click.echo(f"write {path}\n{_indent(text)}")
                case Remove(path):
                    click.echo(f"remove {path}")
                case Run(command_line):
                    click.echo(f"run {' '.join(command_line)}")
        return
    apply_plan(plan)
    for note in plan.notes:
        click.echo(note)


def _indent(text: str) -> str:
    return "".join(f"    {line}\n" if line else "\n" for line in text.splitlines())
