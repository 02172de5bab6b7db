"""scopefs put"""

import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO, cast

import click

from scopefs.cli.completion import complete_name, complete_scope
from scopefs.cli.options import absolute, json_option, print_json, vault_option
from scopefs.cli.progress import Bar, CountedReads, progress_option, wants_bar
from scopefs.errors import InvalidBody, InvalidQuery

_LARGE_BYTES = 16 << 20
"""Less is stored before anybody could read a bar."""


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
@progress_option
@json_option
def command(
    vault_path: Path, scope: str, source: str, name: str | None, progress: bool | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Store a file, a directory's files, or standard input (-) as versions of SCOPE.

    Prints the collectedAt of each version once it is safe on the disk. Standard input has no name
    unless --name gives it one: it then stands in the history alone. Of a directory's files those of
    the vault itself are left out, and so is its mount.

    \b
    Example:
        scopefs put instagram.profile profile.json
        curl -s URL | scopefs put weather.berlin - --name today.json
        scopefs put google.takeout ~/Takeout
    """
    from scopefs.vault import Vault

    receipts: list[dict[str, Any]] = []
    is_shown = wants_bar(progress, as_json=as_json)
    left_out = _find_own(vault_path, source)
    for place in left_out:
        click.echo(f"scopefs: {place}: left out, it is the vault itself", err=True)
    total = _measure(scope, source, name, left_out) if is_shown else None
    with (
        Vault.open(vault_path, create=True) as vault,
        Bar("storing", total, is_shown=is_shown, at_least=_LARGE_BYTES) as bar,
    ):
        for path, target, stored_name in _sources(scope, source, name, left_out):
            try:
                with nullcontext(sys.stdin.buffer) if path is None else open(path, "rb") as file:
                    version = vault.put(
                        target, cast(BinaryIO, CountedReads(file, bar)), name=stored_name,
                        mtime_ns=None if path is None else os.fstat(file.fileno()).st_mtime_ns,
                    )  # fmt: skip
            except InvalidBody:
                if path is None or Path(path).stat().st_size or os.path.isfile(source):
                    raise
                bar.clear()
                click.echo(f"scopefs: {path}: empty, no version made", err=True)
                continue
            if as_json:
                receipts.append({"scope": version.scope, "collectedAt": version.collected_at,
                                 "status": "stored"})  # fmt: skip
            else:
                bar.clear()
                click.echo(version.collected_at)
    if as_json:
        print_json(receipts if source != "-" and os.path.isdir(source) else receipts[0])


def _find_own(vault_path: Path, source: str) -> list[Path]:
    """The vault's directory and its mount, as far as they lie below a directory to be stored."""
    from scopefs.mount.point import find_holder
    from scopefs.store.layout import Layout

    holder = find_holder(Layout(vault_path))
    own = [vault_path, *([Path(str(holder["mountpoint"]))] if holder else [])]
    return [path for path in own if absolute(source) in path.parents]


def _measure(scope: str, source: str, name: str | None, left_out: list[Path]) -> int | None:
    """How many bytes there are to store; None if nobody knows."""
    if source == "-":
        return None
    return sum(
        os.path.getsize(path)
        for path, _, _ in _sources(scope, source, name, left_out) if path is not None
    ) or None  # fmt: skip


def _sources(
    scope: str, source: str, name: str | None, left_out: list[Path]
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
            base = absolute(directory)
            folders[:] = sorted(folder for folder in folders if base / folder not in left_out)
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
