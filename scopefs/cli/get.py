"""scopefs get"""

import sys
from pathlib import Path
from typing import BinaryIO

import click

from scopefs.cli.completion import complete_name, complete_scope, complete_stamp
from scopefs.cli.options import json_option, name_members, open_to_read, print_json, vault_option

_CHUNK_BYTES = 1 << 20


@click.command("get")
@vault_option
@click.argument("scope", shell_complete=complete_scope)
@click.option("--at", metavar="TIME", help="The newest at or before TIME, like 2026-01-21T10:00.")
@click.option(
    "--stamp",
    shell_complete=complete_stamp,
    help="The version with this stamp, as `ls .versions` shows it.",
)
@click.option("--name", shell_complete=complete_name, help="Of this file in the scope alone.")
@click.option("--envelope", is_flag=True, help="Print the envelope instead of the payload.")
@click.option("-o", "--output", type=click.Path(), help="Write to a new file.")
@json_option
def command(
    vault_path: Path, scope: str, at: str | None, stamp: str | None, name: str | None,
    envelope: bool, output: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Print the newest version of SCOPE: the exact bytes that were stored.

    With --json: what is known about it instead, one JSON object.

    \b
    Example:
        scopefs get instagram.profile
        scopefs get instagram.profile --name profile.json --at 2026-01-21
        scopefs get instagram.profile --stamp 2026-01-21T10-00-00Z --envelope
    """
    from scopefs.store.readers import PayloadReader

    def copy(reader: PayloadReader, target: BinaryIO) -> None:
        for start in range(0, reader.size, _CHUNK_BYTES):
            target.write(reader.read(start, _CHUNK_BYTES))

    stamp = stamp.removesuffix(".json") if stamp is not None else None
    with open_to_read(vault_path) as vault:
        version = vault.get(scope, at=at, stamp=stamp, name=name)
        if as_json:
            print_json({
                "scope": version.scope, "collectedAt": version.collected_at,
                "stamp": version.stamp, **name_members(version.name), "kind": version.kind.word,
                "sizeBytes": version.payload_size, "sha256": version.payload_sha256.hex(),
                "mediaType": version.media_type, "path": version.path,
            })  # fmt: skip
            return
        reader = vault.open_envelope(version) if envelope else vault.open_payload(version)
        try:
            if output is None:
                copy(reader, sys.stdout.buffer)
                sys.stdout.buffer.flush()
            else:
                with open(output, "xb") as file:
                    copy(reader, file)
        finally:
            reader.close()
