"""scopefs mount"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from scopefs.cli.exits import to_exit_code
from scopefs.cli.options import (
    absolute,
    default_mountpoint,
    http_options,
    json_option,
    print_json,
    vault_option,
)
from scopefs.errors import InvalidQuery, ScopefsError

_READY_VARIABLE = "SCOPEFS_READY_FD"


@click.command("mount")
@vault_option
@click.argument("mountpoint", required=False, type=click.Path())
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground.")
@click.option("-o", "options", metavar="OPTIONS", multiple=True,
              help="Mount options, separated by commas: allow_other.")  # fmt: skip
@click.option("--durability", type=click.Choice(["strict", "relaxed"]), default="strict",
              show_default=True, help="relaxed: nothing waits for the disk; for bulk loads. A "
              "power cut may take the last five seconds.")  # fmt: skip
@click.option("--read-check/--no-read-check", "check_reads", default=True,
              help="Compare what is read with its hash, always or (over 64 KiB) never.  "
              "[default: always]")  # fmt: skip
@click.option("--max-file-bytes", type=click.IntRange(min=1), metavar="BYTES",
              help="The largest file.  [default: config.toml's, else the disk's size]")  # fmt: skip
@click.option("--http", metavar="HOST:PORT", help="Serve the HTTP door as well.")
@http_options
@json_option
def command(
    vault_path: Path, mountpoint: str | None, foreground: bool, options: tuple[str, ...],
    durability: str, check_reads: bool, max_file_bytes: int | None, http: str | None,
    http_auth: str, http_max_body: int, as_json: bool,
) -> None:  # fmt: skip
    """Mount a vault as a directory, making both if they are missing.

    Returns once the mount answers, and works on in the background. MOUNTPOINT defaults to ~/vault,
    for root to /mnt/vault.

    \b
    Example:
        scopefs mount --vault ~/archive ~/vault
        mkdir -p ~/vault/instagram/profile
        cp profile.json ~/vault/instagram/profile/
        scopefs umount ~/vault
    """
    point = absolute(mountpoint) if mountpoint else default_mountpoint()
    settings = {
        "allow_other": _parse_options(options), "durability": durability,
        "check_reads": check_reads, "max_file_bytes": max_file_bytes,
    }  # fmt: skip
    if http is not None:
        from scopefs.cli.serve import parse_http

        parse_http(http, http_auth, http_max_body)
    if foreground or _READY_VARIABLE in os.environ:
        _run(vault_path, point, http, (http_auth, http_max_body), settings)
    else:
        _run_in_background(vault_path, point)
        if as_json:
            print_json({"vault": str(vault_path), "mountpoint": str(point)})
        else:
            click.echo(f"mounted {vault_path} at {point}")


def _parse_options(options: tuple[str, ...]) -> bool:
    allow_other = False
    for option in ",".join(options).split(",") if options else ():
        if option == "allow_other":
            allow_other = True
        elif option not in ("", "rw", "nosuid", "nodev"):
            raise InvalidQuery(f"-o {option}: unknown mount option; known is allow_other")
    return allow_other


def _run(
    vault_path: Path, point: Path, http: str | None, http_settings: tuple[str, int],
    settings: dict[str, Any],
) -> None:  # fmt: skip
    """Serve the mount in this process; tell whoever started it how that began.

    `settings`: further members of `MountOptions`.
    """
    from scopefs.cli.serve import parse_http
    from scopefs.daemon import MountOptions, logging_to, run_mount

    address, door = parse_http(http, *http_settings) if http is not None else (None, None)
    ready_fd = os.environ.pop(_READY_VARIABLE, None)
    starter = _Starter(int(ready_fd)) if ready_fd is not None else None
    log = vault_path / "logs" / "scopefs.log" if starter is not None else None
    # The mount must not keep the directory busy that it was started in.
    os.chdir("/")
    try:
        with logging_to(log):
            run_mount(
                vault_path, point, MountOptions(http=address, http_options=door, **settings),
                starter.ready if starter is not None else lambda: None,
            )  # fmt: skip
    except (ScopefsError, OSError) as error:
        if starter is None or starter.is_told:
            raise
        starter.failed(error)
        sys.exit(to_exit_code(error))


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
