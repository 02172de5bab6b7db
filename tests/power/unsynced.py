"""`scopefs` without some of its syncs: the checks of a cut must notice that.

`python unsynced.py LEFT-OUT... -- ARGUMENTS`, LEFT-OUT being

- `journal`: SQLite's syncs, of index.db and of its WAL
- `files`: fsync and fdatasync, of staging files and directories
- `places`: syncfs, before and after settling gives its names
"""

import os
import sys

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


def main() -> None:
    split = sys.argv.index("--")
    left_out = sys.argv[1:split]
    sys.argv[1:] = sys.argv[split + 1 :]
    from scopefs.store import atomic

    if "files" in left_out:
        os.fsync = os.fdatasync = lambda fd: None
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
