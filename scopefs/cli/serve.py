"""scopefs serve"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from scopefs.cli.options import (
    http_options,
    json_option,
    load_configured,
    log_options,
    vault_option,
)
from scopefs.errors import InvalidQuery

if TYPE_CHECKING:
    from scopefs.api.context import HttpOptions
    from scopefs.api.server import HttpAddress


@click.command("serve")
@vault_option
@click.option("--http", metavar="HOST:PORT", required=True,
              help="Where to listen; unix:/PATH for a Unix socket.")  # fmt: skip
@http_options
@log_options
@json_option
@click.pass_context
def command(
    ctx: click.Context, /, vault_path: Path, http: str, http_auth: str, http_max_body: int,
    log_level: Any, log_format: Any, as_json: bool,
) -> None:  # fmt: skip
    """Serve the HTTP door without a mount, until Ctrl+C.

    Who asks needs a token: `scopefs token show` tells the default one. Unless a level is set, only
    warnings and errors are logged; with --log-level info each version, too.

    \b
    Example:
        scopefs serve --http 127.0.0.1:8080
        curl -X POST http://127.0.0.1:8080/v1/data/test.scope \\
             -H "Authorization: Bearer $(scopefs token show)" \\
             -H 'Content-Type: application/json' -d '{"hello":"world"}'
    """
    from scopefs.daemon import run_serve
    from scopefs.logs import logging_to
    from scopefs.store.config import LogConfig

    def announce(bound: str) -> None:
        click.echo(json.dumps({"listening": bound}) if as_json else f"listening on {bound}")

    is_asked = ctx.get_parameter_source("log_level") is ParameterSource.COMMANDLINE
    if not is_asked and load_configured(ctx)["log.level"].origin == "default":
        # Nobody watches this for long: the access log has every request.
        log_level = "warning"
    address, options = parse_http(http, http_auth, http_max_body)
    with logging_to(None, LogConfig(log_level, log_format)):
        run_serve(vault_path, address, options, announce)


def parse_http(http: str, http_auth: str, http_max_body: int) -> "tuple[HttpAddress, HttpOptions]":
    """Where to listen, and how. Raises `InvalidQuery` where nothing would guard the door."""
    from scopefs.api.context import HttpOptions
    from scopefs.api.server import is_loopback, parse_address

    address = parse_address(http)
    if http_auth == "none" and not is_loopback(address):
        raise InvalidQuery(
            f"--http-auth none is allowed on the loopback only, and {address.host} is not: "
            "use 127.0.0.1, or ask for tokens"
        )
    hosts = (address.host.lower(),) if address.host else ()
    return address, HttpOptions(http_auth == "token", http_max_body, hosts)
