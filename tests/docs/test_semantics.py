"""docs/semantics.md: its promises have numbers, and every ```console block of it is run.

Each block runs in one bash, in an empty home directory with a new vault mounted at ~/vault. Lines
that begin with `$ ` are commands, `> ` continues one; what follows is the expected output, standard
error included. `...` stands for anything within a line, or alone for any number of lines.
"""

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from scopefs.mount.point import is_mounted
from tests.mounting import PATIENCE_S, Mounted, run_scopefs

DOCUMENT = Path(__file__).parents[2] / "docs" / "semantics.md"
_PROMISE = re.compile(r"^\*\*(([A-Z])(\d+))\.\*\* ", re.MULTILINE)
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = "--- end of command"


@dataclass(frozen=True)
class Step:
    """One command of a block, and what it is to print."""

    command: str
    expected: str


def read_steps(block: str) -> list[Step]:
    """The commands of a block, each with its output."""
    steps: list[Step] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            steps.append(Step(line[2:], ""))
        elif line.startswith("> ") and not steps[-1].expected:
            steps[-1] = Step(f"{steps[-1].command}\n{line[2:]}", "")
        else:
            steps[-1] = Step(steps[-1].command, f"{steps[-1].expected}{line}\n")
    return steps


def read_blocks() -> list[tuple[str, list[Step]]]:
    """All blocks, each named after the promise that it stands under."""
    text = DOCUMENT.read_text(encoding="utf-8")
    seen: Counter[str] = Counter()
    blocks = []
    for match in _BLOCK.finditer(text):
        promise = _PROMISE.findall(text, 0, match.start())[-1][0]
        seen[promise] += 1
        blocks.append((f"{promise}-{seen[promise]}", read_steps(match.group(1))))
    return blocks


def to_pattern(expected: str) -> re.Pattern[str]:
    """A pattern for an output in which `...` may stand for anything."""
    parts = []
    for line in expected.splitlines():
        if line == "...":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(re.escape(line).replace(r"\.\.\.", ".*") + r"\n")
    return re.compile("".join(parts))


def run_block(steps: list[Step], home: Path) -> list[str]:
    """Run the commands of a block in one shell; returns what each printed."""
    program = home.parent / "bin" / "scopefs"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m scopefs "$@"\n')
    program.chmod(0o755)
    # The exit code of each command is there for the next one's `echo $?`.
    script = "exec 2>&1\n" + "\n".join(
        f"{step.command}\nstatus=$?; echo; echo '{_MARK}'; (exit $status)" for step in steps
    )
    environment = {
        "HOME": str(home), "XDG_DATA_HOME": str(home / ".local/share"), "LC_ALL": "C", "TZ": "UTC",
        "PATH": f"{program.parent}:{os.environ['PATH']}",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "--norc", "-c", script], cwd=home, env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    printed = done.stdout.decode("utf-8", "backslashreplace").split(f"\n{_MARK}\n")
    assert len(printed) == len(steps) + 1, f"the shell ended early: {printed}"
    return printed[:-1]


@pytest.mark.parametrize("steps", [pytest.param(steps, id=name) for name, steps in read_blocks()])
def test_example(steps: list[Step], start: Callable[..., Mounted], tmp_path: Path) -> None:
    """What the document shows is what a mount prints."""
    home = tmp_path / "home"
    (home / ".local/share/scopefs").mkdir(parents=True)
    mounted = start("home/.local/share/scopefs/vault", "home/vault")
    try:
        printed = run_block(steps, home)
    finally:
        # A block may have mounted anew, in the background: wait for whoever holds the vault.
        if is_mounted(mounted.point):
            run_scopefs("umount", str(mounted.point), vault=mounted.vault)
        assert mounted.process.wait(PATIENCE_S) == 0
    for step, found in zip(steps, printed, strict=True):
        text = "".join(f"{line}\n" for line in found.splitlines())
        assert to_pattern(step.expected).fullmatch(text), (
            f"$ {step.command}\nis to print\n{step.expected}and printed\n{text}"
        )
    mounted.check_log()


def test_promises_are_numbered_without_gaps() -> None:
    """Each letter's promises are 1, 2, 3 ...: a number cites one promise."""
    numbers: dict[str, list[int]] = {}
    for _, letter, number in _PROMISE.findall(DOCUMENT.read_text(encoding="utf-8")):
        numbers.setdefault(letter, []).append(int(number))
    assert numbers
    for letter, found in numbers.items():
        assert found == list(range(1, len(found) + 1)), f"the promises {letter}"


def test_cited_promises_exist() -> None:
    """What documents and code cite as `semantics N3` is a promise of docs/semantics.md."""
    root = DOCUMENT.parents[1]
    known = {promise for promise, _, _ in _PROMISE.findall(DOCUMENT.read_text(encoding="utf-8"))}
    for path in [root / "README.md", *root.glob("docs/**/*.md"), *root.glob("scopefs/**/*.py")]:
        cited = set(re.findall(r"semantics ([A-Z]\d+)", path.read_text(encoding="utf-8")))
        assert cited <= known, f"{path.name} cites {cited - known}"
