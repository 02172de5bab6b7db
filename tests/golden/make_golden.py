"""Make a golden vault with the scopefs that Python finds: `make_golden.py NAME [killed]`.

Uses nothing of scopefs but its commands and its mount, so that it runs with any version of it (see
README.md here). `killed`: the mount is killed while a save waits to be settled and a file is open.
Writes NAME.tar.gz and NAME.json beside itself.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from describe import describe, hash_file

HERE = Path(__file__).parent
LATE = b"saved a moment before the kill\n"
OPEN = b"synced, never closed\n"


def scopefs(vault: Path, *arguments: str, **options: Any) -> bytes:
    """Run a command; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "scopefs", *arguments],
        env={**os.environ, "SCOPEFS_VAULT": str(vault)},
        check=True, stdout=subprocess.PIPE, **options,
    )  # fmt: skip
    return done.stdout


def mount(vault: Path, point: Path) -> "subprocess.Popen[bytes]":
    """Mount, and wait until it answers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "scopefs", "mount", "-f", "--vault", str(vault), str(point)]
    )
    while not os.path.ismount(point):
        assert process.poll() is None, "the mount has ended"
        time.sleep(0.01)
    return process


def unmount(point: Path, process: "subprocess.Popen[bytes]") -> None:
    """Unmount, and wait for the end."""
    subprocess.run(["fusermount3", "-u", str(point)], check=True)
    assert process.wait(60) == 0


def fill(vault: Path, point: Path) -> None:
    """Make one of everything that every version of scopefs could do."""
    files = point / "my" / "files"
    files.mkdir(parents=True)
    (point / "my" / "files" / "sub").mkdir()
    (point / "other" / "things").mkdir(parents=True)
    for count in range(3):
        (files / "a.json").write_bytes(b'{ "count": %d, "text": "\xc3\xa4",  "n": 1.50 }' % count)
    (files / "note.txt").write_bytes(b"a small text\n")
    (files / "photo.bin").write_bytes(bytes(range(256)) * 100)
    (files / "large.bin").write_bytes(bytes(range(255)) * 4500)
    (files / "My Photos" / "2024").mkdir(parents=True)
    (files / "My Photos" / "2024" / "x.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photo")
    Path(os.fsdecode(os.fsencode(files) + b"/\xff odd \xf0\x9f\x98\x80")).write_bytes(b"odd name")
    (files / "sub" / "below.json").write_bytes(b'{"below":true}')
    (files / "empty").write_bytes(b"")
    (files / "link").symlink_to("note.txt")
    os.link(files / "note.txt", files / "hard")
    (files / "old name.txt").write_bytes(b"before\n")
    (files / "old name.txt").rename(files / "new name.txt")
    (files / "new name.txt").write_bytes(b"after\n")
    (files / "gone.txt").write_bytes(b"removed, with a history\n")
    # By another program: that of the writer would withdraw it.
    subprocess.run(["rm", files / "gone.txt"], check=True)
    (files / "saved.json.tmp").write_bytes(b'{"by": "rename"}')
    (files / "saved.json.tmp").rename(files / "saved.json")
    (files / "a.json").chmod(0o600)
    os.utime(files / "a.json", ns=(1_234_567_891_000_000_000, 1_234_567_891_123_456_789))
    (point / "other" / "things" / "list.json").write_bytes(b"[1, 2, 3]\n")
    (point / "ended" / "scope").mkdir(parents=True)
    (point / "ended" / "scope" / "x.json").write_bytes(b'{"x": 1}')
    subprocess.run(["rm", "-r", point / "ended" / "scope"], check=True)
    (files / "scratch~").write_bytes(b"small")
    (files / "scratch.part").write_bytes(b"large" * 20_000)
    scopefs(vault, "put", "my.files", "-", input=b"without a name")
    scopefs(vault, "put", "trash.one", "-", "--name", "t.json", input=b'{"t": 1}')
    scopefs(vault, "put", "trash.one", "-", "--name", "t.json", input=b'{"t": 2}')
    newest = (point / "trash" / "one" / ".versions" / "latest.json").readlink()
    scopefs(vault, "rm", "trash.one", newest.stem)
    scopefs(vault, "put", "trash.all", "-", "--name", "t.txt", input=b"all of it")
    scopefs(vault, "rm", "trash.all")


def is_unsettled(vault: Path, folder: Path) -> bool:
    """Whether what was killed has left a published version to be placed, looked up in a copy."""
    shutil.copytree(vault, folder)
    question = "SELECT COUNT(*) FROM staged WHERE version IS NOT NULL"
    found = subprocess.check_output(["sqlite3", str(folder / "index.db"), question])
    shutil.rmtree(folder)
    return int(found) > 0


def main() -> None:
    name, killed = sys.argv[1], "killed" in sys.argv[2:]
    with tempfile.TemporaryDirectory() as place:
        vault, point = Path(place, "vault"), Path(place, "mnt")
        point.mkdir()
        process = mount(vault, point)
        fill(vault, point)
        scopefs(vault, "settle")
        unmount(point, process)
        process = mount(vault, point)
        said: dict[str, Any] = describe(point)
        said["log"] = json.loads(scopefs(vault, "log", "--json"))
        said["trash"] = {
            str(path.relative_to(vault / "trash")): hash_file(path)
            for path in sorted((vault / "trash").rglob("*.json"))
        }
        if killed:
            handle = os.open(point / "my" / "files" / "open.txt", os.O_WRONLY | os.O_CREAT)
            os.write(handle, OPEN)
            os.fsync(handle)
            (point / "my" / "files" / "late.txt").write_bytes(LATE)
            # Listing waits for the publication, and is over long before anything is settled.
            os.listdir(point / "my" / "files" / ".versions")
            process.send_signal(signal.SIGKILL)
            process.wait()
            subprocess.run(["fusermount3", "-uz", str(point)], check=True)
            assert is_unsettled(vault, Path(place, "copy")), "it was settled already: again"
            said["late"] = {"my/files/late.txt": LATE.decode()}
            said["partial"] = [OPEN.decode()]
        else:
            unmount(point, process)
        with tarfile.open(HERE / f"{name}.tar.gz", "w:gz") as archive:
            archive.add(vault, "vault")
        text = json.dumps(said, indent=1, sort_keys=True)
        (HERE / f"{name}.json").write_text(text + "\n")


main()
