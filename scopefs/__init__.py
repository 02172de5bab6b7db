"""scopefs: a personal data vault that you mount.

`from scopefs import Vault` is the library: synchronous, usable without a mount.
The version is stated here and nowhere else.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Vault", "__version__"]

if TYPE_CHECKING:
    from scopefs.vault import Vault


def __getattr__(name: str) -> Any:
    # Imported on first use: `scopefs --help` and the pure model need neither SQLite nor FUSE.
    if name == "Vault":
        from scopefs.vault import Vault

        return Vault
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
