"""A mount namespace of a test's own: what is mounted in it, nobody else sees."""

import json
import subprocess
import sys
from pathlib import Path

from tests.mounting import wait_until

_HELPER = """#!/bin/sh
exec {python} -c 'from scopefs.cli.mount_helper import main; main()' "$@"
"""


class Namespace:
    """A namespace in which mount(8) finds `mount.scopefs`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        helpers = directory / "helpers"
        helpers.mkdir()
        for name in ("mount.scopefs", "mount.fuse.scopefs"):
            (helpers / name).write_text(_HELPER.format(python=sys.executable))
            (helpers / name).chmod(0o755)
        # What others have mounted for a while would stay alive in here after they unmount it.
        script = (
            "for point in $(findmnt -rno TARGET,SOURCE,FSTYPE |"
            " awk '$3 ~ /^fuse/ || $2 ~ /loop/ {print $1}'); do"
            ' umount -l "$(printf %b "$point")"; done;'
            " mount -t overlay none -o lowerdir=$1/helpers:/usr/sbin /usr/sbin &&"
            " echo ready && exec sleep 600"
        )
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation=private", "sh", "-c", script, "sh",
             str(directory)], stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"

    def run(self, *command: str | Path, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run a command inside."""
        found = subprocess.run(
            ["nsenter", "--mount", f"--target={self._holder.pid}", *map(str, command)],
            capture_output=True, text=True, cwd="/",
        )  # fmt: skip
        if check and found.returncode:
            raise AssertionError(f"{command} ended with {found.returncode}: {found.stderr}")
        return found

    def mounts(self) -> dict[str, str]:
        """What of scopefs is mounted: mount point to source."""
        found = self.run("findmnt", "-J", "-o", "TARGET,SOURCE", "-t", "fuse.scopefs", check=False)
        rows = json.loads(found.stdout or '{"filesystems": []}')["filesystems"]
        return {row["target"]: row["source"] for row in rows}

    def find_process(self, point: Path) -> int:
        """The process behind a mount."""
        found = self.run("cat", point / ".scopefs" / "status.json")
        return int(json.loads(found.stdout)["pid"])

    def umount(self, point: Path) -> None:
        """Unmount with umount(8), and wait until the daemon has ended."""
        process = self.find_process(point)
        self.run("umount", point)
        wait_until(lambda: not _is_running(process))

    def close(self) -> None:
        """Leave nothing mounted; the namespace ends with its last process."""
        for point in self.mounts():
            self.run("umount", "-l", point, check=False)
        self._holder.kill()
        self._holder.communicate()


def _is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
