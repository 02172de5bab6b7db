"""scopefs ls"""

from pathlib import Path

import click

from scopefs.cli.completion import complete_scope
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


@click.command("ls")
@vault_option
@click.argument("scope", required=False, shell_complete=complete_scope)
@json_option
def command(vault_path: Path, scope: str | None, as_json: bool) -> None:
    """List the scopes of the vault, or the names in SCOPE.

    Scopes: name, number of versions, bytes, age of the newest. Names: bytes, name.

    \b
    Example:
        scopefs ls
        scopefs ls instagram.profile
    """
    from scopefs.errors import NotFound
    from scopefs.model.scope import parse_scope
    from scopefs.model.stamps import format_collected_at

    def time_text(us: int | None) -> str | None:
        return None if us is None else format_collected_at(us)

    with open_to_read(vault_path) as vault:
        if scope is None:
            scopes = vault.scopes()
            if as_json:
                print_json([
                    {"scope": found.scope, "versionCount": found.versions,
                     "sizeBytes": found.bytes, "latestCollectedAt": time_text(found.latest_us)}
                    for found in scopes
                ])  # fmt: skip
            else:
                now_us = vault.clock_us()
                print_rows(
                    (found.scope, str(found.versions), str(found.bytes),
                     describe_age(time_text(found.latest_us), now_us))
                    for found in scopes
                )  # fmt: skip
            return
        names = sorted(vault.names(scope))
        if not names and not vault.knows_scope(parse_scope(scope)):
            raise NotFound(f'No data found for scope "{scope}"')
        if as_json:
            print_json([{**name_members(name), "sizeBytes": entry.size} for name, entry in names])
        else:
            print_rows((str(entry.size), name_text(name)) for name, entry in names)
