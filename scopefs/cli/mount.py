"""scopefs mount"""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import platformdirs
from click.core import ParameterSource

from scopefs.cli.exits import to_exit_code
from scopefs.cli.mount_options import MountWords, parse_mount_options
from scopefs.cli.options import (
    absolute,
    configured_option,
    default_mountpoint,
    http_options,
    json_option,
    load_configured,
    log_options,
    print_json,
    vault_option,
)
from scopefs.errors import ScopefsError
from scopefs.store.config import Config, make_config

_READY_VARIABLE = "SCOPEFS_READY_FD"


@click.command("mount")
@vault_option
@click.argument("mountpoint", required=False, type=click.Path())
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground.")
@click.option("-o", "options", metavar="OPTIONS", multiple=True,
              help="Mount options, separated by commas, as in /etc/fstab: ro, uid=, gid=, umask=, "
              "and the options below (durability=relaxed,allow_other).")  # fmt: skip
@configured_option("mount.durability", "--durability", type=click.Choice(["strict", "relaxed"]),
                   help="relaxed: nothing waits for the disk; for bulk loads. A power cut may take "
                   "the last five seconds.")  # fmt: skip
@configured_option("mount.read_check", "--read-check/--no-read-check", default="always",
                   help="Compare what is read with its hash, always or (over 64 KiB) "
                   "never.")  # fmt: skip
@configured_option("mount.allow_other", "--allow-other/--no-allow-other", default="no",
                   help="Let other users enter.")  # fmt: skip
@configured_option("mount.versions", "--versions", type=click.Choice(["hidden", "inline"]),
                   help="inline: a scope's directory lists its versions, too.")  # fmt: skip
@configured_option("limits.max_file_bytes", "--max-file-bytes", type=click.IntRange(min=1),
                   metavar="BYTES", default="the disk's size",
                   help="The largest file.")  # fmt: skip
@configured_option("trash.keep_days", "--keep-days", type=click.FloatRange(0, 36_500),
                   metavar="DAYS", default="for ever",
                   help="Empty what is in the trash for longer.")  # fmt: skip
@configured_option("scratch.patterns", "--scratch", "scratch_patterns", metavar="PATTERN",
                   multiple=True, default="see docs/semantics.md, S8",
                   help="Names of files that make no versions; may be given again.")  # fmt: skip
@configured_option("mount.http", "--http", metavar="HOST:PORT", default="none",
                   help="Serve the HTTP door as well.")  # fmt: skip
@configured_option("http.hosts", "--http-host", "http_hosts", metavar="NAME", multiple=True,
                   default="none", help="A name under which the door may be reached.")  # fmt: skip
@configured_option("http.origins", "--http-origin", "http_origins", metavar="URL", multiple=True,
                   default="none", help="A web page that may use the door.")  # fmt: skip
@http_options
@log_options
@json_option
@click.option("--quiet", is_flag=True, hidden=True)
@click.option("--sloppy", is_flag=True, hidden=True)
@click.pass_context
def command(
    ctx: click.Context, /, vault_path: Path, mountpoint: str | None, foreground: bool,
    options: tuple[str, ...], as_json: bool, quiet: bool, sloppy: bool, **_flags: Any,
) -> None:  # fmt: skip
    """Mount a vault as a directory, making both if they are missing.

    Returns once the mount answers, and works on in the background. MOUNTPOINT defaults to ~/vault,
    for root to /mnt/vault. With `-o ro` nothing in the vault is written. What is not given here
    counts as it is configured: see `scopefs config show`.

    \b
    Example:
        scopefs mount --vault ~/archive ~/vault
        mkdir -p ~/vault/instagram/profile
        cp profile.json ~/vault/instagram/profile/
        scopefs umount ~/vault
    """
    words = parse_mount_options(options, sloppy=sloppy)
    config = _choose(ctx, words)
    point = absolute(mountpoint) if mountpoint else default_mountpoint()
    if config.mount.http is not None:
        from scopefs.cli.serve import parse_http

        parse_http(config.mount.http, config.mount.http_auth, config.mount.http_max_body)
    if foreground or _READY_VARIABLE in os.environ:
        _run(vault_path, point, config, words)
    else:
        _run_in_background(vault_path, point)
        if as_json:
            print_json({"vault": str(vault_path), "mountpoint": str(point)})
        elif not quiet:
            click.echo(f"mounted {vault_path} at {point}")


_FLAGS = {
    "durability": "mount.durability", "read_check": "mount.read_check",
    "allow_other": "mount.allow_other", "versions": "mount.versions",
    "max_file_bytes": "limits.max_file_bytes",
    "keep_days": "trash.keep_days", "scratch_patterns": "scratch.patterns", "http": "mount.http",
    "http_auth": "mount.http_auth", "http_max_body": "mount.http_max_body",
    "http_hosts": "http.hosts", "http_origins": "http.origins", "log_level": "log.level",
    "log_format": "log.format",
}  # fmt: skip
"""Parameters of the command, and which options they are."""


def _choose(ctx: click.Context, words: MountWords) -> Config:
    """All options, as they hold for this mount: `-o`, then flags, then what is configured."""
    settings = load_configured(ctx)
    chosen = {name: ctx.params[flag] for flag, name in _FLAGS.items()} | words.settings
    is_asked = ctx.get_parameter_source("http") is ParameterSource.COMMANDLINE
    if words.read_only and not is_asked and "mount.http" not in words.settings:
        # What is configured is for the mount that writes: both cannot have the address.
        chosen["mount.http"] = None
    return make_config(
        {name: replace(found, value=chosen.get(name, found.value))
         for name, found in settings.items()}
    )  # fmt: skip


def _run(vault_path: Path, point: Path, config: Config, words: MountWords) -> None:
    """Serve the mount in this process; tell whoever started it how that began."""
    from scopefs.cli.serve import parse_http
    from scopefs.daemon import MountOptions, run_mount
    from scopefs.logs import logging_to

    mount = config.mount
    address, door = (
        (None, None) if mount.http is None
        else parse_http(mount.http, mount.http_auth, mount.http_max_body)
    )  # fmt: skip
    ready_fd = os.environ.pop(_READY_VARIABLE, None)
    starter = _Starter(int(ready_fd)) if ready_fd is not None else None
    log = None
    if starter is not None:
        log = _find_log(point) if words.read_only else vault_path / "logs" / "scopefs.log"
    # The mount must not keep the directory busy that it was started in.
    os.chdir("/")
    try:
        with logging_to(log, config.log):
            run_mount(
                vault_path, point,
                MountOptions(
                    allow_other=mount.allow_other, durability=mount.durability, http=address,
                    http_options=door, check_reads=mount.read_check, read_only=words.read_only,
                    ownership=words.ownership(), for_kernel=tuple(words.for_kernel), config=config,
                ),
                starter.ready if starter is not None else lambda: None,
            )  # fmt: skip
    except (ScopefsError, OSError) as error:
        if starter is None or starter.is_told:
            raise
        starter.failed(error)
        sys.exit(to_exit_code(error))


def _find_log(point: Path) -> Path:
    """The log of a mount that writes nothing into its vault: where the user's logs are."""
    name = str(point).strip("/").replace("/", "-") or "root"
    directory = Path(platformdirs.user_log_dir("scopefs", appauthor=False))
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return Path(os.devnull)
    return directory / f"{name}.log" if os.access(directory, os.W_OK) else Path(os.devnull)


class _Starter:
    """The command that started this process in the background, and waits for its word."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.is_told = False
        os.set_inheritable(fd, False)

    def ready(self) -> None:
        self._tell({"ready": True})

    def failed(self, error: BaseException) -> None:
        from scopefs.cli import describe

        self._tell({"error": describe(error), "exit": to_exit_code(error)})

    def _tell(self, message: dict[str, object]) -> None:
        self.is_told = True
        try:
            os.write(self._fd, json.dumps(message).encode())
        except BrokenPipeError:
            return
        finally:
            os.close(self._fd)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (1, 2):
            os.dup2(null, fd)
        os.close(null)


def _run_in_background(vault_path: Path, point: Path) -> None:
    """Start the same command again, detached, and wait until it says how it went."""
    reading, writing = os.pipe()
    arguments = sys.argv[1:] if sys.argv[0] else []
    environment = {
        **os.environ, _READY_VARIABLE: str(writing), "SCOPEFS_VAULT": str(vault_path),
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "scopefs", *arguments], stdin=subprocess.DEVNULL,
        env=environment, pass_fds=(writing,), start_new_session=True,
    )  # fmt: skip
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as pipe:
            message = pipe.read()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGTERM)
        raise
    if not message:
        process.wait()
        raise click.ClickException(f"the mount at {point} ended before it began")
    answer = json.loads(message)
    if "error" in answer:
        process.wait()
        click.echo(f"scopefs: {answer['error']}", err=True)
        sys.exit(answer["exit"])
