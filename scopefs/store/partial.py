"""Interrupted writes: `partial/<stamp>-<id>.bin` with the bytes, `.json` beside it with the story.

Plain files, so that they need no index: a full disk or a broken journal is when they are made.
"""

import contextlib
import os
import uuid
from pathlib import Path
from typing import Any

import msgspec

from scopefs.model.envelope import encode_name
from scopefs.model.stamps import format_collected_at, format_long_stamp
from scopefs.store.atomic import sync_directory, write_temporary
from scopefs.store.drafts import Draft
from scopefs.store.layout import Layout


def save_draft(
    layout: Layout, draft: Draft, *, now_us: int, reason: str, scope: str, name: bytes | None
) -> Path:
    """Keep the bytes of a draft that will not be published; consumes it. Raises `OSError`."""
    path = _new_path(layout, now_us)
    draft.save(path)
    _describe(path, now_us, reason, scope, name)
    return path


def save_staged(
    layout: Layout, payload: bytes | None, file: str | None, *, now_us: int, reason: str,
    scope: str, name: bytes | None,
) -> Path:  # fmt: skip
    """Keep the bytes of a staged row, by moving its file. Raises `OSError`."""
    path = _new_path(layout, now_us)
    if file is not None:
        (layout.staging / file).rename(path)
    else:
        write_temporary(path, payload or b"")
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    _describe(path, now_us, reason, scope, name)
    return path


def list_partial(layout: Layout) -> list[dict[str, Any]]:
    """The stories of all interrupted writes, oldest first, each with its file's name and size."""
    found = []
    for path in sorted(layout.partial.glob("*.bin")):
        story: dict[str, Any] = {"file": path.name, "sizeBytes": path.stat().st_size}
        with contextlib.suppress(OSError, msgspec.DecodeError):
            story |= msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=dict)
        found.append(story)
    return found


def _new_path(layout: Layout, now_us: int) -> Path:
    return layout.partial / f"{format_long_stamp(now_us)}-{uuid.uuid4().hex[:8]}.bin"


def _describe(path: Path, now_us: int, reason: str, scope: str, name: bytes | None) -> None:
    # The bytes matter more than their story: on a full disk there may be room for them alone.
    with contextlib.suppress(OSError):
        story = {
            "at": format_collected_at(now_us), "reason": reason, "scope": scope,
            **encode_name(name),
        }  # fmt: skip
        write_temporary(path.with_suffix(".json"), msgspec.json.encode(story) + b"\n")
        sync_directory(path.parent)
