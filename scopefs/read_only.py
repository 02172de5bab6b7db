"""A vault that is only looked at: nothing in its directory is written, neither locks nor logs.

It works where the directory cannot be written at all, and for who may only read it. What a crash
left under way stays as it is, until somebody opens the vault for writing. Others may write
meanwhile, and are seen; see scopefs.store.read_only. Every change is an `OSError` with EROFS.
"""

import errno
import fcntl
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar

from scopefs.store.config import Config
from scopefs.store.copies import check_copy
from scopefs.store.drafts import Draft
from scopefs.store.index import read_meta
from scopefs.store.journal import Failure, Transaction
from scopefs.store.layout import Layout, find_home
from scopefs.store.read_only import ReadOnlyPool
from scopefs.store.verify import Verification
from scopefs.vault import Vault, system_clock_us

P = ParamSpec("P")
T = TypeVar("T")


class ReadOnlyVault(Vault):
    """An open vault that cannot be changed."""

    is_read_only = True

    def __init__(
        self, layout: Layout, clock_us: Callable[[], int], *, check_reads: bool = True,
        config: Config | None = None,
    ) -> None:  # fmt: skip
        """Use `ReadOnlyVault.look_at`."""
        self._describe(layout, clock_us, check_reads=check_reads, config=config)
        with ExitStack() as stack:
            # Tells who wants to be alone with the vault that somebody reads it. Not where there is
            # no such file, or it may not be read.
            with suppress(OSError):
                lock = os.open(layout.lock("vault"), os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, lock)
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            readers = ReadOnlyPool(str(layout.index))
            stack.callback(readers.close)
            readers.check(self.id)
            with readers.connection() as db:
                home = read_meta(db, "home")
            if home not in (None, find_home(layout)):
                check_copy(layout, readers.connection, is_read_only=True)
            self._readers = readers
            self._open = stack.pop_all()

    @classmethod
    def look_at(
        cls, path: str | os.PathLike[str], *, clock_us: Callable[[], int] = system_clock_us,
        check_reads: bool = True, config: Config | None = None,
    ) -> "ReadOnlyVault":  # fmt: skip
        """Open the vault in the directory `path` for reading.

        Raises `NotAVault`, `NewerFormat`, `IndexBroken`; `Unavailable` if an older scopefs wrote
        it, as it has to be brought up to date by writing.
        """
        layout = Layout(Path(path).expanduser().absolute())
        return cls(layout, clock_us, check_reads=check_reads, config=config)

    def close(self) -> None:
        """Let go. Closing twice is fine."""
        if not self._closed:
            self._closed = True
            self._checks.close()
            self._open.close()

    def status(self) -> dict[str, Any]:
        return {**super().status(), "readOnly": True}

    def apply(
        self, change: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        self._refuse()

    def apply_durably(
        self, change: Callable[Concatenate[Transaction, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        self._refuse()

    def apply_all(
        self, works: Sequence[Callable[[Transaction], T]], *, durable: bool = False
    ) -> list[T | Failure]:
        self._refuse()

    @property
    def tree_changes(self) -> int:
        return 0

    def new_draft(self) -> Draft:
        self._refuse()

    def keep_partial(
        self, draft: Draft, scope_node: int, node: int, known: tuple[int | None, bytes | None], *,
        reason: str, process: str | None, uid: int | None,
    ) -> Path:  # fmt: skip
        self._refuse()

    def drop_partial(self, partial_id: str) -> None:
        self._refuse()

    def settle(self) -> None:
        self._refuse()

    def verification(
        self, *, rate_bytes: float | None = None, resume: bool = False
    ) -> Verification:
        self._refuse()

    def sync(self) -> None:
        """Nothing was changed, so all of it is durable."""

    @property
    def owner_name(self) -> str:
        self._refuse()

    def _note_digests(self, sha256: bytes, digests: bytes) -> None:
        """What a reader has learned is not kept."""

    def _refuse(self) -> NoReturn:
        raise OSError(errno.EROFS, "the vault is open for reading alone", str(self.layout.root))
