"""Bodies that stop arriving, or come slowly."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from scopefs import Vault
from scopefs.api.bodies import STALL_S
from tests.api.asking import make_asker
from tests.api.serving import list_staged


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[Vault]:
    """A vault of the test's own."""
    with Vault.open(tmp_path / "vault", create=True) as vault:
        yield vault


@pytest.mark.parametrize("size", [0, 10, 400_000])
async def test_a_body_that_stops_arriving(
    vault: Vault, autojump_clock: MockClock, size: int
) -> None:
    """After a minute without a byte: 408, the connection ends, and nothing stays."""

    async def pieces() -> AsyncIterator[bytes]:
        if size:
            yield bytes(size)

    start_s = trio.current_time()
    answer = await make_asker(vault)("POST", "/v1/data/stall.ed", pieces, ends=False)
    assert (answer.status, answer.json["error"]) == (408, "TIMEOUT")
    assert answer.headers["connection"] == "close"
    assert STALL_S <= trio.current_time() - start_s < STALL_S + 5
    assert list_staged(vault.layout.root) == []
    assert vault.versions("stall.ed") == []


async def test_a_slow_body_is_waited_for(vault: Vault, autojump_clock: MockClock) -> None:
    """What comes at least once a minute is no stall, however long the whole takes."""

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"{", b'"a":"', *[b"x" * 100_000] * 6, b'"', b"}"):
            await trio.sleep(STALL_S - 1)
            yield piece

    answer = await make_asker(vault)("POST", "/v1/data/slow.body", pieces)
    assert (answer.status, vault.get("slow.body").payload_size) == (201, 600_008)


async def test_a_body_that_nobody_wants_and_that_stops(
    vault: Vault, autojump_clock: MockClock
) -> None:
    """The other routes do not wait for ever either; what was asked is not done."""
    vault.put("stays.here", b"{}")

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"

    answer = await make_asker(vault)("DELETE", "/v1/data/stays.here", pieces, ends=False)
    assert (answer.status, answer.json["error"]) == (408, "TIMEOUT")
    assert len(vault.versions("stays.here")) == 1
