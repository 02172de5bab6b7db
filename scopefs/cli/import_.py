"""scopefs import"""

import sys
from contextlib import ExitStack
from pathlib import Path

import click

from scopefs.cli.options import (
    json_option,
    print_json,
    print_problems,
    problem_members,
    vault_option,
)
from scopefs.cli.progress import Bar, progress_option, wants_bar


@click.command("import")
@vault_option
@click.argument("source", metavar="SOURCE")
@progress_option
@json_option
def command(vault_path: Path, source: str, progress: bool | None, as_json: bool) -> int:
    """Add to the vault what SOURCE has and the vault lacks: versions with their times, and names.

    SOURCE is a directory or archive that `scopefs export` has written, any directory with envelopes
    in data/, another vault, or - for an archive on standard input. What the vault has is never
    replaced; importing twice is the same as once. An import that was interrupted is finished by
    repeating it. What is refused is told, and the rest is imported.

    \b
    Example:
        scopefs import /media/backup/vault
        scopefs import profile-and-notes.tar
    """
    from scopefs.transfer.imports import Importer
    from scopefs.transfer.sources import VaultSource, open_source
    from scopefs.vault import Vault

    stream = sys.stdin.buffer if source == "-" else None
    with ExitStack() as stack:
        vault = stack.enter_context(Vault.open(vault_path, create=True))
        opened = open_source(vault, source, stream)
        if isinstance(opened, VaultSource):
            stack.enter_context(opened.vault)
        is_shown = wants_bar(progress, as_json=as_json)
        total = opened.measure() if is_shown else None
        with Bar("importing", total, is_shown=is_shown) as bar:
            done = Importer(vault, opened, bar.reach).run()
    if as_json:
        print_json({
            "imported": done.imported, "alreadyThere": done.already_there, "names": done.names,
            "problems": [problem_members(found) for found in done.problems],
        })  # fmt: skip
    else:
        click.echo(
            f"imported {done.imported} version(s) ({done.already_there} there already), "
            f"{done.names} name(s)"
        )
    return print_problems(done.problems, quiet=as_json)
