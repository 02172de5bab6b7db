"""What leaves the door when something breaks that nobody thought of."""

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from scopefs import Vault
from tests.api.asking import make_asker


async def test_the_unexpected_says_nothing_of_the_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """500 INTERNAL_ERROR without a word of the reason, which the log tells with its trace."""

    async def nothing() -> AsyncIterator[bytes]:
        return
        yield b""

    def break_down() -> None:
        raise RuntimeError("the secret reason")

    with Vault.open(tmp_path / "vault", create=True) as vault:
        monkeypatch.setattr(vault, "read", break_down)
        with caplog.at_level(logging.ERROR):
            answer = await make_asker(vault)("GET", "/v1/data", nothing)
    assert (answer.status, answer.json["error"]) == (500, "INTERNAL_ERROR")
    assert b"secret" not in answer.body
    assert b"RuntimeError" not in answer.body
    assert "the secret reason" in caplog.text
    assert "Traceback" in caplog.text
