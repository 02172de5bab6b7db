"""scopefs partial"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scopefs.cli.completion import complete_partial, complete_scope
from scopefs.cli.options import (
    json_option,
    name_text,
    open_to_read,
    print_json,
    print_rows,
    vault_option,
)
from scopefs.cli.status import describe_age

if TYPE_CHECKING:
    from scopefs.vault import Vault


@click.group("partial")
def command() -> None:
    """See, accept or drop writes that did not finish.

    Their bytes are in the vault's directory partial/, and in MOUNTPOINT/.scopefs/partial/. Each
    has an id.

    Every command takes --vault DIR.

    \b
    Example:
        scopefs partial list
        scopefs partial accept 0aca7344
        scopefs partial drop --all
    """


@command.command("list")
@vault_option
@json_option
def list_command(vault_path: Path, as_json: bool) -> None:
    """List them, oldest first: id, when, scope, name, bytes, why, which program wrote it.

    \b
    Example:
        scopefs partial list
        scopefs partial list --json
    """
    from scopefs.store.partial import name_of_story

    with open_to_read(vault_path) as vault:
        found = vault.partial()
        now_us = vault.clock_us()
    if as_json:
        print_json(found)
        return
    print_rows(
        (story["id"], describe_age(story.get("at"), now_us), _text(story, "scope"),
         name_text(name_of_story(story)) or "-", str(story["sizeBytes"]), _text(story, "reason"),
         _text(story, "process"))
        for story in found
    )  # fmt: skip


@command.command("accept")
@vault_option
@click.argument("ids", metavar="[ID...]", nargs=-1, shell_complete=complete_partial)
@click.option("--all", "accept_all", is_flag=True, help="All of them.")
@click.option(
    "--scope",
    shell_complete=complete_scope,
    help="Its scope, if it is not known or is to be another one.",
)
@click.option("--name", help="Its name in the scope, likewise.")
@json_option
def accept_command(
    vault_path: Path, ids: tuple[str, ...], accept_all: bool, scope: str | None, name: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Make them the next versions of the names that they were meant for.

    What is in partial/ goes once the version is on the disk.

    \b
    Example:
        scopefs partial accept 0aca7344
        scopefs partial accept 0aca7344 --scope my.notes --name a.txt
        scopefs partial accept --all
    """
    from scopefs.vault import Vault

    with Vault.open(vault_path) as vault:
        chosen = _choose(vault, ids, choose_all=accept_all)
        if len(chosen) > 1 and name is not None:
            raise click.UsageError("--name goes with one ID")
        done = []
        for partial_id in chosen:
            version = vault.accept_partial(partial_id, scope=scope, name=name)
            done.append({"id": partial_id, "scope": version.scope,
                         "collectedAt": version.collected_at})  # fmt: skip
            if not as_json:
                click.echo(f"{version.scope} {version.collected_at}")
    if as_json:
        print_json(done)


@command.command("drop")
@vault_option
@click.argument("ids", metavar="[ID...]", nargs=-1, shell_complete=complete_partial)
@click.option("--all", "drop_all", is_flag=True, help="All of them.")
@json_option
def drop_command(vault_path: Path, ids: tuple[str, ...], drop_all: bool, as_json: bool) -> None:
    """Remove them for good.

    \b
    Example:
        scopefs partial drop 0aca7344
        scopefs partial drop --all
    """
    from scopefs.vault import Vault

    with Vault.open(vault_path) as vault:
        chosen = _choose(vault, ids, choose_all=drop_all)
        for partial_id in chosen:
            vault.drop_partial(partial_id)
    if as_json:
        print_json({"dropped": chosen})
    else:
        click.echo(f"{len(chosen)} interrupted write(s) removed")


def _choose(vault: "Vault", ids: tuple[str, ...], *, choose_all: bool) -> list[str]:
    if choose_all == bool(ids):
        raise click.UsageError("name the ids that `scopefs partial list` shows, or --all")
    return [story["file"] for story in vault.partial()] if choose_all else list(dict.fromkeys(ids))


def _text(story: dict[str, Any], member: str) -> str:
    value = story.get(member)
    return "-" if value is None else str(value)
