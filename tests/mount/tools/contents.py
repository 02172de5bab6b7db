"""What docs/tools.md does not spell out: other contents, and versions that no name shows."""

import random

OLD = b"old\n"
NEW = b"old\nnew\n"
BIG = random.Random(0).randbytes(600 * 1024)
HALF = BIG[: len(BIG) // 2]
WORDS = {"old": OLD, "new": NEW, "big": BIG, "half": HALF, "empty": b""}
"""Contents by the words that stand for them in a row."""

ONE, TWO, THREE = b"1\n", b"1\n2\n", b"1\n2\n3\n"
_ONE_KEY = b"'a', (0, 1)\n"
_TWO_KEYS = _ONE_KEY + b"'b', (512, 1)\n"

CONTENTS: dict[str, dict[str, bytes]] = {
    "cp --sparse": {"f": bytes(100 * 1024)},
    ">> in a loop": {"f": OLD + THREE},
    "> after a loop": {"f": THREE},
    "copy and truncate": {"f": b"new\n"},
    "rotate": {"f": b"new\n"},
    "sort -o": {"f": b"new\nold\n"},
    "split": {"pab": b"new\n"},
    "csplit": {"xx01": b"new\n"},
    "dd seek": {"f": OLD + bytes(96) + b"new\n"},
    "dd of a size": {"f": OLD + bytes(96)},
    "truncate": {"f": b"old"},
    "truncate, longer": {"f": OLD + bytes(4)},
    "truncate, new": {"g": bytes(4)},
    "fallocate -x": {"f": OLD + bytes(4)},
    "Finder": {"._f": b"x\n", ".DS_Store": b"x\n"},
    "dbm in Python": {
        "g.dat": b"1" + bytes(511) + b"2", "g.dir": _TWO_KEYS, "g.bak": _TWO_KEYS,
    },
    "json.dump": {"g": b'{"a": [1, 2]}'},
    "a shell script": {"partial/": b"new\n"},
}  # fmt: skip
"""By action and name. Of an archive or a swap file it is not known beforehand."""

GONE: dict[str, list[bytes | None]] = {
    ">> in a loop": [OLD + ONE, OLD + TWO],
    "tar r": [None],
    "zip, again": [None],
    "7z, again": [None],
    "ar": [b"!<arch>\n"],
    "ar, again": [b"!<arch>\n", None],
    "gunzip": [None],
    "curl -C": [HALF],
    "wget -c": [HALF],
    "wget, by itself": [HALF],
    "sqlite3, twice": [None],
    "dbm in Python": [b"1", _ONE_KEY],
    "open, twice": [OLD],
    "mmap": [OLD + bytes(4)],
    "removed by another program": [NEW],
    "a file that was there before": [b"new\n"],
    "renamed before": [b"new\n"],
    "mv over an open file": [b"x\n"],
}
"""Payloads of new versions, by action, that no name shows in the end; None if not known."""
