"""The log: where it goes, how its lines look, and which there are."""

import json
import logging
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scopefs.logs import logging_to
from scopefs.store.config import LogConfig
from tests.mount.reading import count_versions
from tests.mounting import Mounted, run_scopefs

Start = Callable[..., Mounted]

SCRIPT = """
import logging
import os
import sys
from scopefs.logs import logging_to
from scopefs.store.config import LogConfig

if sys.argv[1] == "journal":
    found = os.fstat(2)
    os.environ["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino}"
with logging_to(None, LogConfig()):
    log = logging.getLogger("scopefs.some")
    log.debug("too much")
    log.info("a version")
    log.warning("look at this")
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("failed")
"""


def run(where: str) -> list[str]:
    """What a program logs to its standard error."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, where], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    return done.stderr.splitlines()


def log_all(path: Path, config: LogConfig) -> list[str]:
    """What of one message of each level is logged."""
    with logging_to(path, config):
        for level in ("debug", "info", "warning", "error"):
            getattr(logging.getLogger("scopefs.some"), level)("%s it is", level)
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_level_is_the_lowest_that_is_logged(tmp_path: Path, level: Any) -> None:
    lines = log_all(tmp_path / "log", LogConfig(level))
    levels = ["debug", "info", "warning", "error"]
    wanted = levels[levels.index(level) :]
    assert [line.partition(": ")[2] for line in lines] == [f"{each} it is" for each in wanted]


def test_journal_gets_priorities_and_no_times() -> None:
    """Each line of a trace has one, or the journal would take it for a message of its own."""
    lines = run("journal")
    assert lines[:3] == [
        "<6>scopefs.some: a version", "<4>scopefs.some: look at this", "<3>scopefs.some: failed",
    ]  # fmt: skip
    assert lines[-1] == "<3>ZeroDivisionError: division by zero"
    assert all(line.startswith("<3>") for line in lines[2:])


def test_terminal_gets_times() -> None:
    """JOURNAL_STREAM alone is nothing: who inherits it may have standard error elsewhere."""
    first = run("terminal")[0]
    assert first.endswith(" INFO scopefs.some: a version")
    assert first.startswith("20")


def test_json_has_an_object_for_each_line(tmp_path: Path) -> None:
    """With the trace of what nobody expected, and the members of a message."""
    path = tmp_path / "log"
    with logging_to(path, LogConfig(format="json")):
        log = logging.getLogger("scopefs.some")
        log.info("two\nlines", extra={"members": {"scope": "a.b"}})
        try:
            raise ValueError("no")
        except ValueError:
            log.exception("failed")
    told, failed = map(json.loads, path.read_text().splitlines())
    assert told.pop("at").endswith("Z")
    assert told == {
        "level": "info", "logger": "scopefs.some", "message": "two\nlines", "scope": "a.b",
    }  # fmt: skip
    assert failed["trace"].endswith("ValueError: no")


@pytest.mark.parametrize("how", ["text", "json"])
def test_mount_logs_a_line_for_each_version(start: Start, how: str) -> None:
    """At info; whatever the file's name holds, it is one line."""
    mounted = start("vault", "mnt", "--log-format", how)
    scope = mounted.make_scope()
    for name in ("a.txt", "two\nlines", "Größe"):
        (scope / name).write_text("content")
    assert count_versions(scope) == 3
    lines = [line for line in mounted.log.splitlines() if "my.files" in line]
    assert len(lines) == 3
    if how == "json":
        told = [json.loads(line) for line in lines]
        assert [line["name"] for line in told] == ["a.txt", "two\nlines", "Größe"]
        assert {line["sizeBytes"] for line in told} == {7}
        assert f"{told[0]['stamp']}.json" in {path.name for path in (scope / ".versions").iterdir()}
    else:
        assert [line.rpartition("Z")[2].partition(" ")[2] for line in lines][1:] == [
            r"'two\nlines'", "Größe",
        ]  # fmt: skip
    mounted.stop()


def test_versions_by_http_and_by_import_are_logged_too(start: Start, tmp_path: Path) -> None:
    """Once each; a request that is repeated has made none."""
    door = tmp_path / "door"
    mounted = start("vault", "mnt", "--log-format", "json", "--http", f"unix:{door}")
    token = run_scopefs("token", "show", vault=mounted.vault).stdout.decode().strip()
    for _ in range(2):
        subprocess.run(
            ["curl", "-sf", "--unix-socket", door, "http://localhost/v1/data/my.posted", "-d", "{}",
             "-H", f"Authorization: Bearer {token}", "-H", "Idempotency-Key: one",
             "-H", "Content-Type: application/json"],
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    scope = mounted.make_scope()
    (scope / "a.txt").write_text("content")
    version = next(path for path in (scope / ".versions").iterdir() if "Z" in path.name)
    envelope = version.read_bytes()
    run_scopefs("rm", "--forever", "my.files", version.stem, vault=mounted.vault)
    version.write_bytes(envelope)
    version.write_bytes(envelope)
    mounted.stop()
    told = [json.loads(line) for line in mounted.log.splitlines()]
    found = [(line["scope"], line["name"], line["sizeBytes"]) for line in told if "stamp" in line]
    assert found == [("my.posted", "", 2), ("my.files", "a.txt", 7), ("my.files", "a.txt", 7)]


@pytest.mark.parametrize(
    ("arguments", "level", "lines"),
    [((), None, 0), (("--log-level", "info"), None, 1), ((), "info", 1),
     (("--log-level", "error"), "info", 0)],
)  # fmt: skip
def test_serve_logs_versions_if_it_is_asked_to(
    tmp_path: Path, arguments: tuple[str, ...], level: str | None, lines: int
) -> None:
    """By a flag or by what is configured; else nothing but what went wrong."""
    environment = {**os.environ, **({"SCOPEFS_LOG_LEVEL": level} if level else {})}
    with subprocess.Popen(
        [sys.executable, "-m", "scopefs", "serve", "--http", "127.0.0.1:0", "--http-auth", "none",
         "--vault", tmp_path / "vault", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True,
    ) as server:  # fmt: skip
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        request = urllib.request.Request(f"{url}/v1/data/my.files", b"{}", method="POST",
                                         headers={"Content-Type": "application/json"})  # fmt: skip
        with urllib.request.urlopen(request) as answer:
            assert answer.status == 201
        server.terminate()
        _, log = server.communicate()
    assert len(log.splitlines()) == lines
    assert server.returncode == 0


def test_mount_logs_only_what_is_asked_for(start: Start) -> None:
    mounted = start("vault", "mnt", "--log-level", "warning")
    scope = mounted.make_scope()
    (scope / "a.txt").write_text("content")
    assert count_versions(scope) == 1
    mounted.stop()
    assert "a.txt" not in mounted.log
