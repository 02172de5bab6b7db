"""Power cuts: what was acknowledged is there, nothing is half (docs/semantics.md, D1 to D5).

The power of a real file system is cut (`disk.py`) under a mount that is being written to.
`SCOPEFS_POWER_ROUNDS` says how often; `SCOPEFS_POWER_SEED` repeats a run, though never its moments.
"""

import contextlib
import functools
import sys
from pathlib import Path

import apsw
import pytest

from scopefs.store.drafts import MEMORY_MAX_BYTES
from tests.mounting import wait_until
from tests.power.disk import sync
from tests.power.harness import ROUNDS, SEED, Bench, Lost, run_rounds
from tests.power.told import load_story

pytestmark = pytest.mark.usefixtures("root")
CI_ROUNDS = 10
UNSYNCED_ROUNDS = 3
"""After so many rounds, what lacks a sync must have lost something. One is enough, unless the cut
itself comes late: behind a settling, which syncs everything, or a write-back of the kernel."""
_UNSYNCED = Path(__file__).with_name("unsynced.py")


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_nothing_acknowledged_is_lost_by_a_power_cut(kind: str, tmp_path: Path) -> None:
    """What was closed is a version, what was fsynced is kept, and the names are those of one
    moment, not before the last fsync of anybody.
    """
    rounds = ROUNDS or CI_ROUNDS
    run_rounds(tmp_path, kind, rounds // 2 if kind == "xfs" else rounds - rounds // 2, SEED)


def wait_close(_bench: Bench, logs: list[Path], least_bytes: int = 1) -> None:
    """Until a close is acknowledged; settling, which comes later, would sync everything."""

    def is_acknowledged() -> bool:
        return any(
            deed.do == "close" and deed.acknowledged and not deed.is_scratch
            and deed.members["size"] >= least_bytes
            for log in logs
            for deed in load_story("", log, {}).deeds
        )  # fmt: skip

    wait_until(is_acknowledged)


def wait_settled(bench: Bench, _logs: list[Path]) -> None:
    """Until a version of this round is in its place, and its staged row gone for good."""
    db = apsw.Connection(str(bench.vault / "index.db"), flags=apsw.SQLITE_OPEN_READONLY)
    with contextlib.closing(db):
        newest = db.execute("SELECT COALESCE(MAX(id), 0) FROM data_files").get
        settled = (
            "SELECT 1 FROM data_files d WHERE id > ?"
            " AND NOT EXISTS (SELECT 1 FROM staged WHERE version = d.id)"
        )
        wait_until(lambda: db.execute(settled, (newest,)).get is not None)
    # That was committed without a sync, maybe; this is one.
    sync(bench.point / "power")


MOMENTS = {
    "journal": wait_close,
    # Its bytes are in a file.
    "files": functools.partial(wait_close, least_bytes=MEMORY_MAX_BYTES + 1),
    "places": wait_settled,
}
"""When a cut costs something for certain, for lack of the syncs of one kind."""


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
@pytest.mark.parametrize("left_out", ["journal", "files", "places"])
def test_a_protocol_without_its_syncs_loses(left_out: str, kind: str, tmp_path: Path) -> None:
    """Without the syncs of one kind something is lost, and noticed: these checks can fail."""
    program = (sys.executable, str(_UNSYNCED), left_out, "--")
    with Bench(tmp_path, kind, SEED) as bench:
        for number in range(1, UNSYNCED_ROUNDS + 1):
            try:
                bench.run_round(program, MOMENTS[left_out])
            except Lost as lost:
                print(f"without {left_out}, in round {number}: {lost}")
                return
    raise AssertionError(f"nothing is lost in {UNSYNCED_ROUNDS} rounds, seed {SEED}")
