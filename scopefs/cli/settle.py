"""scopefs settle"""

from pathlib import Path

import click

from scopefs.cli.options import json_option, print_json, vault_option


@click.command("settle")
@vault_option
@json_option
def command(vault_path: Path, as_json: bool) -> None:
    """Place all published versions in the hierarchy now, for instance before a backup.

    \b
    Example:
        scopefs settle && rsync -a ~/.local/share/scopefs/vault/ /backup/vault/
    """
    from scopefs.vault import Vault

    with Vault.open(vault_path) as vault:
        vault.settle()
        left = vault.status()["unsettled"]
    if as_json:
        print_json({"unsettled": left})
