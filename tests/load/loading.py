"""Runs a tool for a while in a mount that has to be afterwards what it was before.

How long is told by the environment: the tests run each load for `SECONDS`, which is short unless
`SCOPEFS_LOAD_SECONDS` says otherwise; `scripts/soak` does. The figures of a run go to the file
that `SCOPEFS_LOAD_FIGURES` names, a line each.
"""

import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scopefs import Vault
from tests.mounting import PATIENCE_S, Mounted, run_scopefs
from tests.store.inspection import check_whole

SECONDS = float(os.environ.get("SCOPEFS_LOAD_SECONDS", "2"))
STEP_S = 30.0
"""How long one run of a tool takes at most: in between, the vault's size is looked at."""
HANG_S = 300.0
"""A tool that has not ended so long after its time hangs."""
VAULT_MAX_BYTES = 4 << 30
"""A vault frees nothing: past this the load goes on in another one."""
MEMORY_TOLERANCE_BYTES = 32 << 20
"""What the caches of names, which are bounded, and the allocator may keep."""

Start = Callable[..., Mounted]
Tool = Callable[[Path, float], None]


def note_figures(what: str, **figures: object) -> None:
    """Tell the figures of a run to whoever wants them."""
    line = f"{what}: " + ", ".join(f"{name}={value}" for name, value in figures.items())
    print(line)
    if path := os.environ.get("SCOPEFS_LOAD_FIGURES"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def run_tool(*command: str | Path, seconds: float = 0.0, **options: object) -> str:
    """Run a program, which has to succeed and to end; returns what it printed."""
    program = str(command[0])
    assert shutil.which(program), f"{program} is not installed: scripts/test installs it"
    done = subprocess.run(
        [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", timeout=seconds + HANG_S,
        env={**os.environ, "LC_ALL": "C"}, **options,
    )  # fmt: skip
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


@dataclass(frozen=True)
class Held:
    """What a daemon holds."""

    memory_bytes: int
    descriptors: Counter[str]
    """What its descriptors lead to, but for the index."""
    connections: int
    """Descriptors of the index: connections are kept once they were needed."""


def look_at(mounted: Mounted) -> Held:
    """What the daemon holds now."""
    pid = mounted.process.pid
    status = Path(f"/proc/{pid}/status").read_text()
    memory = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    assert memory is not None, status
    targets: Counter[str] = Counter()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            targets[os.readlink(f"/proc/{pid}/fd/{name}")] += 1
        except FileNotFoundError:
            continue
    index = {target for target in targets if "/index.db" in target}
    return Held(
        int(memory[1]) * 1024,
        Counter({target: n for target, n in targets.items() if target not in index}),
        sum(targets[target] for target in index),
    )


def check_returns_to(mounted: Mounted, before: Held) -> Held:
    """Fail unless the daemon comes back to what it held: nothing of the load is left open."""
    run_scopefs("settle", vault=mounted.vault)
    deadline = time.monotonic() + PATIENCE_S
    while (now := look_at(mounted)).descriptors != before.descriptors:
        assert time.monotonic() < deadline, (
            f"left open: {now.descriptors - before.descriptors}; "
            f"gone: {before.descriptors - now.descriptors}"
        )
        time.sleep(0.05)
    grown = now.memory_bytes - before.memory_bytes
    assert grown < MEMORY_TOLERANCE_BYTES, f"{grown} bytes more than before the load"
    return now


def load_mount(start: Start, what: str, tool: Tool, *, seconds: float = SECONDS) -> None:
    """Run a tool in a folder of a mount, for so long; fail on whatever it leaves behind."""
    number, loaded_s, stored_bytes, grown_bytes = 0, 0.0, 0, 0
    while number == 0 or loaded_s < seconds:
        number += 1
        mounted = start(f"vault{number}", f"mnt{number}")
        folder = mounted.make_scope() / "Work"
        folder.mkdir()
        # Once before it counts: what is loaded and allocated at first use is no leak.
        tool(folder, 1.0)
        # Settling holds the vault's directory open.
        run_scopefs("settle", vault=mounted.vault)
        before = look_at(mounted)
        while loaded_s < seconds and measure_tree(mounted.vault) < VAULT_MAX_BYTES:
            begun = time.monotonic()
            tool(folder, min(STEP_S, max(1.0, seconds - loaded_s)))
            loaded_s += time.monotonic() - begun
        after = check_returns_to(mounted, before)
        grown_bytes = max(grown_bytes, after.memory_bytes - before.memory_bytes)
        mounted.stop()
        mounted.check_log()
        with Vault.open(mounted.vault) as vault:
            check_whole(vault)
        stored_bytes += measure_tree(mounted.vault)
        shutil.rmtree(mounted.vault)
    note_figures(
        what, seconds=round(loaded_s), vaults=number, stored_mib=stored_bytes >> 20,
        memory_grown_mib=round(grown_bytes / (1 << 20), 1), left_open=0,
    )  # fmt: skip


def measure_tree(root: Path) -> int:
    """The bytes of all files below a directory from which files may be going."""
    size = 0
    for directory, _, names in os.walk(root):
        for name in names:
            try:
                size += os.lstat(os.path.join(directory, name)).st_size
            except FileNotFoundError:
                continue
    return size


def remount(mounted: Mounted, start: Start) -> Mounted:
    """The same vault in a new daemon, which knows nothing but what was stored."""
    mounted.stop()
    mounted.check_log()
    return start(mounted.vault.name, mounted.point.name)
