"""What tests read from a mount: versions, histories, refusals, interrupted writes."""

import json
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.mounting import Mounted, wait_until


def list_stamps(scope: Path) -> list[str]:
    """The versions of a scope, as `.versions` lists them, without `latest.json`."""
    return sorted(name for name in os.listdir(scope / ".versions") if name != "latest.json")


def count_versions(scope: Path) -> int:
    """How many versions `.versions` lists."""
    return len(list_stamps(scope))


def read_history(scope: Path, name: str) -> list[bytes]:
    """The payloads of all versions of a name, oldest first."""
    place = scope / ".history" / name
    # Where a folder of that name was as well, its names stand beside the versions.
    return [(place / found).read_bytes() for found in sorted(os.listdir(place)) if _is_stamp(found)]


def _is_stamp(name: str) -> bool:
    return re.match(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZu\d{6}", name) is not None


def read_refusals(mounted: Mounted) -> list[dict[str, Any]]:
    """The lines of `.scopefs/rejected.jsonl`."""
    text = (mounted.point / ".scopefs" / "rejected.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def read_status(mounted: Mounted) -> dict[str, Any]:
    """What `.scopefs/status.json` says now."""
    found: dict[str, Any] = json.loads((mounted.point / ".scopefs" / "status.json").read_bytes())
    return found


def read_partial(vault: Path) -> list[bytes]:
    """The bytes of all interrupted writes, oldest first."""
    return [path.read_bytes() for path in sorted((vault / "partial").glob("*.bin"))]


def remove(path: Path) -> None:
    """`rm`: whoever wrote a file and removes it himself takes its version back."""
    subprocess.run(["rm", str(path)], check=True)


def wait_settled(mounted: Mounted) -> None:
    """Wait until every version stands in `data/`; fail if that comes to a standstill."""

    def count() -> int:
        found: int = read_status(mounted)["unsettled"]
        return found

    def fell() -> bool:
        # Each look takes the daemon's time.
        time.sleep(0.1)
        return count() < left

    while left := count():
        wait_until(fell)
