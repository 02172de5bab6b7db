"""How long the state machines explore, and what they write.

CI runs the same programs each time. With `SCOPEFS_MODEL_EXAMPLES` (so many programs, of
`SCOPEFS_MODEL_STEPS` steps) they are new ones each time, as `scripts/soak` wants them, and what
failed is tried again first, from a database below the machine's temporary directory. A failure ends
with a line `@reproduce_failure(...)`: put it above the factory that the test gives to `explore`.
"""

import hashlib
import os
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

EXAMPLES = int(os.environ.get("SCOPEFS_MODEL_EXAMPLES", "0"))
CI_EXAMPLES = 30
STEPS = int(os.environ.get("SCOPEFS_MODEL_STEPS", "40"))
SIZES = (1, 5, 0, 4096, 5_000, 16_384, 16_385, 65_535, 65_536, 65_537, 70_000, 131_072, 200_000)
"""Around the limits of pages, inline payloads, and drafts in memory."""


@dataclass(frozen=True)
class Content:
    """Bytes that are short to print: the same ones for the same size and seed."""

    size: int
    seed: int
    is_document: bool = False

    def make(self) -> bytes:
        """The bytes."""
        if self.is_document and self.size > 12:
            return b'{"k": "%s"}' % (b"%d" % self.seed * self.size)[: self.size - 9]
        return random.Random(self.seed).randbytes(self.size)


contents = st.builds(Content, st.sampled_from(SIZES), st.integers(0, 9), st.booleans())


def explore(factory: Callable[[], RuleBasedStateMachine]) -> None:
    """Run a state machine; a failure shows the shortest program that was found for it."""
    kept = DirectoryBasedExampleDatabase(Path(tempfile.gettempdir(), "scopefs-hypothesis"))
    found = settings(
        max_examples=EXAMPLES or CI_EXAMPLES, derandomize=not EXAMPLES, stateful_step_count=STEPS,
        deadline=None, print_blob=True, report_multiple_bugs=False,
        database=kept if EXAMPLES else None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    run_state_machine_as_test(factory, settings=found)


def digest(content: bytes) -> str:
    """Bytes for a message: how many, how they begin, and their hash."""
    return f"{len(content)} {content[:12]!r} {hashlib.sha256(content).hexdigest()[:8]}"
