"""`config.toml` in the vault's directory: what its owner wants otherwise. It need not be there.

::

    [scratch]
    patterns = ["*~", "*.part"]   # instead of scopefs.model.scratch.DEFAULT_PATTERNS

    [trash]
    keep_days = 30                # a mount empties what is older; without it nothing is emptied
"""

import tomllib
from pathlib import Path

import msgspec

from scopefs.errors import InvalidConfig
from scopefs.model.scratch import DEFAULT_PATTERNS


class ScratchConfig(msgspec.Struct, forbid_unknown_fields=True):
    """Which files make no versions."""

    patterns: tuple[str, ...] = DEFAULT_PATTERNS


class TrashConfig(msgspec.Struct, forbid_unknown_fields=True):
    """How long removed versions are kept, in days; None: until somebody empties the trash."""

    keep_days: float | None = None


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """All of the file."""

    scratch: ScratchConfig = msgspec.field(default_factory=ScratchConfig)
    trash: TrashConfig = msgspec.field(default_factory=TrashConfig)


def load_config(path: Path) -> Config:
    """Read the file; the defaults if there is none. Raises `InvalidConfig`, naming the place."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
        return msgspec.convert(found, Config)
    except FileNotFoundError:
        return Config()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InvalidConfig(f"{path}: {error}") from error
