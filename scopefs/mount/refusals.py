"""Refusals in words: what was refused, why, and what to type instead.

An errno cannot say why. Each refusal of a name or a place becomes a line of
`<vault>/logs/rejected.jsonl`, which the mount shows as `.scopefs/rejected.jsonl`.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from shlex import quote

from scopefs.model.naming import CONTROL_NAME, NodeKind, Place
from scopefs.model.scope import is_segment, suggest_segment
from scopefs.model.stamps import format_collected_at

KEEP_BYTES = 1 << 20
_LOG = logging.getLogger(__name__)


class Refusals:
    """Writes and reads the log of refusals; keeps between half a MiB and one MiB of it."""

    def __init__(
        self, path: Path, mountpoint: str, clock_us: Callable[[], int], *, is_kept: bool = True
    ) -> None:  # fmt: skip
        """`is_kept`: whether new lines are written; for a vault that is only read they are not."""
        self._path = path
        self._mountpoint = mountpoint
        self._clock_us = clock_us
        self._is_kept = is_kept
        self.count = 0
        """How many there were, kept or not."""

    def note(self, operation: str, parent: Place, path: bytes, name: bytes, reason: str) -> None:
        """Record one refusal. Never fails: the caller is about to answer an error already."""
        text = name.decode("utf-8", "replace")
        where = path.decode("utf-8", "replace")
        line = {
            "at": format_collected_at(self._clock_us()),
            "operation": operation,
            "path": f"{self._mountpoint}/{where}/{text}".replace("//", "/"),
            "reason": reason,
            "try": suggest_command(self._mountpoint, operation, parent, text),
        }
        self.count += 1
        _LOG.warning("refused %s %s: %s", operation, line["path"], reason)
        if not self._is_kept:
            return
        try:
            self._trim()
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            _LOG.warning("the refusal cannot be written to %s: %s", self._path, error)

    def read(self) -> bytes:
        """The lines that are kept, oldest first."""
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return b""

    def _trim(self) -> None:
        if not self._path.exists() or self._path.stat().st_size < KEEP_BYTES:
            return
        content = self._path.read_bytes()[-KEEP_BYTES // 2 :]
        self._path.write_bytes(content[content.find(b"\n") + 1 :])


def suggest_command(mountpoint: str, operation: str, parent: Place, name: str) -> str:
    """A command that does what was probably meant."""
    if operation == "import":
        return "scopefs import SOURCE"
    if name.startswith("-"):
        # Or cp takes it for an option.
        name = f"./{name}"
    if parent.kind >= NodeKind.SCOPE or name.encode() == CONTROL_NAME:
        return f"cat {quote(f'{mountpoint}/.scopefs/README.txt')}"
    source = parent.segments[0] if parent.segments else ""
    if operation == "mkdir":
        if not source:
            source, category = suggest_segment(name), "files"
        else:
            category = suggest_segment(name)
        target = quote(f"{mountpoint}/{source}/{category}")
        return f"mkdir -p {target} && cp -r {quote(name)}/. {target}/"
    stem = name.removeprefix("./").partition(".")[0]
    category = stem if is_segment(stem) else suggest_segment(stem)
    target = quote(f"{mountpoint}/{source or 'my'}/{category}")
    return f"mkdir -p {target} && cp {quote(name)} {target}/"
