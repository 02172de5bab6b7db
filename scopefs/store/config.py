"""What the owner of a vault wants otherwise: options from files and from the environment.

`Config` is the table of all options: their names, types and defaults. An option is looked for, in
this order, in the environment, in `config.toml` in the vault, in the user's `config.toml`; else it
has its default. (What stands on a command line comes before all of these; see scopefs.cli.)

::

    vault = "~/archive"           # the user's file alone: which vault the commands mean
    mountpoint = "~/vault"        # the user's file alone: where `scopefs mount` mounts it

    [mount]
    durability = "strict"         # or "relaxed"
    read_check = true             # compare what is read with its hash, over 64 KiB too
    allow_other = false           # others than who mounts may enter
    versions = "hidden"           # or "inline": the stamps stand in the scope's directory, too
    http = "127.0.0.1:8080"       # serve the HTTP door as well; without it, no
    http_auth = "token"           # or "none"
    http_max_body = 52428800      # the largest payload that is taken over HTTP

    [scratch]
    patterns = ["*~", "*.part"]   # instead of scopefs.model.scratch.DEFAULT_PATTERNS

    [trash]
    keep_days = 30                # a mount empties what is older; without it nothing is emptied

    [limits]
    max_file_bytes = 10737418240  # the largest file; without it whatever the disk could hold

    [http]
    hosts = ["vault.home"]        # names under which browsers may reach the HTTP door
    origins = ["https://a.home"]  # web pages that may use it (CORS); without it none

    [log]
    level = "info"                # or "debug", "warning", "error"; info has a line for each version
    format = "text"               # or "json": an object for each line

The variable of an option is its name in capitals behind `SCOPEFS_`: `SCOPEFS_MOUNT_DURABILITY`,
`SCOPEFS_VAULT`; a list is separated by commas; one that is empty is not set. An unknown name, or a
value of a wrong kind, is an `InvalidConfig` that says where it stands.
"""

import difflib
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
import platformdirs

from scopefs.errors import InvalidConfig
from scopefs.model.scratch import DEFAULT_PATTERNS

USER_FILE_VARIABLE = "SCOPEFS_CONFIG"
"""The variable that names another file of the user."""

_Count = Annotated[int, msgspec.Meta(ge=1)]
_Days = Annotated[float, msgspec.Meta(ge=0, le=36_500)]


class MountConfig(msgspec.Struct, forbid_unknown_fields=True):
    """What `scopefs mount` does, unless it is told otherwise."""

    durability: Literal["strict", "relaxed"] = "strict"
    read_check: bool = True
    allow_other: bool = False
    versions: Literal["hidden", "inline"] = "hidden"
    http: str | None = None
    http_auth: Literal["token", "none"] = "token"
    http_max_body: _Count = 52_428_800


class ScratchConfig(msgspec.Struct, forbid_unknown_fields=True):
    """Which files make no versions."""

    patterns: tuple[str, ...] = DEFAULT_PATTERNS


class TrashConfig(msgspec.Struct, forbid_unknown_fields=True):
    """How long removed versions are kept, in days; None: until somebody empties the trash."""

    keep_days: _Days | None = None


class LimitsConfig(msgspec.Struct, forbid_unknown_fields=True):
    """The largest file that is taken, in bytes; None: no limit but the disk."""

    max_file_bytes: _Count | None = None


class LogConfig(msgspec.Struct, forbid_unknown_fields=True):
    """What `scopefs mount` and `scopefs serve` log, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class HttpConfig(msgspec.Struct, forbid_unknown_fields=True):
    """Names that requests may be addressed to, and web pages that they may come from."""

    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """All options."""

    vault: str | None = None
    mountpoint: str | None = None
    mount: MountConfig = msgspec.field(default_factory=MountConfig)
    scratch: ScratchConfig = msgspec.field(default_factory=ScratchConfig)
    trash: TrashConfig = msgspec.field(default_factory=TrashConfig)
    limits: LimitsConfig = msgspec.field(default_factory=LimitsConfig)
    http: HttpConfig = msgspec.field(default_factory=HttpConfig)
    log: LogConfig = msgspec.field(default_factory=LogConfig)


@dataclass(frozen=True, slots=True)
class Option:
    """One option: where it is set, and what it may be."""

    table: str
    """Its table in the files; empty for those above all tables."""
    key: str
    type: Any
    default: Any

    @property
    def name(self) -> str:
        return f"{self.table}.{self.key}" if self.table else self.key

    @property
    def variable(self) -> str:
        return "SCOPEFS_" + self.name.replace(".", "_").upper()

    @property
    def is_of_user(self) -> bool:
        """Whether it says which vault is meant, so that no vault can say it."""
        return not self.table

    def convert(self, value: Any, where: str) -> Any:
        """A value from a file. Raises `InvalidConfig`."""
        try:
            return msgspec.convert(value, self.type)
        except msgspec.ValidationError as error:
            raise InvalidConfig(f"{where}: {self.name}: {self._explain(error)}") from error

    def parse(self, text: str, where: str) -> Any:
        """A value from text: of a variable or a mount option. Raises `InvalidConfig`."""
        value: Any = text
        if isinstance(self.default, tuple):
            value = tuple(part for part in text.split(",") if part)
        elif self.type is bool:
            value = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(
                text.lower(), text
            )
        try:
            return msgspec.convert(value, self.type, strict=False)
        except (msgspec.ValidationError, ValueError) as error:
            raise InvalidConfig(f"{where}={text}: {self._explain(error)}") from error

    def _explain(self, error: Exception) -> str:
        """What msgspec says; of a word that is none of a few, with those."""
        words = get_args(self.type) if get_origin(self.type) is Literal else ()
        return f"{error}; it may be {' or '.join(map(repr, words))}" if words else str(error)


def _list_options() -> Iterator[Option]:
    for field in msgspec.structs.fields(Config):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            for inner in msgspec.structs.fields(field.type):
                yield Option(field.name, inner.name, inner.type, inner.default)
        else:
            yield Option("", field.name, field.type, field.default)


OPTIONS = {option.name: option for option in _list_options()}
"""All options by their names, for instance `mount.durability`."""


@dataclass(frozen=True, slots=True)
class Setting:
    """The value of an option, and where it comes from."""

    option: Option
    value: Any
    origin: str
    """`default`, the path of a file, or the name of a variable."""


def user_file() -> Path:
    """Where the user's options stand, whether or not there is such a file."""
    named = os.environ.get(USER_FILE_VARIABLE)
    if named:
        return Path(named).expanduser()
    return Path(platformdirs.user_config_dir("scopefs", appauthor=False)) / "config.toml"


def load_settings(vault_file: Path | None = None) -> dict[str, Setting]:
    """All options by name. `vault_file`: config.toml of the vault; None: without a vault's.

    Raises `InvalidConfig`.
    """
    settings = {
        name: Setting(option, option.default, "default") for name, option in OPTIONS.items()
    }
    _lay_over(settings, user_file(), OPTIONS)
    if vault_file is not None:
        own = {name: option for name, option in OPTIONS.items() if not option.is_of_user}
        _lay_over(settings, vault_file, own)
    for option in OPTIONS.values():
        if text := os.environ.get(option.variable):
            value = option.parse(text, f"${option.variable}")
            settings[option.name] = Setting(option, value, option.variable)
    return settings


def make_config(settings: Mapping[str, Setting]) -> Config:
    """The values alone."""
    config = Config()
    for setting in settings.values():
        option = setting.option
        setattr(getattr(config, option.table) if option.table else config, option.key,
                setting.value)  # fmt: skip
    return config


def load_config(path: Path) -> Config:
    """All options, for a vault with its config.toml at `path`. Raises `InvalidConfig`."""
    return make_config(load_settings(path))


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean ...?`, if there is something that looks like a word; else nothing."""
    found = difflib.get_close_matches(word, list(known), 1)
    return f"; did you mean {found[0]!r}?" if found else ""


def _lay_over(settings: dict[str, Setting], path: Path, known: Mapping[str, Option]) -> None:
    """Set what a file says; nothing, if there is none."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidConfig(f"{path}: {error}") from error
    tables = {option.table for option in known.values()} - {""}
    for name, value in _list_values(path, found, tables):
        if name not in known:
            raise InvalidConfig(_describe_unknown(path, name, known))
        settings[name] = Setting(known[name], known[name].convert(value, str(path)), str(path))


def _list_values(path: Path, found: Mapping[str, Any], tables: set[str]) -> Iterator[Any]:
    for key, value in found.items():
        if key not in tables:
            yield key, value
        elif isinstance(value, dict):
            for inner, item in value.items():
                yield f"{key}.{inner}", item
        else:
            raise InvalidConfig(f"{path}: {key}: must be a table: write [{key}] above its keys")


def _describe_unknown(path: Path, name: str, known: Mapping[str, Option]) -> str:
    if name in OPTIONS:
        return f"{path}: {name}: can stand in the user's file alone, {user_file()}"
    table, _, key = name.rpartition(".")
    same = [option.key for option in known.values() if option.table == table]
    where = f"{path}: [{table}]" if table else f"{path}:"
    if table:
        hint = nearest(key, same)
    else:
        # A table misspelt, or an option without its table.
        hint = nearest(key, [*same, *{option.table for option in known.values()} - {""}])
    moved = [option.name for option in known.values() if option.key == key]
    hint = hint or (f"; did you mean {moved[0]!r}?" if moved else nearest(name, known))
    return f"{where} unknown key {key!r}{hint}"
