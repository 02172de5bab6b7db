"""scopefs put"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from scopefs.cli.completion import complete_name, complete_scope
from scopefs.cli.options import json_option, print_json, vault_option
from scopefs.errors import InvalidBody, InvalidQuery


@click.command("put")
@vault_option
@click.argument("scope", shell_complete=complete_scope)
@click.argument("source", required=False, default="-",
                type=click.Path(exists=True, allow_dash=True))  # fmt: skip
@click.option(
    "--name",
    shell_complete=complete_name,
    help="The name to store it under.  [default: the file's own]",
)
@json_option
def command(vault_path: Path, scope: str, source: str, name: str | None, as_json: bool) -> None:
    """Store a file, a directory's files, or standard input (-) as versions of SCOPE.

    Prints the collectedAt of each version once it is safe on the disk. Standard input has no name
    unless --name gives it one: it then stands in the history alone.

    \b
    Example:
        scopefs put instagram.profile profile.json
        curl -s URL | scopefs put weather.berlin - --name today.json
        scopefs put google.takeout ~/Takeout
    """
    from scopefs.vault import Vault

    receipts: list[dict[str, Any]] = []
    with Vault.open(vault_path, create=True) as vault:
        for path, target, stored_name in _sources(scope, source, name):
            data = Path(path) if path is not None else sys.stdin.buffer
            try:
                version = vault.put(target, data, name=stored_name)
            except InvalidBody:
                if path is None or Path(path).stat().st_size or os.path.isfile(source):
                    raise
                click.echo(f"scopefs: {path}: empty, no version made", err=True)
                continue
            if as_json:
                receipts.append({"scope": version.scope, "collectedAt": version.collected_at,
                                 "status": "stored"})  # fmt: skip
            else:
                click.echo(version.collected_at)
    if as_json:
        print_json(receipts if source != "-" and os.path.isdir(source) else receipts[0])


def _sources(
    scope: str, source: str, name: str | None
) -> Iterator[tuple[str | None, str, str | None]]:
    """What is to be stored: path (None: standard input), scope, and name to store it under."""
    if source == "-":
        yield None, scope, name
    elif not os.path.isdir(source):
        yield source, scope, name or os.path.basename(source)
    else:
        if name is not None:
            raise InvalidQuery("--name goes with one file, not with a directory")
        for directory, folders, files in os.walk(source):
            folders.sort()
            for file in sorted(files):
                path = os.path.join(directory, file)
                if os.path.isfile(path):
                    yield path, *_place_below(scope, os.path.relpath(path, source))


def _place_below(scope: str, path: str) -> tuple[str, str]:
    """Scope and name of a file below a scope's directory, as the mount would have them."""
    from scopefs.model.scope import is_segment, parse_scope

    folder, separator, rest = path.partition("/")
    if separator and parse_scope(scope).subcategory is None and is_segment(folder):
        return f"{scope}.{folder}", rest
    return scope, path
