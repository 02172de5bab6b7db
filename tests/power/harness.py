"""Rounds of load, cut and check: of the power, or of the daemon alone (kill -9).

A round: the vault is mounted, writers work in it, each in a scope of its own, and at a random
moment all is cut. Then the vault is opened, sometimes after a recovery that was cut as well, and
everything that was acknowledged must be there (`told.Expected`, `told.check_trees`), and fit
together (`check_whole`). What one round leaves is where the next one goes on.
"""

import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import apsw

from scopefs import Vault
from scopefs.mount.point import is_mounted
from scopefs.store import index
from tests.load.loading import note_figures
from tests.mounting import PATIENCE_S, Mounted, wait_until
from tests.power.disk import Disk
from tests.power.told import FOLDER, Expected, Story, Tree, check_trees, load_story
from tests.store.inspection import check_whole, query

ROUNDS = int(os.environ.get("SCOPEFS_POWER_ROUNDS") or 0)
"""How many rounds are asked for; 0: as many as a test thinks fit."""
SEED = int(os.environ.get("SCOPEFS_POWER_SEED") or 0) or random.randrange(1 << 30)
"""Repeats what the writers do and about when they are cut; never exactly when."""
WRITERS = 3
WRITER_MAX_BYTES = 40 << 20
"""What a writer writes in one round, at most."""
DISK_ROUNDS = 12
"""A disk is replaced after so many rounds: a vault frees nothing."""
MOUNT = (sys.executable, "-m", "scopefs")
_OPEN_AND_CLOSE = "import sys; from scopefs import Vault; Vault.open(sys.argv[1]).close()"
_WRITER = Path(__file__).with_name("writer.py")


class Lost(AssertionError):
    """A cut has cost what was promised."""


def start_daemon(
    vault: Path, point: Path, log: Path, program: Sequence[str] = MOUNT, options: Sequence[str] = ()
) -> Mounted:
    """Mount a vault by `program`, which takes the arguments of `scopefs`."""
    point.mkdir(exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*program, "mount", "-f", "--vault", str(vault), str(point), *options],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    mounted = Mounted(process, vault, point, log)
    try:
        wait_until(lambda: is_mounted(point) or process.poll() is not None)
        if process.poll() is not None:
            raise Lost(f"the mount ended with {process.returncode}:\n{mounted.log}")
        os.stat(point)
    except BaseException:
        mounted.clean_up()
        raise
    return mounted


Moment = Callable[["Bench", list[Path]], None]
"""Returns when the time has come, by what is in the vault, and by the logs of the writers."""


class Bench:
    """A vault to be cut, on a disk of its own (`ext4`, `xfs`), or (None) on any."""

    def __init__(self, directory: Path, kind: str | None, seed: int) -> None:
        self.disk = Disk(directory, kind) if kind else None
        self.directory = directory
        self.vault = (self.disk.path if self.disk else directory) / "vault"
        self.point = directory / "mnt"
        self.seed = seed
        self.expected = Expected()
        self.figures: Counter[str] = Counter()
        self.rounds = 0
        self._trees: dict[str, Tree] = {f"w{number}": {} for number in range(WRITERS)}
        self._checked = 0
        self._running: list[subprocess.Popen[bytes]] = []
        self._mounted: Mounted | None = None

    def __enter__(self) -> "Bench":
        try:
            if self.disk:
                self.disk.make()
            Vault.open(self.vault, create=True).close()
        except BaseException:
            self.clean_up()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.clean_up()

    # One round

    def run_round(
        self,
        program: Sequence[str] = MOUNT,
        wait_moment: Moment | None = None,
    ) -> None:
        """Load, cut and check once. Raises `Lost`.

        `wait_moment` returns when it is to be cut; without, that is at random.
        """
        source = random.Random(self.seed + self.rounds)
        self.rounds += 1
        stories = self._load_and_cut(source, program, wait_moment)
        self._count_in_flight(stories)
        self._cut_recovery(source)
        # The mount or the library recovers, and the other one finds it done.
        by_mount = source.random() < 0.5
        if by_mount:
            self.mount()
        self._check_vault(stories, by_mount=by_mount)
        if not by_mount:
            self.mount()
        self._check_trees(stories)
        self.figures["rounds"] += 1
        self.figures["closes"], self.figures["fsyncs"] = self.expected.closes, self.expected.syncs

    def _load_and_cut(
        self,
        source: random.Random,
        program: Sequence[str],
        wait_moment: Moment | None,
    ) -> list[Story]:
        if self._mounted is not None and program is not MOUNT:
            self._mounted.stop()
            self._mounted = None
        mounted = self._mounted or self.mount(program)
        logs = [self.directory / f"{writer}.{self.rounds}.log" for writer in self._trees]
        for writer, log in zip(self._trees, logs, strict=True):
            directory = self.point / "power" / writer
            directory.mkdir(parents=True, exist_ok=True)
            self._running.append(
                subprocess.Popen(
                    [sys.executable, _WRITER, directory, log, str(source.randrange(1 << 40)),
                     str(WRITER_MAX_BYTES)],
                    stdin=subprocess.DEVNULL,
                )
            )  # fmt: skip
        wait_until(lambda: all(log.exists() and log.stat().st_size for log in logs))
        with self._neighbour():
            if wait_moment is not None:
                wait_moment(self, logs)
                return self._cut_writers(mounted, logs)
            # Mostly soon; settling begins after a quarter of a second, and after two at latest.
            time.sleep(source.choice([0.1, 0.5, 1.5, 2.5]) * (0.5 + source.random()))
            if source.random() < 0.3:
                # In the quiet that follows, all is settled.
                for process in self._running:
                    process.send_signal(signal.SIGSTOP)
                time.sleep(0.8 * source.random())
            return self._cut_writers(mounted, logs)

    def _cut_writers(self, mounted: Mounted, logs: list[Path]) -> list[Story]:
        mounted.check_log()
        assert mounted.process.poll() is None, f"the daemon has ended:\n{mounted.log}"
        assert all(process.poll() is None for process in self._running), "a writer has ended"
        cut_at = self.disk.cut() if self.disk else time.monotonic()
        mounted.kill()
        self._mounted = None
        self._end_writers()
        self._restart()
        stories = [
            load_story(writer, log, self._trees[writer])
            for writer, log in zip(self._trees, logs, strict=True)
        ]
        for story in stories:
            assert story.error is None or story.error[0] >= cut_at, (
                f"{story.writer}, before the cut at {cut_at}: {story.error}\n{mounted.log}"
            )
            self.expected.add(story)
        return stories

    @contextlib.contextmanager
    def _neighbour(self) -> Iterator[None]:
        """Another program that syncs on the same disk, so that its file system commits at moments
        that scopefs did not choose."""
        over = threading.Event()
        path = self.vault.parent / "neighbour"

        def work() -> None:
            with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
                while not over.wait(0.02):
                    file.write(b"x")
                    os.fsync(file.fileno())

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def cut(self, *programs: subprocess.Popen[bytes]) -> float:
        """Cut the power under the mount and under programs, and switch it on again.

        Returns when it was cut, by the monotonic clock.
        """
        assert self.disk is not None
        cut_at = self.disk.cut()
        self.kill()
        for process in programs:
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE_S)
        self._restart()
        return cut_at

    def kill(self) -> None:
        """kill -9 the daemon, if there is one."""
        if self._mounted is not None:
            self._mounted.kill()
            self._mounted = None

    def _restart(self) -> None:
        """After a cut: the disk is taken from whoever had it, and comes back."""
        if self.disk:
            self.disk.unmount()
            self.disk.mount()

    def _end_writers(self) -> None:
        for process in self._running:
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE_S)
        self._running.clear()

    def mount(self, program: Sequence[str] = MOUNT, options: Sequence[str] = ()) -> Mounted:
        """Mount the vault."""
        log = self.directory / f"mount.{time.monotonic_ns()}.log"
        self._mounted = start_daemon(self.vault, self.point, log, program, options)
        return self._mounted

    def _count_in_flight(self, stories: list[Story]) -> None:
        """What the cut has met: deeds without an answer, and rows that were not settled."""
        self.figures["unanswered"] += sum(
            not story.deeds[-1].acknowledged for story in stories if story.deeds
        )
        copy = self.directory / "copy"
        copy.mkdir()
        try:
            for path in self.vault.glob("index.db*"):
                if not path.name.endswith("-shm"):
                    shutil.copy(path, copy)
            db = apsw.Connection(str(copy / "index.db"))
            with contextlib.closing(db):
                for state, count in db.execute("SELECT state, COUNT(*) FROM staged GROUP BY state"):
                    name = ("drafts", "closed", "published", "settling")[state]
                    self.figures[name] += count
        except apsw.Error as error:
            raise Lost(f"the index is broken: {error}") from error
        finally:
            shutil.rmtree(copy)

    def _cut_recovery(self, source: random.Random) -> None:
        """Sometimes, cut the recovery too, again and again."""
        for _ in range(source.choice([0, 0, 1, 3])):
            process = subprocess.Popen(
                [sys.executable, "-c", _OPEN_AND_CLOSE, self.vault],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            # It takes a fifth of a second until it begins.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.15 + 0.35 * source.random())
            if self.disk and source.random() < 0.5:
                self.disk.cut()
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE_S)
            self._restart()
            self.figures["cut recoveries"] += 1

    # Checks

    def _check_vault(self, stories: list[Story], *, by_mount: bool) -> None:
        """Fail unless all that was acknowledged is there, and all fits together."""
        try:
            with Vault.open(self.vault) as vault:
                if not by_mount:
                    self.figures["recovered"] += vault.recovered.published
                live, trashed = self._read_versions(vault)
                self._fail_on(self.expected.check(live, trashed, _read_kept(vault)))
                check_whole(vault)
        except Lost:
            raise
        except Exception as error:
            raise Lost(f"round {self.rounds}, seed {self.seed}: {error!r}") from error

    def _read_versions(self, vault: Vault) -> tuple[set[str], set[str]]:
        """The hashes of all versions that are there, and in the trash; new ones are read."""
        found: tuple[set[str], set[str]] = set(), set()
        for number, digest, deleted in query(
            vault, "SELECT id, payload_sha256, deleted_seq IS NOT NULL FROM data_files ORDER BY id"
        ):
            if number > self._checked:
                with vault.read() as db:
                    version = index.find_by_id(db, number)
                assert version is not None
                assert hashlib.sha256(vault.read_payload(version)).digest() == digest
                vault.read_envelope(version)
                self._checked = number
            found[deleted].add(digest.hex())
        return found

    def _check_trees(self, stories: list[Story]) -> None:
        """Fail unless the mount shows the state of one moment, with all that was synced."""
        found = {writer: read_tree(self.point / "power" / writer) for writer in self._trees}
        self._fail_on(check_trees(stories, found))
        self._trees = found

    def _fail_on(self, problems: list[str]) -> None:
        if problems:
            raise Lost(
                f"round {self.rounds}, seed {self.seed}: {len(problems)} problem(s):\n"
                + "\n".join(problems[:10])
            )

    def close(self) -> None:
        """Unmount; the vault must end well."""
        if self._mounted is not None:
            self._mounted.stop()
            self._mounted = None

    def clean_up(self) -> None:
        """Leave nothing behind, whatever happened."""
        self._end_writers()
        if self._mounted is not None:
            self._mounted.clean_up()
        if is_mounted(self.point):
            subprocess.run(["fusermount3", "-uz", str(self.point)], check=False)
        if self.disk:
            self.disk.clean_up()


def _read_kept(vault: Vault) -> list[bytes]:
    """The bytes of all interrupted writes and of all scratch files."""
    kept = [path.read_bytes() for path in vault.layout.partial.glob("*.bin")]
    for (node,) in query(vault, "SELECT node FROM scratch"):
        reader = vault.open_scratch(node)
        kept.append(bytes(reader.read(0, reader.size)))
        reader.close()
    return kept


def read_tree(directory: Path) -> Tree:
    """What a directory shows."""
    tree: Tree = {}
    for path in directory.rglob("*"):
        name = str(path.relative_to(directory))
        tree[name] = FOLDER if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
    return tree


def run_rounds(directory: Path, kind: str | None, rounds: int, seed: int) -> None:
    """Cut so often, on as many disks as that takes; tell the figures. Raises `Lost`."""
    what = f"power cuts on {kind}" if kind else "kills"
    print(f"{what}: {rounds} round(s), seed {seed}", flush=True)
    figures: Counter[str] = Counter()
    while rounds:
        part = min(rounds, DISK_ROUNDS)
        home = directory / f"{kind}-{seed}"
        home.mkdir()
        with Bench(home, kind, seed) as bench:
            for _ in range(part):
                bench.run_round()
            bench.close()
        shutil.rmtree(home)
        figures += bench.figures
        rounds, seed = rounds - part, seed + part
    note_figures(what, **figures, lost=0)
    # A cut that meets nothing proves nothing.
    for name in ("unanswered", "drafts", "published"):
        assert figures[name], f"no cut has met anything that was {name}: {figures}"
