"""`scopefs` on a disk whose syncfs takes its time, so that settling takes long."""

import os
import time

from scopefs.store import atomic

DELAY_S = float(os.environ.get("SCOPEFS_TEST_DELAY_S") or 1.5)
_sync_file_system = atomic.sync_file_system


def _sync_slowly(fd: int) -> None:
    time.sleep(DELAY_S)
    _sync_file_system(fd)


if __name__ == "__main__":
    # Before anybody imports it by its name.
    atomic.sync_file_system = _sync_slowly
    from scopefs.cli import main

    main()
