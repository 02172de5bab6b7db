"""Types the commands of a page into one shell, as its reader would, and compares what they print.

    try_readme.py PAGE COMMAND...     COMMAND with -c TEXT is a login shell that runs TEXT

The rule, which is that of docs/semantics.md: in a block that begins with ```console, lines with
`$ ` are commands, `> ` continues one, and what follows is what it prints, standard error included,
with `...` for anything. Where nothing follows, it may print anything. Dates, ages and mtimes are
not compared. A command has to succeed, unless the page shows how it fails. A block that begins with
```console not-tried: REASON
is not typed, and its reason is told. No other blocks may stand in the page.
"""

import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.docs.test_semantics import Step, read_steps, to_pattern

PATIENCE_S = 900
NOT_TRIED = "console not-tried: "
_BLOCK = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
_VARIES = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d[:-]\d\d[:-]\d\d(\.\d+)?Z|\b\d{19}\b|just now|\b\d+ [a-z]+ ago\b"
)
_DRIVER = r"""
cd ~/scopefs
while IFS= read -r -d "" command; do
    eval "$command" </dev/null 2>&1
    printf "\0%d\0" $?
done
"""
_STORED = 'compgen -G "$HOME/vault/*/*/.versions/*Z*" >/dev/null'


class Wrong(Exception):
    """The page does not say what happens."""


class Shell:
    """One login, into which commands are typed."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            [*command, "-c", _DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    def type(self, command: str, *, echo: bool = True) -> tuple[int, str]:
        """Run a command: its exit code, and what it printed, which is also shown as it comes."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(command.encode() + b"\0")
        begun = time.monotonic()
        printed = b""
        while printed.count(b"\0") < 2:
            left = begun + PATIENCE_S - time.monotonic()
            if not select.select([stdout], [], [], max(left, 0))[0]:
                raise Wrong(f"it is not over after {PATIENCE_S} s")
            if not (piece := stdout.read(65536)):
                raise Wrong("the shell has ended")
            printed += piece
            if echo:
                print(re.sub(rb"\0\d*", b"", piece).decode(errors="replace"), end="", flush=True)
        text, code, _ = printed.split(b"\0")
        return int(code), text.decode(errors="replace")


def read_page(text: str) -> Iterator[tuple[int, Step | str]]:
    """The commands with their lines; of a block that is not tried, the reason."""
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        kind, block = match.groups()
        if kind.startswith(NOT_TRIED):
            yield line, kind.removeprefix(NOT_TRIED)
        elif kind == "console":
            lines = enumerate(block.splitlines(), start=line + 1)
            begins = [number for number, each in lines if each.startswith("$ ")]
            yield from zip(begins, read_steps(block), strict=True)
        else:
            raise Wrong(f"line {line}: a block is ```console, or ```{NOT_TRIED}REASON")


def compare(step: Step, code: int, printed: str) -> None:
    """Raise `Wrong` if the page does not say this."""
    text = "".join(f"{line}\n" for line in printed.splitlines())
    if step.expected:
        if not to_pattern(_VARIES.sub("...", step.expected)).fullmatch(text):
            raise Wrong(f"the page shows\n{step.expected}and it printed\n{text}")
    elif code:
        raise Wrong(f"exit code {code}")


def main(page: Path, command: list[str]) -> None:
    """Type it all; ends with 1 at the first thing that is wrong."""
    try:
        steps = list(read_page(page.read_text(encoding="utf-8")))
    except Wrong as wrong:
        sys.exit(f"{page.name}: {wrong}")
    shell = Shell(command)
    begun = time.monotonic()
    stored_s = None
    tried, left_out = 0, []
    for line, step in steps:
        if isinstance(step, str):
            left_out.append(f"{page.name}:{line}: not tried: {step}")
            continue
        print(f"{page.name}:{line}: $ {step.command}", flush=True)
        start = time.monotonic()
        try:
            code, printed = shell.type(step.command)
            end = time.monotonic()
            print("" if printed.endswith("\n") or not printed else "\n", end="")
            print(f"    {end - start:.1f} s", flush=True)
            compare(step, code, printed)
        except Wrong as wrong:
            sys.exit(f"{page.name}:{line}: {step.command}: {wrong}")
        tried += 1
        if stored_s is None and shell.type(_STORED, echo=False)[0] == 0:
            stored_s = end - begun
    print("", *left_out, f"{tried} commands as {page.name} says", sep="\n")
    if stored_s is None:
        sys.exit("no version was stored")
    print(f"from the bare system to the first version: {stored_s:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
