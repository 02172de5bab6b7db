"""kill -9 of the daemon while programs write: what was acknowledged is there, nothing is torn.

Runs for `SCOPEFS_LOAD_SECONDS`, and for three kills at least. The processes die, the machine does
not: what a power cut does is not seen here.
"""

import hashlib
import itertools
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from scopefs import Vault
from scopefs.mount.point import is_mounted
from tests.load.loading import SECONDS, VAULT_MAX_BYTES, Start, measure_tree, note_figures
from tests.mounting import PATIENCE_S, Mounted, wait_until
from tests.store.inspection import check_whole

KILLS_MIN = 3
WRITERS = 3
LINES_MAX = 600
"""A daemon is killed after so many lines of its writers at most, some two seconds: settling runs
every two seconds at latest."""
CHECK_EVERY = 10
"""After so many kills all versions are read, not only what the names show."""

# Saves files for ever, in the ways of people's tools; says which content a name is about to get,
# and when that was acknowledged.
_SAVE_FOR_EVER = """
import hashlib, os, random, sys

directory, writer, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
source = random.Random(seed)
os.chdir(directory)

def say(*words):
    os.write(1, (" ".join(words) + "\\n").encode())

def write(name, content):
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    step = source.choice([len(content), 4096, 100_000])
    for start in range(0, len(content), step):
        part = content[start:start + step]
        # What the dying mount took no more of is an error of the next write.
        while part:
            part = part[os.write(fd, part):]
    return fd

n = 0
while True:
    n += 1
    content = source.randbytes(source.choice([1, 300, 10_000, 70_000, 300_000])) + b"%d" % n
    if source.random() < 0.3:
        content = b'{"x":"' + content.hex().encode() + b'"}'
    digest = hashlib.sha256(content).hexdigest()
    name = f"new-{seed}-{n}" if source.random() < 0.5 else f"again-{writer}-{source.randrange(4)}"
    way = source.choice(["close", "fsync and close", "rename"])
    say("begin", name, digest)
    if way == "rename":
        # As editors save: the final name is durable with the fsync of its directory.
        fd = write(f"saving-{writer}", content)
        os.fsync(fd)
        os.close(fd)
        os.rename(f"saving-{writer}", name)
        fd = os.open(".", os.O_RDONLY)
        os.fsync(fd)
    else:
        fd = write(name, content)
        if way == "fsync and close":
            os.fsync(fd)
    os.close(fd)
    say("saved", name, digest)
"""


class Writer:
    """A process that saves for ever, and the file to which it says how that went."""

    def __init__(self, directory: Path, said: Path, number: int, seed: int) -> None:
        self.said = said
        with said.open("wb") as out, said.with_suffix(".err").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _SAVE_FOR_EVER, directory, str(number), str(seed)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            )  # fmt: skip

    def count_lines(self) -> int:
        """How many lines it has said."""
        assert self.process.poll() is None, self.said.with_suffix(".err").read_text()
        return self.said.read_bytes().count(b"\n")

    def wait_end(self) -> list[list[str]]:
        """Wait until it has met the death of the mount; returns what it had said, in words."""
        assert self.process.wait(PATIENCE_S) == 1
        errors = self.said.with_suffix(".err").read_text()
        assert "OSError" in errors or "ConnectionAbortedError" in errors, errors
        return [line.split() for line in self.said.read_text().splitlines()]

    def stop(self) -> None:
        """End it, whatever the test did."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(PATIENCE_S)


def hash_file(path: Path) -> str:
    """The hash of a file's content; "" if it is empty or not there."""
    content = path.read_bytes() if path.exists() else b""
    return hashlib.sha256(content).hexdigest() if content else ""


class Saved:
    """What the writers of a vault know of it."""

    def __init__(self) -> None:
        self.may_show: dict[str, set[str]] = {}
        """The contents that a name may show, by hash: the last one that was acknowledged, and the
        one after it that was begun; "" stands for no name, or an empty file."""
        self.begun = {""}
        self.acknowledged: set[str] = set()

    def note(self, lines: list[list[str]]) -> None:
        """Take in what a writer said."""
        for word, name, digest in lines:
            if word == "saved":
                self.may_show[name] = {digest}
                self.acknowledged.add(digest)
            else:
                self.may_show.setdefault(name, {""}).add(digest)
                self.begun.add(digest)

    def check_names(self, directory: Path) -> None:
        """Fail unless each name shows a whole content that it may show. That one stays."""
        temporary = {path.name for path in directory.iterdir()} - self.may_show.keys()
        for name in temporary:
            assert name.startswith("saving-"), name
            assert hash_file(directory / name) in self.begun, f"{name} is torn"
        for name, allowed in self.may_show.items():
            found = hash_file(directory / name)
            assert found in allowed, f"{name} is {'torn' if found not in self.begun else 'lost'}"
            self.may_show[name] = {found}

    def check_versions(self, root: Path) -> None:
        """Fail unless every acknowledged save is a version, and all in the vault fits together."""
        with Vault.open(root) as vault:
            found = {
                hashlib.sha256(vault.read_payload(version)).hexdigest()
                for version in vault.versions("my.files")
            }
            lost, torn = self.acknowledged - found, found - self.begun
            assert not lost, f"{len(lost)} of {len(self.acknowledged)} acknowledged saves are lost"
            assert not torn, f"{len(torn)} versions are no content that anybody saved"
            check_whole(vault)


def write_until_killed(mounted: Mounted, directory: Path, seed: int) -> list[list[str]]:
    """Let programs write, and kill -9 the daemon at some moment; returns what the writers said."""
    # Mostly soon, sometimes late.
    lines = int(LINES_MAX * random.Random(seed).random() ** 3)
    logs = mounted.vault.parent
    writers = [
        Writer(directory, logs / f"writer{number}", number, seed + number)
        for number in range(WRITERS)
    ]
    try:
        wait_until(lambda: all(writer.count_lines() for writer in writers))
        wait_until(lambda: sum(writer.count_lines() for writer in writers) >= lines)
        mounted.kill()
        mounted.check_log()
        return [line for writer in writers for line in writer.wait_end()]
    finally:
        for writer in writers:
            writer.stop()


def kill_while_it_recovers(mounted: Mounted, seed: int) -> None:
    """Begin a mount of the vault, and kill -9 it before, or just after, it answers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "scopefs", "mount", "-f", "--vault", mounted.vault, mounted.point],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        process.wait(random.Random(seed).uniform(0.2, 0.8))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE_S)
    if is_mounted(mounted.point):
        subprocess.run(["fusermount3", "-uz", mounted.point], check=True)


def test_nothing_that_was_closed_is_lost_by_kill_9(start: Start) -> None:
    """Killed again and again while programs save, the mount shows all that it acknowledged."""
    seed = random.randrange(1 << 40)
    print(f"seed {seed}")
    kills = acknowledged = vaults = 0
    begun = time.monotonic()
    while kills < KILLS_MIN or time.monotonic() - begun < SECONDS:
        vaults += 1
        saved = Saved()
        mounted = start(f"vault{vaults}", f"mnt{vaults}")
        for number in itertools.count():
            directory = mounted.make_scope() / "Work"
            directory.mkdir(exist_ok=True)
            saved.check_names(directory)
            over = kills >= KILLS_MIN and time.monotonic() - begun >= SECONDS
            if over or measure_tree(mounted.vault) > VAULT_MAX_BYTES:
                break
            seed += WRITERS
            saved.note(write_until_killed(mounted, directory, seed))
            kills += 1
            if kills % 3 == 0:
                kill_while_it_recovers(mounted, seed)
                kills += 1
            if number % CHECK_EVERY == CHECK_EVERY - 1:
                saved.check_versions(mounted.vault)
            mounted = start(mounted.vault.name, mounted.point.name)
        mounted.stop()
        mounted.check_log()
        saved.check_versions(mounted.vault)
        acknowledged += len(saved.acknowledged)
        shutil.rmtree(mounted.vault)
    assert acknowledged > kills
    note_figures("kill -9", kills=kills, acknowledged=acknowledged, lost=0, torn=0, vaults=vaults)
