"""A file of 1 GiB, in by cp and out again."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.mount.reading import count_versions, wait_settled
from tests.mount.test_payloads import GIB, MEMORY_MAY_GROW, MIB, read_peak
from tests.mounting import Mounted

Start = Callable[..., Mounted]


def test_gibibyte_of_noise(start: Start, tmp_path: Path) -> None:
    """1 GiB goes in with cp, and out again, in memory that does not grow with the file."""
    source = tmp_path / "noise"
    block = os.urandom(MIB)
    with source.open("wb") as file:
        for number in range(1024):
            file.write(b"%8d" % number + block[8:])
    mounted = start()
    scope = mounted.make_scope()
    (scope / "warm").write_bytes(os.urandom(2 * MIB))
    before = read_peak(mounted)
    subprocess.run(["cp", source, scope], check=True)
    assert count_versions(scope) == 2
    subprocess.run(["cmp", source, scope / "noise"], check=True)
    wait_settled(mounted)
    grown = read_peak(mounted) - before
    assert grown < MEMORY_MAY_GROW, f"memory grew by {grown / MIB:.0f} MiB"
    assert sorted(path.stat().st_size for path in mounted.vault.glob("blobs/??/*")) == [
        2 * MIB, GIB,
    ]  # fmt: skip
    source.unlink()
    mounted.stop()
    mounted.check_log()
    subprocess.run(["rm", "-r", mounted.vault], check=True)
