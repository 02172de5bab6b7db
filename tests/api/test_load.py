"""Clients that keep their connections busy, each of whose answers is looked at."""

import random

import httpx
import pytest
import trio

from tests.api.serving import JSON, Served
from tests.mounting import PATIENCE_S

ROUNDS = 320


@pytest.mark.parametrize("connections", [1, 16, 64])
async def test_every_answer_is_right(served: Served, connections: int) -> None:
    """POSTs of 1 KiB: each is answered for itself, and reads back byte for byte at once."""
    scope = f"load.c{connections}"
    stored: dict[str, bytes] = {}

    async def use(worker: int) -> None:
        async with httpx.AsyncClient(
            base_url=served.url, headers={"Authorization": f"Bearer {served.token}"},
            timeout=PATIENCE_S, limits=httpx.Limits(max_connections=1),
        ) as client:  # fmt: skip
            filler = random.Random(worker).randbytes(500).hex()
            for number in range(ROUNDS // connections):
                body = f'{{"w":{worker},"n":{number},"x":"{filler}"}}'.encode()
                answer = await client.post(f"/v1/data/{scope}", content=body, headers=JSON)
                assert answer.status_code == 201
                told = answer.json()
                assert (told["scope"], told["status"]) == (scope, "stored")
                assert told["collectedAt"] not in stored
                stored[told["collectedAt"]] = body
                asked = {"at": told["collectedAt"], "content": "raw"}
                found = await client.get(f"/v1/data/{scope}", params=asked)
                assert found.content == body

    async with trio.open_nursery() as nursery:
        for worker in range(connections):
            nursery.start_soon(use, worker)
    page = served.client.get(f"/v1/data/{scope}/versions?limit=1000").json()
    assert page["total"] == len(stored) == ROUNDS
    assert {item["collectedAt"] for item in page["versions"]} == set(stored)
