"""scopefs serve"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scopefs.cli.options import http_auth_option, json_option, vault_option
from scopefs.errors import InvalidQuery

if TYPE_CHECKING:
    from scopefs.api.server import HttpAddress


@click.command("serve")
@vault_option
@click.option("--http", metavar="HOST:PORT", required=True, help="Where to listen.")
@http_auth_option
@json_option
def command(vault_path: Path, http: str, http_auth: str | None, as_json: bool) -> None:
    """Serve the HTTP door without a mount, until Ctrl+C.

    \b
    Example:
        scopefs serve --http 127.0.0.1:8080 --http-auth none
        curl -X POST http://127.0.0.1:8080/v1/data/test.scope \\
             -H 'Content-Type: application/json' -d '{"hello":"world"}'
    """
    from scopefs.daemon import logging_to, run_serve

    def announce(bound: str) -> None:
        click.echo(json.dumps({"listening": bound}) if as_json else f"listening on {bound}")

    address = parse_http(http, http_auth)
    with logging_to(None):
        run_serve(vault_path, address, announce)


def parse_http(http: str, http_auth: str | None) -> "HttpAddress":
    """The address to listen on. Raises `InvalidQuery` where nothing would guard the door."""
    from scopefs.api.server import is_loopback, parse_address

    address = parse_address(http)
    if http_auth != "none":
        raise InvalidQuery(
            "the HTTP door has no tokens yet: say --http-auth none to open it to every program "
            "on this machine"
        )
    if not is_loopback(address):
        raise InvalidQuery(
            f"--http-auth none is allowed on the loopback only, and {address.host} is not: "
            "use 127.0.0.1"
        )
    return address
