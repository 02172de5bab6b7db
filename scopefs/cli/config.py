"""scopefs config"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from scopefs.cli.options import (
    default_mountpoint,
    json_option,
    load_configured,
    print_json,
    print_rows,
    vault_option,
)
from scopefs.store.config import user_file


@click.group("config")
def command() -> None:
    """See the options, and where they come from.

    Every command takes --vault DIR.

    \b
    Example:
        scopefs config show
    """


@command.command("show")
@vault_option
@json_option
@click.pass_context
def show(ctx: click.Context, vault_path: Path, as_json: bool) -> None:
    """List all options: their names, where each was set, and their values.

    Looked for in this order: the environment, the vault's config.toml, the user's, the default.
    Flags of a command come before all of them.

    \b
    Example:
        SCOPEFS_MOUNT_DURABILITY=relaxed scopefs config show
    """
    settings = load_configured(ctx)
    for name, path in (("vault", vault_path), ("mountpoint", default_mountpoint())):
        settings[name] = replace(settings[name], value=str(path))
    if ctx.get_parameter_source("vault_path") is ParameterSource.COMMANDLINE:
        settings["vault"] = replace(settings["vault"], origin="--vault")
    if as_json:
        print_json([
            {"option": name, "value": setting.value, "from": setting.origin,
             "variable": setting.option.variable}
            for name, setting in settings.items()
        ])  # fmt: skip
    else:
        print_rows(
            (name, setting.origin, _show(setting.value)) for name, setting in settings.items()
        )


@command.command("path")
@vault_option
@json_option
def path(vault_path: Path, as_json: bool) -> None:
    """Print where the user's file and the vault's are, or would be.

    \b
    Example:
        $EDITOR "$(scopefs config path | head -1)"
    """
    found = {"user": str(user_file()), "vault": str(vault_path / "config.toml")}
    if as_json:
        print_json(found)
    else:
        for file in found.values():
            click.echo(file)


def _show(value: Any) -> str:
    """A value as TOML has it; `-` for none."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(_show(item) for item in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)
