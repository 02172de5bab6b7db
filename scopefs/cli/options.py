"""What several commands share: where the vault is, and how listings are printed."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click
import platformdirs

_Command = TypeVar("_Command", bound=Callable[..., Any])


def default_vault() -> Path:
    """The user's vault, unless `--vault` or $SCOPEFS_VAULT names another."""
    return Path(platformdirs.user_data_dir("scopefs", appauthor=False)) / "vault"


def default_mountpoint() -> Path:
    """`~/vault`; for root, who has no desk, `/mnt/vault`."""
    return Path("/mnt/vault") if os.geteuid() == 0 else Path.home() / "vault"


def vault_option(command: _Command) -> _Command:
    """`--vault DIR`."""
    return click.option(
        "--vault", "vault_path", metavar="DIR", envvar="SCOPEFS_VAULT", type=click.Path(),
        callback=lambda _ctx, _param, value: absolute(value) if value else default_vault(),
        help="The vault's directory.  [default: $SCOPEFS_VAULT, else the user's data directory]",
    )(command)  # fmt: skip


def http_auth_option(command: _Command) -> _Command:
    """`--http-auth none`."""
    return click.option(
        "--http-auth", type=click.Choice(["none"]),
        help="Who may use the HTTP door: `none` asks nobody, and is needed for now.",
    )(command)  # fmt: skip


def json_option(command: _Command) -> _Command:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def absolute(path: str | os.PathLike[str]) -> Path:
    """A path that stays true when the working directory changes; links are resolved."""
    return Path(os.path.realpath(os.path.expanduser(path)))


def print_json(value: Any) -> None:
    """One JSON document."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_rows(rows: Iterable[Iterable[str]]) -> None:
    """Columns, as wide as they need to be; control characters are shown escaped."""
    table = [[printable(cell) for cell in row] for row in rows]
    if not table:
        return
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def printable(text: str) -> str:
    """Text for a terminal: what would move its cursor or is no UTF-8 is escaped."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )


def name_text(name: bytes | None) -> str:
    """A stored name as text; bytes that are no UTF-8 are escaped when printed."""
    return "" if name is None else name.decode("utf-8", "surrogateescape")


def name_members(name: bytes | None) -> dict[str, str]:
    """A stored name as JSON members."""
    from scopefs.model.envelope import encode_name

    return encode_name(name)
