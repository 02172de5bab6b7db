"""Real mounts for tests: a daemon in its own process, started and ended by its id."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from scopefs.mount.point import is_mounted

PATIENCE_S = 60.0
# A RELEASE that is under way when the kernel lets go of the mount: nobody waits for its answer.
_HARMLESS = "fuse_release(): fuse_reply_* failed"
_ALARM = re.compile(r"Traceback|\b(ERROR|CRITICAL)\b|Warning:")


class Mounted:
    """A mounted vault. `point` is the mount point, `vault` the directory behind it."""

    def __init__(
        self, process: subprocess.Popen[bytes], vault: Path, point: Path, log: Path
    ) -> None:
        self.process = process
        self.vault = vault
        self.point = point
        self.log_path = log
        self.expected_alarms: list[str] = []

    @property
    def log(self) -> str:
        """What the daemon has logged so far."""
        return self.log_path.read_text(errors="replace")

    def make_scope(self, scope: str = "my.files") -> Path:
        """The directory of a scope in the mount, made."""
        path = self.point.joinpath(*scope.split("."))
        path.mkdir(parents=True, exist_ok=True)
        return path

    def stop(self) -> None:
        """Unmount, and wait until the daemon has settled everything and ended."""
        # A program that was ended a moment ago may still hold the mount.
        wait_until(lambda: not is_mounted(self.point) or _unmount(self.point))
        code = self.process.wait(PATIENCE_S)
        assert code == 0, f"the daemon ended with {code}:\n{self.log}"

    def kill(self) -> None:
        """kill -9 the daemon, and clear the dead mount away."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)
        subprocess.run(["fusermount3", "-uz", str(self.point)], check=True)

    def check_log(self) -> None:
        """Fail on any line that alarms and is not announced in `expected_alarms`."""
        for line in self.log.splitlines():
            expected = [_HARMLESS, *self.expected_alarms]
            if _ALARM.search(line) and not any(text in line for text in expected):
                raise AssertionError(f"unexpected in the daemon's log: {line}\n{self.log}")

    def clean_up(self) -> None:
        """Leave nothing behind, whatever the test did."""
        if is_mounted(self.point):
            subprocess.run(["fusermount3", "-uz", str(self.point)], check=False)
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _unmount(point: Path) -> bool:
    done = subprocess.run(["fusermount3", "-u", str(point)], capture_output=True)
    return done.returncode == 0


def start_mount(vault: Path, point: Path, *options: str) -> Mounted:
    """Start `scopefs mount -f` and wait until it answers."""
    log = vault.parent / f"{point.name}.{time.monotonic_ns()}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "scopefs", "mount", "-f", "--vault", str(vault), str(point),
             *options],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    mounted = Mounted(process, vault, point, log)
    wait_until(lambda: is_mounted(point) or process.poll() is not None)
    if process.poll() is not None:
        raise AssertionError(f"the mount ended with {process.returncode}:\n{mounted.log}")
    os.stat(point)
    return mounted


def wait_until(condition, patience_s: float = PATIENCE_S) -> None:
    """Poll until something is true; fail after a deadline."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("what was waited for did not happen")
        time.sleep(0.005)


def run_scopefs(*arguments: str, vault: Path | None = None, check: bool = True, **options):
    """Run the command line; returns the finished process with its output as text."""
    environment = {**os.environ, **options.pop("env", {})}
    if vault is not None:
        environment["SCOPEFS_VAULT"] = str(vault)
    done = subprocess.run(
        [sys.executable, "-m", "scopefs", *arguments], capture_output=True, env=environment,
        check=False, **options,
    )  # fmt: skip
    if check and done.returncode:
        raise AssertionError(f"{arguments} ended with {done.returncode}: {done.stderr!r}")
    return done
