"""scopefs umount"""

import time
from pathlib import Path

import click

from scopefs.cli.options import (
    absolute,
    default_mountpoint,
    json_option,
    print_json,
    vault_option,
)
from scopefs.errors import Unavailable

_SETTLE_PATIENCE_S = 120.0


@click.command("umount")
@vault_option
@click.argument("mountpoint", required=False, type=click.Path())
@click.option("-z", "--lazy", is_flag=True, help="Also if files are open: gone when they close.")
@json_option
def command(vault_path: Path, mountpoint: str | None, lazy: bool, as_json: bool) -> None:
    """Unmount a vault, and return once everything in it is settled.

    Without MOUNTPOINT: wherever the vault is mounted.

    \b
    Example:
        scopefs umount ~/vault
    """
    from scopefs.mount.point import find_holder, is_mounted, unmount
    from scopefs.store.layout import Layout

    holder = find_holder(Layout(vault_path))
    if mountpoint:
        point = absolute(mountpoint)
    elif holder is not None:
        point = Path(str(holder.get("mountpoint")))
    else:
        point = default_mountpoint()
    if not is_mounted(point):
        raise Unavailable(f"{point} is not mounted")
    process = _find_process(point)
    unmount(point, lazy=lazy)
    if not lazy:
        _wait_for_end(process)
    if as_json:
        print_json({"unmounted": str(point)})


def _find_process(point: Path) -> int | None:
    """The process that serves a mount, by what its control file says."""
    import json

    try:
        found = json.loads((point / ".scopefs" / "status.json").read_bytes())["pid"]
    except (OSError, ValueError, KeyError):
        return None
    return int(found)


def _wait_for_end(process: int | None) -> None:
    deadline = time.monotonic() + _SETTLE_PATIENCE_S
    while process is not None and Path(f"/proc/{process}").exists():
        if _is_zombie(process):
            return
        if time.monotonic() > deadline:
            raise Unavailable(f"process {process} is still settling the vault")
        time.sleep(0.01)


def _is_zombie(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
