"""Where things stand in a vault, and how a vault begins.

::

    vault.json                 format, id, time of creation; immutable
    data/  blobs/  events/     what is settled
    config.toml                what the owner wants otherwise; may be missing
    tokens.json                who may use the HTTP door; may be missing
    index.db                   the journal and index
    staging/<owner>/           writes under way
    partial/  trash/  logs/    interrupted writes; deleted versions; refusals and accesses
    *.lock                     see docs/tour.md, Locks

Everything internal lies outside data/, so no scope can collide with it. Directories 0700, files
0600. Raises `NotAVault`, `NewerFormat`, `Unavailable`.
"""

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw
import msgspec

from scopefs.errors import IndexBroken, NewerFormat, NotAVault, Unavailable
from scopefs.model.stamps import format_collected_at
from scopefs.store.atomic import make_directories, sync_directory, sync_file_system, write_file
from scopefs.store.index import initialize_database, write_meta
from scopefs.store.journal import to_scopefs_error

FORMAT = 1

_DIRECTORIES = ("data", "blobs", "events", "staging", "partial", "trash", "logs")


class VaultFile(msgspec.Struct, rename="camel"):
    """vault.json."""

    format: int
    id: str
    created_at: str


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths of one vault."""

    root: Path

    @property
    def vault_json(self) -> Path:
        return self.root / "vault.json"

    @property
    def index(self) -> Path:
        return self.root / "index.db"

    @property
    def config(self) -> Path:
        return self.root / "config.toml"

    @property
    def tokens(self) -> Path:
        return self.root / "tokens.json"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def blobs(self) -> Path:
        return self.root / "blobs"

    @property
    def events(self) -> Path:
        return self.root / "events"

    @property
    def staging(self) -> Path:
        return self.root / "staging"

    @property
    def partial(self) -> Path:
        return self.root / "partial"

    @property
    def trash(self) -> Path:
        return self.root / "trash"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def lock(self, name: str) -> Path:
        """The lock file `<name>.lock`: vault, write, settle, recover, mount or tokens."""
        return self.root / f"{name}.lock"

    def blob(self, sha256: bytes) -> Path:
        """Where the blob with that hash stands."""
        text = sha256.hex()
        return self.blobs / text[:2] / text


def create_vault(root: Path, now_us: int) -> Layout:
    """Make a vault in a missing or empty directory, or finish one whose making was cut short.

    Returns at once if there is a vault already. Raises `NotAVault` if the directory holds
    something else, `Unavailable` if it cannot be written.
    """
    layout = Layout(root)
    if layout.vault_json.exists() and layout.index.exists():
        return layout
    _refuse_foreign_directory(layout)
    try:
        make_directories(root)
        # Not wider than it was: a directory that may not be written is refused below.
        root.chmod(root.stat().st_mode & 0o700)
        with locked(layout, "vault"):
            _create_locked(layout, now_us)
    except OSError as error:
        raise Unavailable(f"{root}: a vault cannot be made here: {error.strerror}") from error
    except apsw.Error as error:
        raise to_scopefs_error(error) from error
    return layout


@contextmanager
def locked(layout: Layout, name: str) -> Iterator[None]:
    """Hold a lock of `Layout.lock` for a moment; whoever has it is waited for. Raises `OSError`."""
    lock = os.open(layout.lock(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _create_locked(layout: Layout, now_us: int) -> None:
    for name in _DIRECTORIES:
        (layout.root / name).mkdir(mode=0o700, exist_ok=True)
    for rest in layout.root.glob(".vault.json.*.tmp"):
        rest.unlink()
    if not layout.vault_json.exists():
        content = VaultFile(FORMAT, str(uuid.uuid4()), format_collected_at(now_us))
        write_file(layout.vault_json, msgspec.json.encode(content) + b"\n")
    if not layout.index.exists():
        if any(os.listdir(path) for path in (layout.data, layout.blobs, layout.events)):
            check_index_present(layout)
        # Under another name first: an index.db is complete, or not there.
        temporary = layout.root / "index.db.new"
        for suffix in ("", "-wal", "-shm"):
            Path(f"{temporary}{suffix}").unlink(missing_ok=True)
        db = initialize_database(str(temporary))
        try:
            with db:
                write_meta(db, "vault_id", load_vault_file(layout).id)
                write_meta(db, "home", find_home(layout))
            db.wal_checkpoint(mode=3)
        finally:
            db.close()
        for suffix in ("-wal", "-shm"):
            Path(f"{temporary}{suffix}").unlink(missing_ok=True)
        temporary.chmod(0o600)
        # Before there is an index, and so a vault that others would take for whole: the names of
        # the directories above, or a power cut may take the vault with all that was acknowledged.
        # All at once, for they may be passed through only, and not be read.
        root = os.open(layout.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sync_file_system(root)
        finally:
            os.close(root)
        temporary.rename(layout.index)
    sync_directory(layout.root)


def load_vault_file(layout: Layout) -> VaultFile:
    """Read vault.json. Raises `NotAVault`, `NewerFormat`."""
    try:
        content = layout.vault_json.read_bytes()
    except FileNotFoundError as error:
        _refuse_foreign_directory(layout)
        raise NotAVault(
            f"{layout.root} is no vault: it has no vault.json; `scopefs mount --vault "
            f"{layout.root}` makes one in a missing or empty directory"
        ) from error
    except OSError as error:
        raise Unavailable(f"{layout.vault_json} cannot be read: {error.strerror}") from error
    try:
        found = msgspec.json.decode(content, type=VaultFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotAVault(
            f"{layout.vault_json} is no description of a vault: {error}; take it from a backup "
            "(docs/format.md says what stands there)"
        ) from error
    if found.format > FORMAT:
        raise NewerFormat(
            f"{layout.root} has format {found.format}; this scopefs knows {FORMAT}: "
            "install a newer scopefs"
        )
    if found.format < 1:
        raise NotAVault(f"{layout.vault_json} names format {found.format}, which never was")
    return found


def find_home(layout: Layout) -> int:
    """What a copy of the vault does not have: when vault.json came to be here, in nanoseconds."""
    return layout.vault_json.stat().st_ctime_ns


def check_index_present(layout: Layout) -> None:
    """Refuse a vault whose index is missing. Raises `IndexBroken`."""
    if not layout.index.exists():
        raise IndexBroken(
            f"{layout.index} is missing; the versions in {layout.data} are untouched: "
            f"`scopefs reindex --vault {layout.root}` makes it again from them"
        )


def _refuse_foreign_directory(layout: Layout) -> None:
    """Refuse a directory that holds something, but no vault.json."""
    root = layout.root
    if root.exists() and not root.is_dir():
        raise NotAVault(f"{root} is no directory")
    if not root.exists() or layout.vault_json.exists():
        return
    found = {entry.name for entry in os.scandir(root)}
    if {"data", "index.db"} <= found:
        raise NotAVault(
            f"{root} looks like the data of a personal server (data/ and index.db without "
            "vault.json), not like a vault; make a new vault in an empty directory"
        )
    # What a cut creation leaves is ours; a fresh ext4 has its lost+found.
    foreign = sorted(found - {*_DIRECTORIES, "config.toml", "vault.lock", "lost+found"})
    foreign = [name for name in foreign if not name.startswith(".vault.json.")]
    if foreign:
        raise NotAVault(
            f"{root} is no vault: it holds {foreign[0]!r} and no vault.json; name a missing or "
            "empty directory"
        )
