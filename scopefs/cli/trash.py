"""scopefs trash"""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scopefs.cli.completion import complete_trash
from scopefs.cli.options import (
    json_option,
    name_members,
    name_text,
    open_to_read,
    print_json,
    print_rows,
    vault_option,
)
from scopefs.cli.status import describe_age

if TYPE_CHECKING:
    from scopefs.store.trash import TrashEntry

_AGE = re.compile(r"([0-9]+)([smhdw])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_PAGE = 500


@click.group("trash")
def command() -> None:
    """See, bring back or destroy what was removed.

    An entry is one removal, and has a number. In a mount, the trash can be seen and copied from in
    MOUNTPOINT/.scopefs/trash/.

    Every command takes --vault DIR.

    \b
    Example:
        scopefs trash list
        scopefs trash restore 17
        scopefs trash empty --older-than 30d
    """


@command.command("list")
@vault_option
@click.option("-n", "--limit", type=click.IntRange(min=1), help="At most so many.")
@json_option
def list_command(vault_path: Path, limit: int | None, as_json: bool) -> None:
    """List the trash, newest first: number, when, what, scope, versions, bytes, name.

    What is `scope` for a whole scope, `version` for one version, `withdrawn` for that of a
    temporary file which the program that wrote it has removed.

    \b
    Example:
        scopefs trash list --limit 10
        scopefs trash list --json
    """

    before: int | None = None
    found: list[dict[str, Any]] = []
    left = sys.maxsize if limit is None else limit
    with open_to_read(vault_path) as vault:
        now_us = vault.clock_us()
        while left and (page := vault.trash(before=before, limit=min(left, _PAGE))):
            if as_json:
                found += [_members(entry) for entry in page]
            else:
                print_rows(_row(entry, now_us) for entry in page)
            before = page[-1].id
            left -= len(page)
    if as_json:
        print_json(found)


@command.command("restore")
@vault_option
@click.argument("entries", metavar="NUMBER...", nargs=-1, required=True, type=int,
                shell_complete=complete_trash)  # fmt: skip
@json_option
def restore_command(vault_path: Path, entries: tuple[int, ...], as_json: bool) -> None:
    """Bring entries back to where they were, all of them or none.

    Versions get their old times again, names their old places. A name that another file has by now
    is left to that one; the version is in .versions/ all the same. If another version has the time
    of one of these, nothing is changed, and the command ends with 5.

    \b
    Example:
        scopefs trash restore 17
    """
    from scopefs.vault import Vault

    with Vault.open(vault_path) as vault:
        done = vault.restore(*dict.fromkeys(entries))
    if as_json:
        print_json([
            {**_members(restored.entry), "names": restored.names,
             "left": [name_members(name) for name in restored.left]}
            for restored in done
        ])  # fmt: skip
        return
    for restored in done:
        entry = restored.entry
        click.echo(f"{entry.scope}: {entry.versions} version(s) and {restored.names} name(s) back")
        for name in restored.left:
            click.echo(
                f"{entry.scope}: the name {name_text(name)!r} is taken by another file and was "
                "left; the version is in .versions/",
                err=True,
            )


@command.command("empty")
@vault_option
@click.argument("entries", metavar="[NUMBER...]", nargs=-1, type=int,
                shell_complete=complete_trash)  # fmt: skip
@click.option("--older-than", "age", metavar="AGE", help="Removed longer ago than 30d, 12h, ...")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
def empty_command(
    vault_path: Path, entries: tuple[int, ...], age: str | None, yes: bool, as_json: bool
) -> None:
    """Destroy entries of the trash, or all of it. Nothing brings them back.

    Payloads that another version has, in the trash or not, stay. Asks first, in a terminal.

    \b
    Example:
        scopefs trash empty 17
        scopefs trash empty --older-than 30d
        scopefs trash empty --yes
    """
    from scopefs.vault import Vault

    age_s = _parse_age(age) if age is not None else None
    with Vault.open(vault_path) as vault:
        if not yes and sys.stdin.isatty():
            what = f"{len(entries)} entries" if entries else "all of it"
            older = f", as far as it is older than {age}" if age is not None else ""
            click.confirm(f"Destroy what is in the trash: {what}{older}?", abort=True, err=True)
        older_than_us = None if age_s is None else vault.clock_us() - age_s * 1_000_000
        done = vault.empty_trash(*dict.fromkeys(entries), older_than_us=older_than_us)
    if as_json:
        print_json({
            "entries": done.entries, "versions": done.versions, "sizeBytes": done.payload_bytes,
        })  # fmt: skip
    else:
        click.echo(
            f"{done.versions} version(s) destroyed ({done.entries} entries of the trash, "
            f"{done.payload_bytes} bytes)"
        )


def _parse_age(text: str) -> int:
    """An age in seconds: `30d`, `12h`. Raises `InvalidQuery`."""
    from scopefs.errors import InvalidQuery

    match = _AGE.match(text)
    if match is None:
        raise InvalidQuery(f"{text!r} is no age: write it like 30d, 12h, 2w, 90m or 45s")
    return int(match[1]) * _SECONDS[match[2]]


def _members(entry: "TrashEntry") -> dict[str, Any]:
    from scopefs.model.stamps import format_collected_at

    return {
        "id": entry.id, "at": format_collected_at(entry.at_us), "what": entry.what,
        "scope": entry.scope, "versionCount": entry.versions, "sizeBytes": entry.payload_bytes,
        **name_members(entry.name),
    }  # fmt: skip


def _row(entry: "TrashEntry", now_us: int) -> tuple[str, ...]:
    from scopefs.model.stamps import format_collected_at

    return (
        str(entry.id), describe_age(format_collected_at(entry.at_us), now_us), entry.what,
        entry.scope,
        str(entry.versions), str(entry.payload_bytes), name_text(entry.name),
    )  # fmt: skip
