"""docs/http.md: every ```console block of it is run, each behind the commands of the first."""

import re
from pathlib import Path

import pytest

from tests.docs.test_semantics import Step, read_steps, run_block, to_pattern

DOCUMENT = Path(__file__).parents[2] / "docs" / "http.md"
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^## (.*)$", re.MULTILINE)
_END = Step("kill -INT $server; wait $server; echo $?", "0\n")


def read_blocks() -> tuple[list[Step], list[tuple[str, list[Step]]]]:
    """The first block; and all others, each named after its heading."""
    text = DOCUMENT.read_text(encoding="utf-8")
    first, *others = _BLOCK.finditer(text)
    named = [
        (f"{_HEADING.findall(text, 0, match.start())[-1]}-{number}", read_steps(match[1]))
        for number, match in enumerate(others, start=1)
    ]
    return read_steps(first[1]), named


FIRST, BLOCKS = read_blocks()


@pytest.mark.parametrize("steps", [pytest.param(steps, id=name) for name, steps in BLOCKS])
def test_example(steps: list[Step], tmp_path: Path) -> None:
    """What the document shows is what a server answers."""
    home = tmp_path / "home"
    home.mkdir()
    steps = [*FIRST, *steps, _END]
    for step, found in zip(steps, run_block(steps, home), strict=True):
        text = "".join(f"{line}\n" for line in found.splitlines())
        assert to_pattern(step.expected).fullmatch(text), (
            f"$ {step.command}\nis to print\n{step.expected}and printed\n{text}"
        )
