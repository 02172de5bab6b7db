"""scopefs rm"""

from pathlib import Path

import click

from scopefs.cli.completion import complete_scope, complete_stamp
from scopefs.cli.options import json_option, print_json, vault_option


@click.command("rm")
@vault_option
@click.argument("scope", shell_complete=complete_scope)
@click.argument("stamp", required=False, shell_complete=complete_stamp)
@click.option("-r", "--recursive", is_flag=True, help="With the subcategories of SCOPE.")
@click.option("--forever", is_flag=True, help="Destroy at once: nothing brings it back.")
@json_option
def command(
    vault_path: Path, scope: str, stamp: str | None, recursive: bool, forever: bool, as_json: bool
) -> None:
    """Move a version of SCOPE, or all of them, to the trash.

    A name that showed the version shows the one before, or ends. Subcategories are scopes of their
    own and stay, unless -r is given. `scopefs trash restore` brings back what was removed.

    \b
    Example:
        scopefs rm instagram.profile 2026-01-21T10-00-00Z
        scopefs rm chatgpt.conversations
    """
    from scopefs.errors import InvalidQuery
    from scopefs.vault import Vault

    with Vault.open(vault_path) as vault:
        if stamp is not None:
            if recursive:
                raise InvalidQuery("-r goes with a whole scope, not with a stamp")
            vault.delete(scope, stamp.removesuffix(".json"), forever=forever)
            count = 1
        else:
            count = 0
            if recursive:
                for below in vault.scopes(prefix=scope):
                    if below.scope != scope:
                        count += vault.delete_scope(below.scope, forever=forever)
            count += vault.delete_scope(scope, forever=forever)
    if as_json:
        print_json({"scope": scope, "deleted": count})
    else:
        click.echo(f"{count} version(s) {'destroyed' if forever else 'moved to the trash'}")
