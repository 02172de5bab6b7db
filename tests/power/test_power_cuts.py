"""Power cuts: what was acknowledged is there, nothing is half (docs/semantics.md, D1 to D5).

The power of a real file system is cut (`disk.py`) under a mount that is being written to.
`SCOPEFS_POWER_ROUNDS` says how often; `SCOPEFS_POWER_SEED` repeats a run, though never its moments.
"""

import sys
from pathlib import Path

import pytest

from tests.power.harness import ROUNDS, SEED, Bench, Lost, run_rounds

pytestmark = pytest.mark.usefixtures("root")
CI_ROUNDS = 10
UNSYNCED_ROUNDS = 8
"""After so many rounds, what lacks a sync must have lost something."""
_UNSYNCED = Path(__file__).with_name("unsynced.py")


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_nothing_acknowledged_is_lost_by_a_power_cut(kind: str, tmp_path: Path) -> None:
    """What was closed is a version, what was fsynced is kept, and the names are those of one
    moment, not before the last fsync of anybody.
    """
    rounds = ROUNDS or CI_ROUNDS
    run_rounds(tmp_path, kind, rounds // 2 if kind == "xfs" else rounds - rounds // 2, SEED)


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
@pytest.mark.parametrize("left_out", ["journal", "files", "places"])
def test_a_protocol_without_its_syncs_loses(left_out: str, kind: str, tmp_path: Path) -> None:
    """Without the syncs of one kind something is lost, and noticed: these checks can fail."""
    program = (sys.executable, str(_UNSYNCED), left_out, "--")
    with Bench(tmp_path, kind, SEED) as bench:
        for _ in range(UNSYNCED_ROUNDS):
            try:
                bench.run_round(program)
            except Lost as lost:
                print(lost)
                return
    raise AssertionError(f"nothing is lost in {UNSYNCED_ROUNDS} rounds, seed {SEED}")
