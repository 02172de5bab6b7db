"""Interrupted writes: `partial/<stamp>-<id>.bin` with the bytes, `.json` beside it with the story.

Plain files, so that they need no index: a full disk or a broken journal is when they are made.
"""

import contextlib
import os
import uuid
from pathlib import Path
from typing import Any

import apsw
import msgspec

from scopefs.errors import NotFound
from scopefs.model.envelope import encode_name
from scopefs.model.stamps import format_collected_at, format_long_stamp
from scopefs.store import tree
from scopefs.store.atomic import sync_directory, write_temporary
from scopefs.store.drafts import Draft
from scopefs.store.layout import Layout


def make_story(
    db: apsw.Connection, scope_node: int, node: int | None, known: tuple[int | None, bytes | None],
    *, reason: str, process: str | None, uid: int | None,
) -> dict[str, Any]:  # fmt: skip
    """What is told about a write: why it failed, who wrote it, and the name it was meant for.

    `known`: directory and name that the file was to get, if the index has not heard of it.
    """
    live = tree.find_live_names(db, node) if node is not None else []
    parent, name = live[0][1:] if live else known
    if parent is not None and name is not None:
        name = tree.path_within_scope(db, parent, name)
    story: dict[str, Any] = {
        "reason": reason, "scope": tree.scope_text(db, scope_node), **encode_name(name),
        "process": process, "uid": uid,
    }  # fmt: skip
    return {key: value for key, value in story.items() if value is not None}


def save_draft(layout: Layout, draft: Draft, now_us: int, story: dict[str, Any]) -> Path:
    """Keep the bytes of a draft that will not be published; consumes it. Raises `OSError`."""
    path = _new_path(layout, now_us)
    draft.save(path)
    _describe(path, now_us, story)
    return path


def save_staged(
    layout: Layout, payload: bytes | None, file: str | None, now_us: int, story: dict[str, Any]
) -> Path:
    """Keep the bytes of a staged row, by moving its file. Raises `OSError`."""
    path = _new_path(layout, now_us)
    if file is not None:
        (layout.staging / file).rename(path)
    else:
        write_temporary(path, payload or b"")
        _sync_file(path)
    _describe(path, now_us, story)
    return path


def list_partial(layout: Layout) -> list[dict[str, Any]]:
    """The stories of all interrupted writes, oldest first, each with its id, file and size.

    A story may be missing, or say less than others: it is a file that anybody may have changed.
    """
    found = []
    for path in sorted(layout.partial.glob("*.bin")):
        with contextlib.suppress(FileNotFoundError):
            found.append(_read_story(path))
    return found


def find_partial(layout: Layout, wanted: str) -> dict[str, Any]:
    """One story, by its id, or by the name of one of its files. Raises `NotFound`."""
    stem = wanted.removesuffix(".bin").removesuffix(".json")
    for story in list_partial(layout):
        if stem in (story["id"], story["file"].removesuffix(".bin")):
            return story
    raise NotFound(f"no interrupted write is called {wanted!r}; see `scopefs partial list`")


def remove_partial(layout: Layout, file: str) -> None:
    """Remove the bytes and their story. Raises `OSError`."""
    path = layout.partial / file
    # Bytes without a story can be found, and dropped again; a story without bytes cannot.
    path.with_suffix(".json").unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    sync_directory(path.parent)


def name_of_story(story: dict[str, Any]) -> bytes | None:
    """The name that a write was meant for, folders included."""
    if isinstance(story.get("name"), str):
        return os.fsencode(story["name"])
    try:
        return bytes.fromhex(story["nameHex"]) if "nameHex" in story else None
    except (TypeError, ValueError):
        return None


def _read_story(path: Path) -> dict[str, Any]:
    told: dict[str, Any] = {}
    with contextlib.suppress(OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        told = msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=dict)
    return told | {
        "id": path.stem.rpartition("-")[2], "file": path.name, "sizeBytes": path.stat().st_size,
    }  # fmt: skip


def _new_path(layout: Layout, now_us: int) -> Path:
    return layout.partial / f"{format_long_stamp(now_us)}-{uuid.uuid4().hex[:8]}.bin"


def _describe(path: Path, now_us: int, story: dict[str, Any]) -> None:
    """Put the story beside the bytes; the names are durable when it returns."""
    # The bytes matter more than their story: on a full disk there may be room for them alone.
    with contextlib.suppress(OSError):
        line = msgspec.json.encode({"at": format_collected_at(now_us), **story}) + b"\n"
        write_temporary(path.with_suffix(".json"), line)
        _sync_file(path.with_suffix(".json"))
    sync_directory(path.parent)


def _sync_file(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
