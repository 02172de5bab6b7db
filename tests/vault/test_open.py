"""What opening a vault sets in motion."""

import subprocess
import sys
from pathlib import Path

from scopefs import Vault
from tests.mounting import wait_until

_PUT_AND_DIE = """
import os, sys
from scopefs import Vault
vault = Vault.open(sys.argv[1], create=True)
vault._settling.stop()
vault.put("my.files", b"{}", name="a.json")
os._exit(0)
"""


def test_what_a_killed_process_published_is_placed_unasked(tmp_path: Path) -> None:
    """An open vault settles what it found staged, though nothing is changed in it."""
    root = tmp_path / "vault"
    subprocess.run([sys.executable, "-c", _PUT_AND_DIE, root], check=True)
    with Vault.open(root) as vault:
        assert vault.status()["unsettled"] == 1
        wait_until(lambda: vault.status()["unsettled"] == 0)
        assert (root / vault.get("my.files").path).is_file()
