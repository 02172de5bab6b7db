"""scopefs doctor: looks at the machine, the mounts and the vault, and says what to do

Nothing is changed but what every opening of a vault does: it finishes what a crash has left. Each
check is a generator of findings that must work without a vault and for every user. What may hang (a
dead mount, a vault that somebody holds) is asked in a thread, with a deadline. `scopefs verify` is
about the bytes in the vault, and is left alone here.
"""

import contextlib
import errno
import os
import platform
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import click

from scopefs.cli.options import (
    absolute,
    default_mountpoint,
    json_option,
    print_json,
    printable,
    vault_option,
)
from scopefs.cli.status import describe_age, describe_bytes, sum_trash
from scopefs.errors import ScopefsError

if TYPE_CHECKING:
    from scopefs.vault import Vault

T = TypeVar("T")
Level = Literal["ok", "note", "problem"]

FOUND_EXIT = 6
"""As `scopefs verify` has it."""

PATIENCE_S = 20.0
"""How long a mount or a vault may take to answer."""

UNSETTLED_AGE_S = 60.0
"""What was published is placed within seconds; what has waited longer does not move."""

_SETTLE_WAIT_S = 5.0
_LOW_BYTES = 256 << 20
_LOW_INODES = 1000
_LOW_SHARE = 0.02
_CLOCK_LEEWAY_US = 2_000_000
_COLOURS = {"ok": "green", "note": "cyan", "problem": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `what`: how it is. `do`: what to do; empty if nothing."""

    check: str
    level: Level
    what: str
    do: str = ""


@click.command("doctor")
@vault_option
@click.argument("mountpoint", required=False, type=click.Path())
@json_option
def command(vault_path: Path, mountpoint: str | None, as_json: bool) -> int:
    """Look for what is wrong around the vault, and say what to do about it.

    FUSE, permissions, versions, space, the file system, dead mounts, the clock, and whether the
    vault opens and its work goes on. Works without a vault, and for every user. Exit code 6 if
    there is a problem. `scopefs verify` reads what is in the vault.

    \b
    Example:
        scopefs doctor
        scopefs doctor --vault ~/archive ~/vault
        scopefs doctor --json
    """
    point = absolute(mountpoint) if mountpoint else None
    findings = []
    for finding in examine(vault_path, point):
        findings.append(finding)
        if not as_json:
            _print(finding)
    problems = sum(finding.level == "problem" for finding in findings)
    if as_json:
        print_json({
            "vault": str(vault_path), "problems": problems,
            "findings": [asdict(finding) for finding in findings],
        })  # fmt: skip
    else:
        click.echo(f"{problems} problem(s)" if problems else "nothing is wrong")
    return FOUND_EXIT if problems else 0


def _print(finding: Finding) -> None:
    # Colours are dropped by click.echo if this is no terminal.
    level = click.style(finding.level.ljust(7), fg=_COLOURS[finding.level])
    click.echo(f"{level}  {finding.check}: {printable(finding.what)}")
    if finding.do:
        click.echo(f"         {printable(finding.do)}")


def examine(vault_path: Path, point: Path | None) -> Iterator[Finding]:
    """All checks, in the order in which one is the cause of the next."""
    from scopefs.mount.point import find_holder
    from scopefs.store.layout import Layout

    yield check_versions()
    yield from check_device(Path("/dev/fuse"))
    yield from check_fusermount(shutil.which("fusermount3"), os.geteuid())
    yield from check_stale_mounts()
    layout = Layout(vault_path)
    holder = find_holder(layout)
    if holder is not None:
        yield Finding("mount", "ok", f"mounted at {holder.get('mountpoint')} by process "
                      f"{holder.get('pid')}")  # fmt: skip
    elif point is None:
        point = default_mountpoint()
    if point is not None:
        yield from check_mountpoint(point, vault_path)
    yield from check_file_system(vault_path)
    yield from check_space(vault_path)
    try:
        vault_path.lstat()
    except FileNotFoundError:
        yield Finding("vault", "note", f"there is no vault at {vault_path} yet",
                      f"`scopefs mount --vault {vault_path}` makes one")  # fmt: skip
        return
    except OSError as error:
        yield Finding("permissions", "problem", f"{vault_path}: {error.strerror}",
                      "use the vault as the user whose it is")  # fmt: skip
        return
    yield from check_permissions(vault_path, os.geteuid())
    yield from _check_opened(vault_path, holder)


def check_versions() -> Finding:
    """What runs here: the kernel, libfuse, pyfuse3, SQLite, Python, scopefs."""
    from importlib.metadata import PackageNotFoundError, version

    import apsw

    from scopefs import __version__

    try:
        pyfuse3 = version("pyfuse3")
    except PackageNotFoundError:
        pyfuse3 = "unknown"
    text = (
        f"scopefs {__version__}, Python {platform.python_version()}, Linux {platform.release()}, "
        f"libfuse {_libfuse_version()}, pyfuse3 {pyfuse3}, SQLite {apsw.sqlite_lib_version()}"
    )
    try:
        import pyfuse3 as _  # noqa: F401
    except ImportError as error:
        return Finding("versions", "problem", f"{text}; pyfuse3 cannot be loaded: {error}",
                       "install libfuse3, then `pip install --force-reinstall --no-cache-dir "
                       "pyfuse3`")  # fmt: skip
    return Finding("versions", "ok", text)


def _libfuse_version() -> str:
    try:
        done = subprocess.run(
            ["fusermount3", "--version"], capture_output=True, text=True, check=False
        )
    except OSError:
        return "unknown"
    return done.stdout.strip().rpartition(" ")[2] or "unknown"


def check_device(path: Path) -> Iterator[Finding]:
    """The door to FUSE is there, and may be opened."""
    if not path.exists():
        yield Finding("/dev/fuse", "problem", f"{path} is missing",
                      "load the module with `modprobe fuse` as root; a container needs "
                      "`--device /dev/fuse --cap-add SYS_ADMIN`")  # fmt: skip
    elif not os.access(path, os.R_OK | os.W_OK):
        yield Finding("/dev/fuse", "problem", f"you may not open {path}",
                      f"have root run `chmod 666 {path}`, as udev does everywhere")  # fmt: skip
    else:
        yield Finding("/dev/fuse", "ok", "there, and you may open it")


def check_fusermount(program: str | None, uid: int) -> Iterator[Finding]:
    """The program that mounts for users is there, and has root's rights."""
    if program is None:
        yield Finding("fusermount3", "problem", "is missing: nothing can be mounted or unmounted",
                      "install the package fuse3")  # fmt: skip
        return
    real = os.path.realpath(program)
    found = os.stat(real)
    if uid == 0:
        yield Finding("fusermount3", "ok", f"{program}; root needs it to unmount alone")
        return
    if not (found.st_mode & stat.S_ISUID and found.st_uid == 0):
        yield Finding("fusermount3", "problem", f"{real} is not setuid root: only root can mount",
                      f"have root run `chown root {real} && chmod u+s {real}`")  # fmt: skip
    elif os.statvfs(real).f_flag & os.ST_NOSUID:
        yield Finding("fusermount3", "problem", f"{real} is on a file system mounted with nosuid",
                      "have it mounted without nosuid, or mount as root")  # fmt: skip
    elif "NoNewPrivs:\t1" in Path("/proc/self/status").read_text(encoding="utf-8"):
        yield Finding("fusermount3", "problem", "this process may gain no rights (no-new-privs), "
                      "so that fusermount3 cannot mount",
                      "leave the sandbox or container, or mount as root")  # fmt: skip
    else:
        yield Finding("fusermount3", "ok", f"{program}, setuid root")


def check_stale_mounts() -> Iterator[Finding]:
    """Every mount of scopefs here answers."""
    from scopefs.mount.point import FILE_SYSTEM_NAME, find_mounts

    points = [point for point, kind in find_mounts().items() if kind == f"fuse.{FILE_SYSTEM_NAME}"]
    for point in points:
        yield from check_answer(point, PATIENCE_S)


def check_answer(point: Path, patience_s: float) -> Iterator[Finding]:
    """A mount answers in time."""
    try:
        # stat(2) may be answered from the kernel's cache.
        _ask(lambda: os.statvfs(point), patience_s)
    except TimeoutError:
        yield Finding("mounts", "problem", f"{point} does not answer in {patience_s:.0f} s",
                      "its process hangs: end it with `kill -9` (`scopefs status` and `fuser -vm` "
                      "name it); what was acknowledged is safe")  # fmt: skip
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.ECONNABORTED):
            yield Finding("mounts", "problem", f"{point} is dead: its process is gone",
                          f"`scopefs mount` there takes its place; `fusermount3 -uz {point}` only "
                          "clears it away")  # fmt: skip
        elif error.errno == errno.EACCES:
            yield Finding("mounts", "ok", f"{point} belongs to another user")
        else:
            yield Finding("mounts", "problem", f"{point} answers: {error.strerror}",
                          "its cause is below, or in the vault's logs/scopefs.log")  # fmt: skip
    else:
        yield Finding("mounts", "ok", f"{point} answers")


def check_mountpoint(point: Path, vault: Path) -> Iterator[Finding]:
    """A vault could be mounted there, or is."""
    from scopefs.mount.point import find_mounts, is_mounted

    check = "mount point"
    if is_mounted(point):
        # Whether it answers is told of each mount.
        return
    if point in find_mounts():
        yield Finding(check, "problem", f"something else is mounted at {point}",
                      "unmount that, or name another place")  # fmt: skip
        return
    if point == vault or point in vault.parents or vault in point.parents:
        yield Finding(check, "problem", f"{point} and the vault {vault} lie in each other",
                      "name a mount point apart from the vault")  # fmt: skip
        return
    try:
        entries = os.listdir(point)
    except FileNotFoundError:
        parent = _nearest(point)
        if os.access(parent, os.W_OK | os.X_OK):
            yield Finding(check, "ok", f"{point} is not there yet; mounting makes it")
        else:
            yield Finding(check, "problem", f"{point} is missing, and you may not make it",
                          f"have root run `install -d -o {os.geteuid()} {point}`")  # fmt: skip
        return
    except OSError as error:
        yield Finding(check, "problem", f"{point}: {error.strerror}",
                      "name a directory of yours, or a missing one")  # fmt: skip
        return
    if entries:
        yield Finding(check, "problem", f"{point} is not empty: a mount would hide what is there",
                      "move that elsewhere, or name another place")  # fmt: skip
    elif os.geteuid() != 0 and (
        point.stat().st_uid != os.geteuid() or not os.access(point, os.W_OK)
    ):
        yield Finding(check, "problem", f"{point} is not yours to write: fusermount3 refuses it",
                      f"have root run `chown {os.geteuid()} {point}`")  # fmt: skip
    else:
        yield Finding(check, "ok", f"{point} is empty, and yours")


def check_file_system(vault: Path, table: str | None = None) -> Iterator[Finding]:
    """The file system below the vault guarantees what a vault needs. `table`: as in mountinfo."""
    from scopefs.store.backing import find_backing

    backing = find_backing(vault, table)
    for warning in backing.warnings:
        yield Finding("file system", "problem", f"{backing.type} at {backing.mountpoint} {warning}",
                      "move the vault to a local disk (ext4, xfs, btrfs), unmounted: "
                      "`rsync -a`")  # fmt: skip
    if not backing.warnings:
        yield Finding("file system", "ok", f"{backing.type} at {backing.mountpoint}")


def check_space(vault: Path) -> Iterator[Finding]:
    """There is room for more, in bytes and in files."""
    yield from judge_space(os.statvfs(_nearest(vault)))


def judge_space(found: os.statvfs_result) -> Iterator[Finding]:
    """What `statvfs` has said, judged; some file systems count no inodes."""
    free, total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    text = f"{describe_bytes(free)} of {describe_bytes(total)} are free"
    low = free < _LOW_BYTES or (total and free / total < _LOW_SHARE)
    yield Finding(
        "space", "problem" if low else "ok", text,
        "make room: `scopefs trash empty`, `scopefs partial list`, or a larger disk" if low else "",
    )  # fmt: skip
    if found.f_files:
        low = found.f_favail < _LOW_INODES or found.f_favail / found.f_files < _LOW_SHARE
        yield Finding(
            "inodes", "problem" if low else "ok",
            f"{found.f_favail} of {found.f_files} are free",
            "each version is a file: remove others, or use a disk with more inodes" if low else "",
        )  # fmt: skip


def check_permissions(vault: Path, uid: int) -> Iterator[Finding]:
    """The vault is its user's, and nobody else can look into it."""
    check = "permissions"
    is_well = True
    for path in (vault, *(vault / name for name in ("data", "blobs", "index.db", "vault.json"))):
        try:
            found = path.stat()
        except FileNotFoundError:
            continue
        except OSError as error:
            is_well = False
            yield Finding(check, "problem", f"{path}: {error.strerror}",
                          "use the vault as the user whose it is")  # fmt: skip
            return
        if found.st_uid != uid:
            is_well = False
            yield Finding(check, "problem", f"{path} belongs to user {found.st_uid}, you are {uid}",
                          f"use the vault as that user; or, if it is to be yours: have root run "
                          f"`chown -R {uid} {vault}`")  # fmt: skip
            return
        if path == vault and found.st_mode & 0o077:
            is_well = False
            yield Finding(check, "problem", f"other users may look into {path} "
                          f"(mode {found.st_mode & 0o777:o})", f"`chmod 700 {path}`")  # fmt: skip
        if not os.access(path, os.R_OK | os.W_OK):
            is_well = False
            yield Finding(check, "problem", f"you may not read and write {path}",
                          f"`chmod u+rwX {path}`; is its disk mounted read-only?")  # fmt: skip
    if is_well:
        yield Finding(check, "ok", f"{vault} is yours alone")


def _check_opened(path: Path, holder: dict[str, object] | None) -> Iterator[Finding]:
    from scopefs.vault import Vault

    try:
        vault = _ask(lambda: Vault.open(path), PATIENCE_S)
    except TimeoutError:
        who = f"process {holder.get('pid')}, which has it mounted," if holder else "somebody"
        yield Finding("vault", "problem", f"{path} does not open in {PATIENCE_S:.0f} s: {who} "
                      "holds what is needed for it",
                      "if that is stopped or hangs, end it; a reindex is to be waited "
                      "for")  # fmt: skip
        return
    except (ScopefsError, OSError) as error:
        from scopefs.cli import describe

        yield Finding("vault", "problem", f"{path} does not open", describe(error))
        return
    try:
        yield Finding("vault", "ok", f"{path} opens")
        yield from check_clock(vault, time.time_ns() // 1000)
        yield from check_unsettled(vault, time.time_ns() // 1000)
        yield from check_leftovers(vault)
    finally:
        # Closing settles, and may wait for somebody who hangs.
        with contextlib.suppress(TimeoutError):
            _ask(vault.close, PATIENCE_S)


def check_clock(vault: "Vault", now_us: int) -> Iterator[Finding]:
    """The clock is not behind what was already written."""
    from scopefs.model.stamps import format_collected_at
    from scopefs.store.sql import fetch

    with vault.read() as db:
        event_us = fetch(db, "SELECT at_us FROM events ORDER BY seq DESC LIMIT 1")
        newest_us, ahead = fetch(
            db,
            "SELECT MAX(collected_us), COUNT(*) FROM data_files"
            " WHERE deleted_seq IS NULL AND collected_us > ?",
            (now_us + _CLOCK_LEEWAY_US,),
        )[0]
    advice = "set the clock (`timedatectl set-ntp true`); versions keep their order in any case"
    is_well = True
    if event_us and event_us[0][0] > now_us + _CLOCK_LEEWAY_US:
        is_well = False
        yield Finding("clock", "problem", f"it says {format_collected_at(now_us)}, and is behind "
                      f"the newest event, {format_collected_at(event_us[0][0])}",
                      advice)  # fmt: skip
    if ahead:
        is_well = False
        yield Finding("clock", "problem", f"{ahead} version(s) have stamps in the future, the last "
                      f"{format_collected_at(newest_us)}",
                      f"if it is the clock: {advice}")  # fmt: skip
    if is_well:
        yield Finding("clock", "ok", f"{format_collected_at(now_us)}, and nothing is later")


def check_unsettled(
    vault: "Vault", now_us: int, *, wait_s: float = _SETTLE_WAIT_S
) -> Iterator[Finding]:
    """What was published is being placed. Waits a little for what has waited too long already."""
    old_us = now_us - int(UNSETTLED_AGE_S * 1e6)
    deadline = time.monotonic() + wait_s
    while (found := _count_unsettled(vault, old_us)) and time.monotonic() < deadline:
        time.sleep(0.1)
    if found:
        yield Finding("unsettled", "problem", f"{found} version(s) have waited for more than "
                      f"{UNSETTLED_AGE_S:.0f} s to be placed in the vault's directories; they are "
                      "safe in index.db",
                      "`scopefs settle` says why; then space, permissions and "
                      "logs/scopefs.log")  # fmt: skip
    else:
        yield Finding("unsettled", "ok", "what was published is placed in time")


def _count_unsettled(vault: "Vault", before_us: int) -> int:
    from scopefs.store.sql import fetch

    with vault.read() as db:
        rows = fetch(
            db, "SELECT COUNT(*) FROM staged WHERE version IS NOT NULL AND at_us < ?", (before_us,)
        )
    return int(rows[0][0])


def check_leftovers(vault: "Vault") -> Iterator[Finding]:
    """How much lies in partial/ and trash/."""
    stories = vault.partial()
    size = sum(int(story["sizeBytes"]) for story in stories)
    if stories:
        yield Finding("partial", "note", f"{len(stories)} interrupted write(s), "
                      f"{describe_bytes(size)}, the first {_age(stories[0].get('at'))}",
                      "`scopefs partial list` shows them, `accept` and `drop` end "
                      "them")  # fmt: skip
    else:
        yield Finding("partial", "ok", "no interrupted writes")
    removals, size = sum_trash(vault)
    if removals:
        yield Finding("trash", "note", f"{removals} removal(s), {describe_bytes(size)}",
                      "`scopefs trash empty --older-than 30d` makes room; keep_days in config.toml "
                      "does so by itself")  # fmt: skip
    else:
        yield Finding("trash", "ok", "is empty")


def _nearest(path: Path) -> Path:
    """The path itself, or what is there of its parents and can be looked at."""
    return next(each for each in (path, *path.parents) if os.path.exists(each))


def _age(at: object) -> str:
    return describe_age(at, time.time_ns() // 1000) if isinstance(at, str) else "at some time"


def _ask(question: Callable[[], T], patience_s: float) -> T:
    """The answer, or what it raises; `TimeoutError` if none comes in time."""
    answers: list[T] = []
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            answers.append(question())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(patience_s)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError
    return answers[0]
