"""What a mounted vault shows, in a form that can be kept and compared."""

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

HIDDEN = (".versions", ".history")


def describe(point: Path) -> dict[str, Any]:
    """All names with what they show, and below `HIDDEN` each version of each scope."""
    names: dict[str, Any] = {}
    views: dict[str, Any] = {}
    for folder, folders, files in os.walk(point):
        for name in folders + files:
            path = os.path.join(folder, name)
            names[os.path.relpath(path, point)] = _describe_entry(path)
        for hidden in HIDDEN:
            root = os.path.join(folder, hidden)
            # A folder of a scope has none, and sources neither.
            if os.path.isdir(root):
                views[os.path.relpath(root, point)] = _describe_view(root)
    return {"names": names, "views": views}


def hash_file(path: str | Path) -> str:
    """SHA-256 of the content."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _describe_entry(path: str) -> dict[str, Any]:
    found = os.lstat(path)
    said = {"mode": stat.filemode(found.st_mode), "ino": found.st_ino, "mtimeNs": found.st_mtime_ns}
    if stat.S_ISLNK(found.st_mode):
        said["target"] = os.readlink(path)
    elif stat.S_ISREG(found.st_mode):
        said |= {"nlink": found.st_nlink, "sha256": hash_file(path)}
    return said


def _describe_view(root: str) -> dict[str, str]:
    """Hashes of the files of a view; of links their targets."""
    said = {}
    for folder, _, files in os.walk(root):
        for name in files:
            path = os.path.join(folder, name)
            where = os.path.relpath(path, root)
            said[where] = os.readlink(path) if os.path.islink(path) else hash_file(path)
    return said
