"""`scopefs` without some of its syncs: the checks of a cut must notice that.

`python unsynced.py LEFT-OUT... -- ARGUMENTS`, LEFT-OUT being

- `journal`: the syncs of index.db and of its WAL, by SQLite and by us
- `files`: fsync and fdatasync, of staging files and directories
- `places`: syncfs, before and after settling gives its names
"""

import os
import sys
from collections.abc import Callable

import apsw


class _File(apsw.VFSFile):
    def __init__(self, name: object, flags: list[int]) -> None:
        super().__init__("unix", name, flags)

    def xSync(self, flags: int) -> None:
        return


class _Unsynced(apsw.VFS):
    def __init__(self) -> None:
        super().__init__("unsynced", "unix", makedefault=True)

    def xOpen(self, name: object, flags: list[int]) -> _File:
        return _File(name, flags)


def _leave_out(sync: Callable[[int], None], left_out: list[str]) -> Callable[[int], None]:
    def sync_some(fd: int) -> None:
        is_journal = os.readlink(f"/proc/self/fd/{fd}").endswith("-wal")
        if ("journal" if is_journal else "files") not in left_out:
            sync(fd)

    return sync_some


def main() -> None:
    split = sys.argv.index("--")
    left_out = sys.argv[1:split]
    sys.argv[1:] = sys.argv[split + 1 :]
    from scopefs.store import atomic

    os.fsync, os.fdatasync = (_leave_out(sync, left_out) for sync in (os.fsync, os.fdatasync))
    if "places" in left_out:
        # Before anybody imports it by its name.
        atomic.sync_file_system = lambda fd: None
    # There as long as somebody holds it.
    disk = _Unsynced() if "journal" in left_out else None
    from scopefs.cli import main as run_scopefs

    try:
        run_scopefs()
    finally:
        del disk


if __name__ == "__main__":
    main()
