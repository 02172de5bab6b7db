"""scopefs status: what the vault holds, and what its mount does

What the vault holds is read from the vault; what a mount does, from its `.scopefs/status.json`.
People get sizes and ages, JSON gets bytes and ISO times. On a terminal long lines are broken beside
their titles, and what needs a look is coloured.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scopefs import __version__
from scopefs.cli.options import (
    json_option,
    name_members,
    name_text,
    open_to_read,
    print_json,
    print_rows,
    printable,
    vault_option,
)
from scopefs.errors import InvalidTime
from scopefs.model.stamps import parse_collected_at

if TYPE_CHECKING:
    from scopefs.vault import Vault

_LAST_WRITES = 5
_PAGE = 500
_NEWEST_ID = 1 << 62
_MOUNT_PATIENCE_S = 5.0
_UNITS = ((86_400, "day"), (3600, "hour"), (60, "minute"))
_RUNNING = (
    "version", "startedAt", "openFiles", "openSessions", "publishing", "errors", "refused",
)  # fmt: skip
"""What only the mount knows: members of status.json."""


@click.command("status")
@vault_option
@json_option
def command(vault_path: Path, as_json: bool) -> None:
    """Show what the vault holds, what its mount does, and what was refused lately.

    \b
    Example:
        scopefs status
        scopefs status --json
    """
    from scopefs.mount.point import find_holder, find_mounts_of

    with open_to_read(vault_path) as vault:
        found = vault.status()
        holder = find_holder(vault.layout)
        log = vault.layout.logs / "rejected.jsonl"
        lines = log.read_bytes().splitlines() if log.exists() else []
        last_writes = list_last_writes(vault)
        partial_bytes = sum(int(story["sizeBytes"]) for story in vault.partial())
        removals, trash_bytes = sum_trash(vault)
        disk = os.statvfs(vault.layout.root)
        places = find_mounts_of(vault.layout.root)
    running = read_running(holder, _MOUNT_PATIENCE_S) if holder is not None else None
    if running is not None:
        # The mount's own, not that of this command.
        found["durability"] = running.get("durability", found["durability"])
    found["mount"] = holder
    found["readOnlyMounts"] = [str(place) for place, read_only in places.items() if read_only]
    held = None if holder is None else holder.get("mountpoint")
    found["deadMounts"] = [
        str(place) for place, read_only in places.items() if not read_only and str(place) != held
    ]
    found["refusals"] = len(lines)
    found["lastRefusal"] = json.loads(lines[-1]) if lines else None
    found["lastWrites"] = last_writes
    found["partialBytes"] = partial_bytes
    found["trash"] = {"removals": removals, "payloadBytes": trash_bytes}
    found["freeBytes"] = disk.f_bavail * disk.f_frsize
    found["running"] = None if running is None else {key: running.get(key) for key in _RUNNING}
    if as_json:
        print_json(found)
    else:
        _print(found, time.time_ns() // 1000)


def list_last_writes(vault: "Vault") -> list[dict[str, Any]]:
    """The versions that were published last, newest first."""
    from scopefs.store.index import list_before

    with vault.read() as db:
        versions = list_before(db, _NEWEST_ID, _LAST_WRITES)
    return [
        {"scope": version.scope, "collectedAt": version.collected_at, **name_members(version.name),
         "sizeBytes": version.payload_size, "writer": version.writer}
        for version in versions
    ]  # fmt: skip


def sum_trash(vault: "Vault") -> tuple[int, int]:
    """Removals in the trash, and the bytes of what they removed."""
    removals = size = 0
    before: int | None = None
    while page := vault.trash(before=before, limit=_PAGE):
        removals += len(page)
        size += sum(entry.payload_bytes for entry in page)
        before = page[-1].id
    return removals, size


def read_running(holder: dict[str, object], patience_s: float) -> dict[str, Any] | None:
    """What the mount says of itself; None if it does not answer in time."""
    path = Path(str(holder.get("mountpoint"))) / ".scopefs" / "status.json"
    found: list[dict[str, Any]] = []

    def read() -> None:
        try:
            content = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return
        if isinstance(content, dict) and content.get("pid") == holder.get("pid"):
            found.append(content)

    # A mount that hangs must not take this command with it.
    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(patience_s)
    return found[0] if found else None


def describe_bytes(size: int) -> str:
    """`1 byte`, `23 bytes`, `1.5 MiB`."""
    if size < 1024:
        return f"{size} byte{'' if size == 1 else 's'}"
    value = float(size)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1023.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} PiB"


def describe_age(collected_at: str | None, now_us: int) -> str:
    """`2 hours ago`; a time that is not yet is `in the future`, one long ago its date."""
    if collected_at is None:
        return "-"
    try:
        age_s = (now_us - parse_collected_at(collected_at)) // 1_000_000
    except InvalidTime:
        return collected_at
    if age_s < -2:
        return f"in the future, {collected_at}"
    if age_s < 60:
        return "just now" if age_s < 5 else f"{age_s} seconds ago"
    if age_s >= 60 * 86_400:
        return f"on {collected_at[:10]}"
    seconds, word = next(unit for unit in _UNITS if age_s >= unit[0])
    count = age_s // seconds
    return f"{count} {word}{'' if count == 1 else 's'} ago"


def _print(found: dict[str, Any], now_us: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = [(title, printable(text), colour) for title, text, colour in _rows(found, now_us)]
    if not sys.stdout.isatty():
        print_rows((title, text) for title, text, _ in rows)
        return
    grid = Table.grid("", "", padding=(0, 2))
    grid.columns[0].no_wrap = True
    for title, text, colour in rows:
        grid.add_row(Text(title), Text(text, style=colour or "", overflow="fold"))
    Console(highlight=False, soft_wrap=False).print(grid)


def _rows(found: dict[str, Any], now_us: int) -> Iterator[tuple[str, str, str | None]]:
    """Title, text and colour of each line."""
    holder, running, backing = found["mount"], found["running"], found["fileSystem"]
    yield "vault", found["vault"], None
    if found.get("readOnly"):
        yield "", "it cannot be written; it is only looked at", "yellow"
    if holder is None:
        yield "mounted", "no", None
    else:
        yield "mounted", f"{holder['mountpoint']} (process {holder['pid']})", "green"
    if running is not None and running["startedAt"]:
        yield "", f"since {describe_age(running['startedAt'], now_us).removeprefix('on ')}", None
    elif holder is not None and running is None:
        yield "", "it does not tell how it is: `scopefs doctor` looks why", "red"
    if running is not None and running["version"] not in (None, __version__):
        yield (
            "",
            f"by scopefs {running['version']}, and this is {__version__}: unmount, and mount again",
            "yellow",
        )
    for place in found["readOnlyMounts"]:
        yield "", f"{place}, only to be read", None
    for place in found["deadMounts"]:
        yield "", f"{place} is dead, its process is gone: `scopefs mount {place}`", "red"
    yield "file system", f"{backing['type']} at {backing['mountpoint']}", None
    for warning in backing["warnings"]:
        yield "", f"{backing['type']} {warning}", "yellow"
    yield "free", describe_bytes(found["freeBytes"]), None
    yield "scopes", str(found["scopes"]), None
    yield "versions", f"{found['versions']} ({describe_bytes(found['payloadBytes'])})", None
    for number, write in enumerate(found["lastWrites"]):
        yield "" if number else "last writes", _write_text(write, now_us), None
    yield "rate", rate_text(found["rate"]), None
    relaxed = found["durability"] != "strict"
    yield "durability", found["durability"], "yellow" if relaxed else None
    if running is not None:
        if running["openFiles"] is not None:
            sessions = f"{running['openSessions']} being written"
            if running["publishing"]:
                sessions += f", {running['publishing']} being published"
            yield "open", f"{running['openFiles']} file(s), {sessions}", None
        if running["errors"] is not None:
            yield "errors", f"{running['errors']} since it was mounted", _alarm(running["errors"])
    yield "unsettled", str(found["unsettled"]), None
    partial = found["partial"]
    yield (
        "partial",
        f"{partial} ({describe_bytes(found['partialBytes'])})" if partial else "0",
        _alarm(partial),
    )
    trash = found["trash"]
    yield (
        "trash",
        f"{trash['removals']} removal(s) ({describe_bytes(trash['payloadBytes'])})"
        if trash["removals"] else "empty",
        None,
    )  # fmt: skip
    since = ""
    if found["refusals"] and running is not None and running["refused"] is not None:
        since = f", {running['refused']} since it was mounted"
    yield "refusals", f"{found['refusals']}{since}", None
    if found["lastRefusal"]:
        refusal = found["lastRefusal"]
        yield "last refusal", f"{refusal['path']}: {refusal['reason']}", None
        yield "", f"try: {refusal['try']}", None


def _write_text(write: dict[str, Any], now_us: int) -> str:
    from scopefs.store.partial import name_of_story

    name = name_text(name_of_story(write))
    return (
        f"{write['scope']}  {name or '-'}  {describe_bytes(write['sizeBytes'])}  "
        f"{describe_age(write['collectedAt'], now_us)}"
    )


def rate_text(rate: dict[str, Any]) -> str:
    """`12 version(s), 1.5 MiB in the last minute`; each second, where that was not looked at."""
    seconds, versions, size = rate["seconds"], rate["versions"], rate["payloadBytes"]
    if seconds >= 60:
        return f"{versions} version(s), {describe_bytes(size)} in the last minute"
    return f"{versions / seconds:.0f} version(s), {describe_bytes(int(size / seconds))} each second"


def _alarm(count: int) -> str | None:
    return "yellow" if count else None
