"""scopefs export"""

import sys
from pathlib import Path

import click

from scopefs.cli.completion import complete_scope_or_file
from scopefs.cli.options import (
    json_option,
    print_json,
    print_problems,
    problem_members,
    vault_option,
)
from scopefs.cli.progress import Bar, progress_option, wants_bar


@click.command("export")
@vault_option
@click.argument("scopes", nargs=-1, metavar="[SCOPE ...]", shell_complete=complete_scope_or_file)
@click.argument("dest", metavar="DIR|FILE.tar|-")
@progress_option
@json_option
def command(
    vault_path: Path, scopes: tuple[str, ...], dest: str, progress: bool | None, as_json: bool
) -> int:
    """Write scopes with all their versions and names as plain files; without SCOPE, all of them.

    A SCOPE includes its subcategories. A directory is brought up to date if it holds an export of
    this vault; nothing in it is removed. An archive may be .tar, .tar.gz or .tar.xz; with - it goes
    to standard output. Every payload is compared with its hash; what is damaged is left out and
    told, and the command ends with 6.

    \b
    Example:
        scopefs export /media/backup/vault
        scopefs export instagram.profile my.notes profile-and-notes.tar
        scopefs export - | ssh other-host scopefs import -
    """
    from scopefs.errors import InvalidQuery
    from scopefs.transfer import exports
    from scopefs.vault import Vault

    stream = None
    if dest == "-":
        stream = sys.stdout.buffer
        if sys.stdout.isatty() or as_json:
            raise InvalidQuery(
                "- writes an archive to standard output: redirect it, without --json"
            )
    with Vault.open(vault_path) as vault:
        wanted = exports.list_scopes_to_export(vault, scopes)
        target = exports.open_target(vault, dest, stream)
        is_shown = wants_bar(progress, as_json=as_json)
        with Bar("exporting", exports.sum_payloads(vault, wanted), is_shown=is_shown) as bar:
            done = exports.export(vault, wanted, target, bar.reach)
    if stream is not None:
        stream.flush()
    text = f"exported {done.versions} version(s) ({done.versions - done.written} there already)"
    if as_json:
        print_json({
            "scopes": [scope.raw for scope in wanted], "versions": done.versions,
            "alreadyThere": done.versions - done.written,
            "problems": [problem_members(found) for found in done.problems],
        })  # fmt: skip
    else:
        click.echo(text, err=stream is not None)
    return print_problems(done.problems, quiet=as_json)
