"""scopefs log"""

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from scopefs.cli.completion import complete_scope
from scopefs.cli.options import json_option, open_to_read, print_json, print_rows, vault_option

if TYPE_CHECKING:
    from scopefs.vault import Vault

_PAGE = 500
_POLL_S = 0.2


@click.command("log")
@vault_option
@click.argument("scope", required=False, shell_complete=complete_scope)
@click.option("-n", "--limit", type=click.IntRange(min=1), help="At most so many.")
@click.option("-f", "--follow", is_flag=True, help="Print new events as they come, until Ctrl+C.")
@json_option
def command(
    vault_path: Path, scope: str | None, limit: int | None, follow: bool, as_json: bool
) -> None:
    """List versions and all other events, newest first; of SCOPE, or of everything.

    Works for removed scopes as well.

    \b
    Example:
        scopefs log instagram.profile
        scopefs log -n 20 --json
        scopefs log -f
    """
    from scopefs.errors import NotFound
    from scopefs.model.scope import parse_scope

    with open_to_read(vault_path) as vault:
        if scope is not None and not vault.knows_scope(parse_scope(scope)):
            raise NotFound(f'No data found for scope "{scope}"')
        if follow:
            _follow(vault, scope, as_json)
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


def _follow(vault: "Vault", scope: str | None, as_json: bool) -> NoReturn:
    """Print events from now on, oldest first: as rows, or as JSON lines."""
    after = vault.status()["events"]
    while True:
        for event in vault.events(after=after, limit=_PAGE, scope=scope):
            after = event["seq"]
            if as_json:
                click.echo(json.dumps(event, ensure_ascii=False))
            else:
                print_rows([_row(event)])
        sys.stdout.flush()
        time.sleep(_POLL_S)


def _row(event: dict[str, Any]) -> tuple[str, str, str, str]:
    name = next((event[key] for key in ("file", "name", "fileHex", "nameHex") if key in event), "")
    if event["op"] == "rename":
        name = f"{name} -> {event.get('to') or event.get('toHex') or ''}"
    parts = [event.get("scope", ""), event.get("collectedAt", ""), name]
    if "versions" in event:
        parts.append(f"{event['versions']} version(s)")
    if "writer" in event:
        parts.append(f"by {event['writer']} (uid {event.get('uid', '?')})")
    if event["op"] == "version":
        from scopefs.model.stamps import format_collected_at

        parts.append(f"modified {format_collected_at(event['mtimeNs'] // 1000)}")
    if event.get("withdrawn"):
        parts.append("withdrawn")
    return str(event["seq"]), event["at"], event["op"], " ".join(filter(None, parts))
