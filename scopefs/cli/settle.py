"""scopefs settle"""

from pathlib import Path

import click

from scopefs.cli.options import vault_option


@click.command("settle")
@vault_option
def command(vault_path: Path) -> None:
    """Place all published versions in the hierarchy now, for instance before a backup.

    \b
    Example:
        scopefs settle && rsync -a ~/.local/share/scopefs/vault/ /backup/vault/
    """
    from scopefs.vault import Vault

    with Vault.open(vault_path) as vault:
        vault.settle()
