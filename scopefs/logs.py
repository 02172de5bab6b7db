"""Where the log goes, and how its lines look.

Text for people, or with `log.format = "json"` one object for each line: `at` (UTC, ISO 8601),
`level`, `logger`, `message`, `trace` of an error that nobody expected, and the members that a
message has besides, such as `scope`, `stamp` and `name` of a version. To systemd's journal go the
priority (sd-daemon(3)) and the message; it knows the time, and the rest.
"""

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

from scopefs.store.config import LogConfig

_MAX_BYTES = 1 << 20
_BACKUPS = 2
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@contextmanager
def logging_to(path: Path | None, config: LogConfig) -> Iterator[None]:
    """Send the log to a file that is kept small, or to standard error."""
    handler: logging.Handler
    if path is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        handler = _SmallLog(path, maxBytes=_MAX_BYTES, backupCount=_BACKUPS, delay=True)
    if config.format == "json":
        handler.setFormatter(_JsonFormatter())
    elif path is None and _is_journal(sys.stderr.fileno()):
        handler.setFormatter(_JournalFormatter("%(name)s: %(message)s"))
    else:
        handler.setFormatter(logging.Formatter(_TEXT))
    # What the daemon makes, its logs included, is for its user alone.
    os.umask(0o077)
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(config.level.upper())
    # What no line of ours says is not asked for, at some us each.
    vars(logging).update(
        _srcfile=None, logThreads=False, logProcesses=False, logMultiprocessing=False,
        logAsyncioTasks=False,
    )  # fmt: skip
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def log_version(logger: logging.Logger, scope: str, stamp: str, name: bytes, size: int) -> None:
    """Log that a version is published: one line, whatever its name holds."""
    text = name.decode("utf-8", "backslashreplace")
    logger.info(
        "%s %s %s", scope, stamp, text if text.isprintable() else repr(text),
        extra={"members": {"scope": scope, "stamp": stamp, "name": text, "sizeBytes": size}},
    )  # fmt: skip


class _SmallLog(RotatingFileHandler):
    """A log that is kept small, at the cost of one question per line, not three."""

    def shouldRollover(self, record: logging.LogRecord) -> bool:
        return self.stream is not None and self.stream.tell() > self.maxBytes


class _JsonFormatter(logging.Formatter):
    """One object for each line."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        members = {
            "at": at.replace("+00:00", "Z"), "level": record.levelname.lower(),
            "logger": record.name, "message": record.getMessage(),
            **getattr(record, "members", {}),
        }  # fmt: skip
        if record.exc_info:
            members["trace"] = self.formatException(record.exc_info)
        return json.dumps(members, ensure_ascii=False)


class _JournalFormatter(logging.Formatter):
    """Lines with their priority, each of several."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next(
            number for level, number in _PRIORITIES.items() if record.levelno >= level
        )  # fmt: skip
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


_PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, 0: 7}
"""Of syslog(3), by the lowest level that has it."""


def _is_journal(fd: int) -> bool:
    """Whether what is written there goes to the journal: systemd says which file that is."""
    found = os.fstat(fd)
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
