"""scopefs put"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from scopefs.cli.options import json_option, print_json, vault_option
from scopefs.errors import InvalidBody, InvalidQuery


@click.command("put")
@vault_option
@click.argument("scope")
@click.argument("source", required=False, default="-",
                type=click.Path(exists=True, allow_dash=True))  # fmt: skip
@click.option("--name", help="The name to store it under.  [default: the file's own]")
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
        for path, stored_name in _sources(source, name):
            data = Path(path) if path is not None else sys.stdin.buffer
            try:
                version = vault.put(scope, data, name=stored_name)
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


def _sources(source: str, name: str | None) -> Iterator[tuple[str | None, str | None]]:
    """What is to be stored: paths (None: standard input) and the names to store them under."""
    if source == "-":
        yield None, name
    elif not os.path.isdir(source):
        yield source, name or os.path.basename(source)
    else:
        if name is not None:
            raise InvalidQuery("--name goes with one file, not with a directory")
        for directory, folders, files in os.walk(source):
            folders.sort()
            for file in sorted(files):
                path = os.path.join(directory, file)
                if os.path.isfile(path):
                    yield path, os.path.relpath(path, source)
