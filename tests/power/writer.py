"""A program that works in a directory of a mount for ever, and tells what was answered.

`python writer.py DIRECTORY LOG SEED MAX_BYTES`. Each line of LOG is written before the writer goes
on: what it is about to do, and, with the same number, that it was answered 0. LOG must lie where no
cut reaches. It ends at the first error, which it tells too.

What it does (`do`), with the content by its hash:

- `close`: an open, writes, and the close that is answered; or a `cp`, which looks at its close.
  `again`: it was a duplicate's, the same session has another close
- `fsync`: of a file that is open and was not closed yet
- `rename` (`synced`: of a file that is still open, and was fsynced), `unlink`, `mkdir`, `rmdir`
- `sync`: fsync of a directory; `truncate`: by path
"""

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

FOLDERS = ["Folder A", "Folder B", "Folder C"]
NAMES = ["a.json", "b.bin", "c.txt", "d.json", "e.jpg"]
SMALL = [1, 2, 300, 4_000, 16_384, 16_385, 50_000]
LARGE = [65_536, 65_537, 90_000, 200_000, 700_000]
HUGE = [2_500_000, 6_000_000]


class Writer:
    """One writer; knows what its directory shows."""

    def __init__(self, directory: Path, log: Path, seed: int, max_bytes: int) -> None:
        self.seed = seed
        self.source = random.Random(seed)
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.copied = log.with_suffix(".copied")
        self.number = 0
        self.left_bytes = max_bytes
        os.chdir(directory)
        self.files: dict[str, bytes] = {}
        self.folders: set[str] = set()
        for path in sorted(Path().rglob("*")):
            if path.is_dir():
                self.folders.add(str(path))
            else:
                self.files[str(path)] = path.read_bytes()
        self.held: tuple[int, str, bytes] | None = None

    def say(self, **members: object) -> None:
        line = json.dumps({"at": time.monotonic(), **members}) + "\n"
        os.write(self.log, line.encode())

    def begin(self, do: str, **members: object) -> int:
        self.number += 1
        self.say(n=self.number, do=do, **members)
        return self.number

    def end(self, number: int) -> None:
        self.say(n=number, done=True)

    # Contents

    def make_content(self) -> bytes:
        """Bytes that nobody has written before; rarely, ones that this writer has.

        Never none, which make no version; a cut may have left empty files.
        """
        known = [content for content in self.files.values() if content]
        if known and self.source.random() < 0.03:
            return self.source.choice(known)
        sizes = self.source.choices([SMALL, LARGE, HUGE], [70, 27, 3])[0]
        size = self.source.choice(sizes)
        if self.source.random() < 0.5:
            return self.source.randbytes(size)
        # A document, of about that size.
        return b'{"writer": "%s"}' % self.source.randbytes(size // 2).hex().encode()

    def make_path(self) -> str:
        folder = self.source.choice(["", "", *sorted(self.folders)])
        return os.path.join(folder, self.source.choice(NAMES))

    def write(self, fd: int, content: bytes) -> None:
        self.left_bytes -= len(content)
        step = self.source.choice([max(1, len(content)), 10_000, 131_072])
        for start in range(0, len(content), step):
            part = memoryview(content)[start : start + step]
            while part:
                part = part[os.write(fd, part) :]

    def open(self, path: str, flags: int = os.O_TRUNC) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | flags, 0o644)

    def fsync(self, fd: int, path: str, content: bytes) -> None:
        number = self.begin("fsync", path=path, **describe(content))
        os.fsync(fd)
        self.end(number)

    def close(self, fd: int, path: str, content: bytes, **members: object) -> None:
        number = self.begin("close", path=path, **describe(content), **members)
        os.close(fd)
        self.end(number)
        self.files[path] = content

    # What people's programs do

    def save(self) -> None:
        path, content = self.make_path(), self.make_content()
        fd = self.open(path)
        cut = self.source.randrange(len(content)) if self.source.random() < 0.3 else 0
        self.write(fd, content[:cut])
        if cut:
            self.fsync(fd, path, content[:cut])
        self.write(fd, content[cut:])
        if self.source.random() < 0.3:
            self.fsync(fd, path, content)
        self.close(fd, path, content)

    def copy(self) -> None:
        if self.held is not None:
            # The exec of a child closes what it has inherited: for the mount, that is a close.
            return
        path, content = self.make_path(), self.make_content()
        self.copied.write_bytes(content)
        self.left_bytes -= len(content)
        number = self.begin("close", path=path, **describe(content))
        subprocess.run(["cp", self.copied, path], check=True, stderr=subprocess.DEVNULL)
        self.end(number)
        self.files[path] = content

    def append(self) -> None:
        path = self.source.choice(list(self.files) or [self.make_path()])
        old, more = self.files.get(path, b""), self.make_content()[:20_000]
        fd = self.open(path, os.O_APPEND)
        self.write(fd, more)
        self.close(fd, path, old + more)

    def save_atomically(self) -> None:
        """As editors do; the temporary name may be that of a scratch file."""
        path, content = self.make_path(), self.make_content()
        temporary = path + self.source.choice([".tmp", ".part", "~"])
        fd = self.open(temporary)
        self.write(fd, content)
        if self.source.random() < 0.7:
            self.fsync(fd, temporary, content)
        self.close(fd, temporary, content)
        self.rename_file(temporary, path)
        if self.source.random() < 0.5:
            self.sync_directory(os.path.dirname(path))

    def save_renaming_early(self) -> None:
        """Synced, renamed, and closed only then."""
        path, content = self.make_path(), self.make_content()
        temporary = path + ".new"
        fd = self.open(temporary)
        self.write(fd, content)
        self.fsync(fd, temporary, content)
        number = self.begin("rename", path=temporary, to=path, synced=True, **describe(content))
        os.rename(temporary, path)
        self.end(number)
        # A cut may have left it from before.
        self.files.pop(temporary, None)
        self.files[path] = content
        self.close(fd, path, content)

    def close_twice(self) -> None:
        """As `{ a; b; } > f` does: the first close is one of a duplicate."""
        path, content = self.make_path(), self.make_content()[:30_000]
        fd = self.open(path)
        self.write(fd, content)
        self.close(os.dup(fd), path, content, again=True)
        more = self.make_content()[:20_000]
        self.write(fd, more)
        self.close(fd, path, content + more)

    def hold(self) -> None:
        """A log that stays open; what it got is synced now and then."""
        if self.held is None:
            path = f"held-{self.seed}-{self.number}.log"
            self.held = self.open(path, os.O_APPEND), path, b""
        fd, path, content = self.held
        more = self.make_content()[: self.source.choice([100, 10_000, 80_000])]
        self.write(fd, more)
        content += more
        self.held = fd, path, content
        self.fsync(fd, path, content)
        if self.source.random() < 0.15:
            self.held = None
            self.close(fd, path, content)

    def truncate(self) -> None:
        if not self.files:
            return
        path = self.source.choice(list(self.files))
        content = self.files[path][: max(1, len(self.files[path]) // 2)]
        if content == self.files[path]:
            return
        number = self.begin("truncate", path=path, **describe(content))
        os.truncate(path, len(content))
        self.end(number)
        self.files[path] = content

    def rename_file(self, old: str = "", new: str = "") -> None:
        old = old or self.source.choice(list(self.files) or [""])
        new = new or self.make_path()
        if not old or old == new:
            return
        number = self.begin("rename", path=old, to=new)
        os.rename(old, new)
        self.end(number)
        self.files[new] = self.files.pop(old)

    def unlink(self) -> None:
        if self.files:
            path = self.source.choice(list(self.files))
            number = self.begin("unlink", path=path)
            os.unlink(path)
            self.end(number)
            del self.files[path]

    def change_folders(self) -> None:
        """Make a folder, remove an empty one, or rename one with all that it holds."""
        name = self.source.choice(FOLDERS)
        if name not in self.folders:
            number = self.begin("mkdir", path=name)
            os.mkdir(name)
            self.end(number)
            self.folders.add(name)
        elif not any(path.startswith(f"{name}/") for path in self.files):
            number = self.begin("rmdir", path=name)
            os.rmdir(name)
            self.end(number)
            self.folders.remove(name)
        else:
            free = [folder for folder in FOLDERS if folder not in self.folders]
            if not free:
                return
            number = self.begin("rename", path=name, to=free[0])
            os.rename(name, free[0])
            self.end(number)
            self.folders = self.folders - {name} | {free[0]}
            for path in [path for path in self.files if path.startswith(f"{name}/")]:
                self.files[free[0] + path[len(name) :]] = self.files.pop(path)
        if self.source.random() < 0.5:
            self.sync_directory("")

    def sync_directory(self, path: str = "") -> None:
        fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY)
        number = self.begin("sync")
        os.fsync(fd)
        self.end(number)
        os.close(fd)

    def run(self) -> None:
        actions = {
            self.save: 30, self.copy: 5, self.append: 10, self.save_atomically: 20,
            self.save_renaming_early: 6, self.close_twice: 4, self.hold: 10, self.truncate: 3,
            self.rename_file: 8, self.unlink: 8, self.change_folders: 12, self.sync_directory: 4,
        }  # fmt: skip
        try:
            while self.left_bytes > 0:
                self.source.choices(list(actions), list(actions.values()))[0]()
        except (OSError, subprocess.CalledProcessError) as error:
            self.say(error=repr(error))
            return
        # Never let go of what is held: closing it would be one more thing to tell.
        while True:
            time.sleep(1)


def describe(content: bytes) -> dict[str, object]:
    """A content, in a log."""
    return {"sha": hashlib.sha256(content).hexdigest(), "size": len(content)}


if __name__ == "__main__":
    Writer(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])).run()
