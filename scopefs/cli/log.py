"""scopefs log"""

import sys
from pathlib import Path
from typing import Any

import click

from scopefs.cli.options import json_option, print_json, print_rows, vault_option

_PAGE = 500


@click.command("log")
@vault_option
@click.argument("scope", required=False)
@click.option("-n", "--limit", type=click.IntRange(min=1), help="At most so many.")
@json_option
def command(vault_path: Path, scope: str | None, limit: int | None, as_json: bool) -> None:
    """List versions and all other events, newest first; of SCOPE, or of everything.

    Works for removed scopes as well.

    \b
    Example:
        scopefs log instagram.profile
        scopefs log -n 20 --json
    """
    from scopefs.errors import NotFound
    from scopefs.model.scope import parse_scope
    from scopefs.vault import Vault

    with Vault.open(vault_path) as vault:
        if scope is not None and not vault.knows_scope(parse_scope(scope)):
            raise NotFound(f'No data found for scope "{scope}"')
        before = sys.maxsize
        left = limit if limit is not None else sys.maxsize
        found: list[dict[str, Any]] = []
        while left > 0:
            page = vault.events(before=before, limit=min(left, _PAGE), scope=scope)
            if as_json:
                found += page
            else:
                print_rows(_row(event) for event in page)
            if len(page) < min(left, _PAGE):
                break
            left -= len(page)
            before = page[-1]["seq"]
    if as_json:
        print_json(found)


def _row(event: dict[str, Any]) -> tuple[str, str, str, str]:
    name = event.get("name") or event.get("nameHex") or ""
    if event["op"] == "rename":
        name = f"{name} -> {event.get('to') or event.get('toHex') or ''}"
    what = event.get("collectedAt", "")
    return str(event["seq"]), event["at"], event["op"], f"{event.get('scope', '')} {what} {name}"
