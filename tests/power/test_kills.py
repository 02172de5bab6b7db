"""kill -9 of the daemon, and of recoveries: the checks of the power cuts, without a cut."""

import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from scopefs import Vault
from tests.power.harness import ROUNDS, SEED, run_rounds
from tests.store.inspection import check_whole, run_python_until_it_dies

CI_ROUNDS = 20
STEPS_MAX = 40

# Leaves two closed and two fsynced writes, a small and a large one of each, and dies.
_STAGE = """
import os, signal, sys
from scopefs import Vault
from scopefs.model.scope import parse_scope
from scopefs.store import changes, publish
from scopefs.store.publish import StagedState, Write

vault = Vault.open(sys.argv[1], create=True)
scope = vault.apply(changes.ensure_scope, parse_scope("my.files"))
for state in (StagedState.CLOSED, StagedState.DRAFT):
    for size in (1_000, 100_000):
        draft = vault.new_draft()
        draft.write(0, b"%d" % state * size)
        write = Write(vault.owner_name, scope, None, None, b"f", 0o644, None, draft.seal(b"f"))
        vault.apply_durably(publish.apply_stage, write, state)
os.kill(os.getpid(), signal.SIGKILL)
"""

# Opens the vault, and dies before or after the Nth transaction of the recovery.
_RECOVER = """
import os, signal, sys
from scopefs import Vault
from scopefs.store.journal import Journal

steps = int(sys.argv[2])
commit = Journal._commit

def step():
    global steps
    steps -= 1
    if not steps:
        os.kill(os.getpid(), signal.SIGKILL)

def commit_in_steps(self, batch):
    step()
    commit(self, batch)
    step()

Journal._commit = commit_in_steps
Vault.open(sys.argv[1])
"""


def test_nothing_acknowledged_is_lost_by_kill_9(tmp_path: Path) -> None:
    """What was closed is a version, what was fsynced is kept, and the names are those of one
    moment, not before the last fsync of anybody.
    """
    run_rounds(tmp_path, None, ROUNDS or CI_ROUNDS, SEED)


def test_recovery_that_is_killed_at_each_step(tmp_path: Path) -> None:
    """D5: a recovery that was cut before or after any transaction is finished by the next one."""
    staged, root = tmp_path / "staged", tmp_path / "vault"
    run_python_until_it_dies(_STAGE, staged)
    for steps in range(1, STEPS_MAX):
        shutil.copytree(staged, root)
        code = subprocess.run([sys.executable, "-c", _RECOVER, root, str(steps)]).returncode
        with Vault.open(root) as vault:
            found = [vault.read_payload(version) for version in vault.versions("my.files")]
            assert Counter(found) == Counter([b"1" * 1_000, b"1" * 100_000])
            # One may be kept twice: the first time was not known to have succeeded.
            kept = {path.read_bytes() for path in vault.layout.partial.glob("*.bin")}
            assert kept == {b"0" * 1_000, b"0" * 100_000}
            check_whole(vault)
        shutil.rmtree(root)
        if code == 0:
            break
        assert code == -signal.SIGKILL
    # Four writes, and two steps for each.
    assert 8 < steps < STEPS_MAX
