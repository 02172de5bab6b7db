"""Several processes that write without a pause: they share fairly, and the WAL stays short."""

import time
from pathlib import Path

from scopefs import Vault
from tests.load.loading import note_figures
from tests.store.inspection import check_whole, finish, start_python

BEGIN_S = 1.5
"""Until all are there."""
SECONDS = 6.0
PAYLOAD_BYTES = 20_000
CHECKPOINT_PAGES = 1024
WAL_MAX_BYTES = 12 << 20
"""Three times the length at which a checkpoint waits for readers."""
UNFAIR = 3.0
"""How many times as much as another a writer may get done, at most."""

# Puts until the end; prints how often.
_WRITE = """
import os, sys, time
from scopefs import Vault
from scopefs.store import journal
root, scope, begin, end, size, journal.CHECKPOINT_PAGES = sys.argv[1], sys.argv[2], *map(
    float, sys.argv[3:])
journal.LONG_PAGES = 2 * journal.CHECKPOINT_PAGES
with Vault.open(root) as vault:
    time.sleep(max(0, begin - time.monotonic()))
    done = 0
    while time.monotonic() < end:
        vault.put(scope, os.urandom(int(size)), name="f%d" % (done % 50))
        done += 1
    print(done)
"""

_READ = """
import sys, time
from scopefs import Vault
with Vault.open(sys.argv[1]) as vault:
    while time.monotonic() < float(sys.argv[2]):
        for scope in vault.scopes():
            vault.versions(scope.scope, limit=100)
"""


def test_writers_share_fairly_and_the_wal_stays_short(tmp_path: Path) -> None:
    """Of three processes none gets much more done than another, though two others read."""
    root = tmp_path / "vault"
    Vault.open(root, create=True).close()
    begin = time.monotonic() + BEGIN_S
    end = begin + SECONDS
    writers = [
        start_python(_WRITE, root, f"my.{name}", *map(str, (begin, end, PAYLOAD_BYTES,
                     CHECKPOINT_PAGES)))
        for name in ("one", "two", "three")
    ]  # fmt: skip
    readers = [start_python(_READ, root, str(end)) for _ in range(2)]
    longest = 0
    while time.monotonic() < end:
        longest = max(longest, (root / "index.db-wal").stat().st_size)
        time.sleep(0.01)
    done = [int(finish(writer)) for writer in writers]
    for reader in readers:
        finish(reader)
    note_figures("writers", **dict(zip(("one", "two", "three"), done, strict=True)), wal=longest)
    assert sum(done) * PAYLOAD_BYTES > 2 * WAL_MAX_BYTES, "too little to tell"
    assert max(done) < UNFAIR * min(done)
    assert longest < WAL_MAX_BYTES
    with Vault.open(root) as vault:
        check_whole(vault)
        assert sum(scope.versions for scope in vault.scopes()) == sum(done)
