"""What several commands share: where the vault is, what is configured, how listings are printed."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import platformdirs

from scopefs.cli.exits import to_exit_code
from scopefs.store.config import OPTIONS, Setting, load_settings

if TYPE_CHECKING:
    from scopefs.transfer.exports import Problem
    from scopefs.vault import Vault

_PROBLEMS_MAX = 20

_Command = TypeVar("_Command", bound=Callable[..., Any])


def default_vault() -> Path:
    """The user's vault, unless `--vault`, $SCOPEFS_VAULT or the user's config.toml names another.

    Raises `InvalidConfig`.
    """
    named = load_settings()["vault"].value
    if named:
        return absolute(named)
    return Path(platformdirs.user_data_dir("scopefs", appauthor=False)) / "vault"


def default_mountpoint() -> Path:
    """Where the user's config.toml says; else `~/vault`, and `/mnt/vault` for root, without a desk.

    Raises `InvalidConfig`.
    """
    named = load_settings()["mountpoint"].value
    if named:
        return absolute(named)
    return Path("/mnt/vault") if os.geteuid() == 0 else Path.home() / "vault"


def vault_option(command: _Command) -> _Command:
    """`--vault DIR`. It is known before the options are, for they may stand in the vault."""
    return click.option(
        "--vault", "vault_path", metavar="DIR", envvar="SCOPEFS_VAULT", type=click.Path(),
        callback=lambda _ctx, _param, value: absolute(value) if value else default_vault(),
        is_eager=True,
        help="The vault's directory.  [default: $SCOPEFS_VAULT, else the user's data directory]",
    )(command)  # fmt: skip


def load_configured(ctx: click.Context) -> dict[str, Setting]:
    """The options that are configured for the vault of a command. Raises `InvalidConfig`."""
    key = f"{__name__}.settings"
    if key not in ctx.meta:
        ctx.meta[key] = load_settings(Path(ctx.params["vault_path"]) / "config.toml")
    settings: dict[str, Setting] = ctx.meta[key]
    return settings


class _ConfiguredOption(click.Option):
    """An option whose default is what is configured."""

    def __init__(self, *args: Any, setting: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._setting = setting

    def get_default(self, ctx: click.Context, call: bool = True) -> Any:
        if not call or ctx.resilient_parsing:
            return OPTIONS[self._setting].default
        return load_configured(ctx)[self._setting].value


def open_to_read(path: Path) -> "Vault":
    """Open a vault for a command that changes nothing; one that cannot be written is looked at.

    Raises what `Vault.open` and `ReadOnlyVault.look_at` raise.
    """
    from scopefs.errors import NotWritable
    from scopefs.vault import Vault

    try:
        return Vault.open(path)
    except NotWritable:
        from scopefs.read_only import ReadOnlyVault

        return ReadOnlyVault.look_at(path)


def configured_option(
    setting: str, *declarations: str, help: str, default: str | None = None, **kwargs: Any
) -> Callable[[_Command], _Command]:
    """A flag for an option of scopefs.store.config. `default`: the default in words."""
    option = OPTIONS[setting]
    shown = default if default is not None else str(option.default)
    return click.option(
        *declarations, cls=_ConfiguredOption, setting=setting,
        help=f"{help}  [${option.variable}; default: {shown}]", **kwargs,
    )  # fmt: skip


def http_options(command: _Command) -> _Command:
    """`--http-auth token|none`, `--http-max-body BYTES`."""
    command = configured_option(
        "mount.http_max_body", "--http-max-body", type=click.IntRange(min=1), metavar="BYTES",
        help="The largest payload that is taken over HTTP.",
    )(command)  # fmt: skip
    return configured_option(
        "mount.http_auth", "--http-auth", type=click.Choice(["token", "none"]),
        help="Who may use the HTTP door: whoever has a token (see `scopefs token`), or everybody "
        "on this machine.",
    )(command)  # fmt: skip


def log_options(command: _Command) -> _Command:
    """`--log-level LEVEL`, `--log-format text|json`."""
    command = configured_option(
        "log.format", "--log-format", type=click.Choice(["text", "json"]),
        help="How lines of the log look; json: an object each.",
    )(command)  # fmt: skip
    return configured_option(
        "log.level", "--log-level", type=click.Choice(["debug", "info", "warning", "error"]),
        help="What is logged; info: each version, too.",
    )(command)  # fmt: skip


def json_option(command: _Command) -> _Command:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def problem_members(problem: "Problem") -> dict[str, str]:
    """A problem as JSON members."""
    return {"where": problem.where, "reason": str(problem.error)}


def print_problems(problems: "Sequence[Problem]", *, quiet: bool) -> int:
    """Tell what was left out, unless it stands elsewhere; returns the exit code."""
    if not quiet:
        for problem in problems[:_PROBLEMS_MAX]:
            click.echo(f"scopefs: {printable(problem.where)}: {problem.error}", err=True)
        if len(problems) > _PROBLEMS_MAX:
            click.echo(f"scopefs: and {len(problems) - _PROBLEMS_MAX} more; see --json", err=True)
    return max((to_exit_code(problem.error) for problem in problems), default=0)


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
