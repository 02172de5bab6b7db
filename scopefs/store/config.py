"""`config.toml` in the vault's directory: what its owner wants otherwise. It need not be there.

::

    [scratch]
    patterns = ["*~", "*.part"]   # instead of scopefs.model.scratch.DEFAULT_PATTERNS

    [trash]
    keep_days = 30                # a mount empties what is older; without it nothing is emptied

    [limits]
    max_file_bytes = 10737418240  # the largest file; without it whatever the disk could hold

    [http]
    hosts = ["vault.home"]        # names under which browsers may reach the HTTP door
    origins = ["https://a.home"]  # web pages that may use it (CORS); without it none
"""

import tomllib
from pathlib import Path
from typing import Annotated

import msgspec

from scopefs.errors import InvalidConfig
from scopefs.model.scratch import DEFAULT_PATTERNS


class ScratchConfig(msgspec.Struct, forbid_unknown_fields=True):
    """Which files make no versions."""

    patterns: tuple[str, ...] = DEFAULT_PATTERNS


class TrashConfig(msgspec.Struct, forbid_unknown_fields=True):
    """How long removed versions are kept, in days; None: until somebody empties the trash."""

    keep_days: Annotated[float, msgspec.Meta(ge=0, le=36_500)] | None = None


class LimitsConfig(msgspec.Struct, forbid_unknown_fields=True):
    """The largest file that is taken, in bytes; None: no limit but the disk."""

    max_file_bytes: Annotated[int, msgspec.Meta(ge=1)] | None = None


class HttpConfig(msgspec.Struct, forbid_unknown_fields=True):
    """Names that requests may be addressed to, and web pages that they may come from."""

    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """All of the file."""

    scratch: ScratchConfig = msgspec.field(default_factory=ScratchConfig)
    trash: TrashConfig = msgspec.field(default_factory=TrashConfig)
    limits: LimitsConfig = msgspec.field(default_factory=LimitsConfig)
    http: HttpConfig = msgspec.field(default_factory=HttpConfig)


def load_config(path: Path) -> Config:
    """Read the file; the defaults if there is none. Raises `InvalidConfig`, naming the place."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
        return msgspec.convert(found, Config)
    except FileNotFoundError:
        return Config()
    except (OSError, ValueError, RecursionError, msgspec.ValidationError) as error:
        raise InvalidConfig(f"{path}: {error}") from error
