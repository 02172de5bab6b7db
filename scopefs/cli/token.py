"""scopefs token"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scopefs.cli.options import json_option, print_json, print_rows, vault_option
from scopefs.cli.status import describe_age

if TYPE_CHECKING:
    from scopefs.store.tokens import Token

_RIGHTS = {"read": ("read",), "write": ("write",), "read,write": ("read", "write")}


@click.group("token")
def command() -> None:
    """Say who may use the HTTP door.

    The token `default` may do everything. Others can be made for one program each, with fewer
    rights and for some scopes, and revoked; a server that runs knows at once.

    Every command takes --vault DIR.

    \b
    Example:
        scopefs token show
        scopefs token add phone --rights write --scope 'phone.*'
        scopefs token revoke phone
    """


@command.command("show")
@vault_option
@json_option
def show_command(vault_path: Path, as_json: bool) -> None:
    """Print the default token, which may do everything; make it, if there is none.

    \b
    Example:
        curl -H "Authorization: Bearer $(scopefs token show)" http://127.0.0.1:8080/v1/data
    """
    from scopefs.store.tokens import ensure_default_token

    token = ensure_default_token(_open(vault_path), _now())
    if as_json:
        print_json({"name": "default", "token": token})
    else:
        click.echo(token)


@command.command("list")
@vault_option
@json_option
def list_command(vault_path: Path, as_json: bool) -> None:
    """List tokens: name, rights, scopes, when it was made. Never the tokens themselves.

    \b
    Example:
        scopefs token list
    """
    from scopefs.store.tokens import load_tokens
    from scopefs.vault import system_clock_us

    tokens = load_tokens(_open(vault_path))
    if as_json:
        print_json([_members(token) for token in tokens])
    else:
        now_us = system_clock_us()
        print_rows(
            (
                token.name,
                ",".join(token.rights),
                ",".join(token.scopes),
                describe_age(token.created_at, now_us),
            )
            for token in tokens
        )


@command.command("add")
@vault_option
@click.argument("name")
@click.option("--rights", type=click.Choice(list(_RIGHTS)), default="read,write",
              show_default=True, help="What it is good for.")  # fmt: skip
@click.option(
    "--scope", "scopes", metavar="PATTERN", multiple=True,
    help="What it is for: a scope, SOURCE.*, or *; may be repeated.  [default: *]",
)  # fmt: skip
@json_option
def add_command(
    vault_path: Path, name: str, rights: str, scopes: tuple[str, ...], as_json: bool
) -> None:
    """Make a token, and print it. It is not kept: what is kept is its hash.

    \b
    Example:
        scopefs token add phone --rights write --scope 'phone.*'
        scopefs token add reader --rights read
    """
    from scopefs.store.tokens import Right, add_token

    granted = [Right(right) for right in _RIGHTS[rights]]
    token = add_token(_open(vault_path), name, granted, scopes or ("*",), _now())
    if as_json:
        print_json({"name": name, "token": token})
    else:
        click.echo(token)


@command.command("revoke")
@vault_option
@click.argument("name")
@json_option
def revoke_command(vault_path: Path, name: str, as_json: bool) -> None:
    """Forget a token: requests with it are refused from now on.

    The token `default` is made anew when it is next asked for.

    \b
    Example:
        scopefs token revoke phone
    """
    from scopefs.store.tokens import revoke_token

    revoke_token(_open(vault_path), name)
    if as_json:
        print_json({"revoked": name})
    else:
        click.echo(f"revoked {name}")


def _open(vault_path: Path) -> Any:
    """The layout of a vault that is there. Raises `NotAVault`."""
    from scopefs.store.layout import Layout, load_vault_file

    layout = Layout(vault_path)
    load_vault_file(layout)
    return layout


def _now() -> str:
    from scopefs.model.stamps import format_collected_at
    from scopefs.vault import system_clock_us

    return format_collected_at(system_clock_us())


def _members(token: "Token") -> dict[str, Any]:
    return {
        "name": token.name, "rights": [str(right) for right in token.rights],
        "scopes": list(token.scopes), "createdAt": token.created_at,
    }  # fmt: skip
