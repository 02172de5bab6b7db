"""Scratch files: swap, backup, lock and partial files, which are kept but make no versions.

Programs make them beside the files that people care about, and remove or rename them again. What
is scratch is decided by the name alone, by a list of patterns that each vault may set.
Source: docs/semantics.md, S8.
"""

import re
from collections.abc import Iterable
from fnmatch import translate
from functools import lru_cache

DEFAULT_PATTERNS = (
    ".*.sw?", "*~", "#*#", ".#*", ".~lock.*#", "~$*", "._*", ".DS_Store", "*.part", "*.crdownload",
    ".goutputstream-*", "*.aria2", "*.aria2__temp", "*-journal", "*-wal", "*-shm",
    ".rsync-partial/",
)  # fmt: skip
"""Shell patterns, case-sensitive. One that ends with `/` stands for all below such a folder."""


class ScratchPatterns:
    """A list of patterns, as a decision about names."""

    def __init__(self, patterns: Iterable[str] = DEFAULT_PATTERNS) -> None:
        self.patterns = tuple(patterns)
        self._file = _compile(text for text in self.patterns if not text.endswith("/"))
        self._folder = _compile(text[:-1] for text in self.patterns if text.endswith("/"))
        self.is_scratch = lru_cache(maxsize=1024)(self._is_scratch)

    def _is_scratch(self, path: bytes) -> bool:
        """Whether a file is scratch. `path`: its name within the scope, folders included."""
        *folders, name = path.split(b"/")
        if self._file is not None and self._file.match(name):
            return True
        return self._folder is not None and any(map(self._folder.match, folders))


def _compile(patterns: Iterable[str]) -> re.Pattern[bytes] | None:
    texts = [translate(text).encode("utf-8", "surrogateescape") for text in patterns]
    return re.compile(b"|".join(texts), re.DOTALL) if texts else None


NO_SCRATCH = ScratchPatterns(())
"""Every file makes versions."""
