"""`Idempotency-Key`: a request that is sent again is done once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scopefs import Vault
from scopefs.errors import Conflict
from scopefs.model.scope import parse_scope
from scopefs.store.receipts import KEEP_US, Once, Stored
from scopefs.store.sql import fetch
from tests.api.serving import Served, error_of, list_staged

SECOND_US = 1_000_000


def count(served: Served, scope: str) -> int:
    """How many versions a scope has."""
    total: int = served.client.get(f"/v1/data/{scope}/versions").json()["total"]
    return total


def test_the_same_again_gets_the_first_receipt(served: Served) -> None:
    """The same key and body: the first answer, and one version."""
    first = served.post("once.same", b'{"n":1}', Idempotency_Key="k-1")
    again = served.post("once.same", b'{"n":1}', Idempotency_Key="k-1")
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert ("idempotent-replayed" in first.headers, again.headers["idempotent-replayed"]) == (
        False, "true",
    )  # fmt: skip
    assert count(served, "once.same") == 1


@pytest.mark.parametrize(
    ("scope", "body", "headers"),
    [("once.other", b'{"n":2}', {}), ("once.elsewhere", b'{"n":1}', {}),
     ("once.other", b'{"n":1}', {"Content_Type": "text/plain"}),
     ("once.other", b'{"n":1}', {"X_Filename": "a"})],
)  # fmt: skip
def test_another_request_with_the_key(
    served: Served, scope: str, body: bytes, headers: dict[str, str]
) -> None:
    """The same key with another body, scope, type or name: 409, and nothing is stored."""
    served.post("once.other", b'{"n":1}', Idempotency_Key="k-2")
    before = count(served, scope)
    response = served.post(scope, body, Idempotency_Key="k-2", **headers)
    assert error_of(response) == (409, "CONFLICT")
    assert count(served, scope) == before


def test_keys_are_each_callers_own(served: Served) -> None:
    """Two tokens may use one key."""
    other = served.make_token("other", "write", "*")
    served.post("once.mine", b"{}", Idempotency_Key="k-3")
    response = other.post("/v1/data/once.mine", content=b"{}", headers={"Idempotency-Key": "k-3"})
    assert response.status_code == 201
    assert count(served, "once.mine") == 2


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
def test_keys_that_are_none(served: Served, key: str) -> None:
    """1 to 255 printable characters."""
    assert error_of(served.post("once.no", b"{}", Idempotency_Key=key)) == (400, "INVALID_QUERY")


def test_at_the_same_time(served: Served) -> None:
    """Twenty at once with one key are one version."""
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(
            lambda _: served.post("once.race", b'{"n":1}', Idempotency_Key="race"), range(20)
        ))  # fmt: skip
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["collectedAt"] for answer in answers}) == 1
    assert count(served, "once.race") == 1


def test_a_large_repeated_body_leaves_nothing(served: Served) -> None:
    """The bytes of a request that was done before do not stay in staging/."""
    body = bytes(300_000)
    for _ in range(2):
        served.post("once.large", body, Content_Type="text/plain", Idempotency_Key="large")
    assert count(served, "once.large") == 1
    assert len(list_staged(served.vault)) <= 1


def test_receipts_outlive_the_server(serve: Callable[..., Served]) -> None:
    """The answer is the first one also after a kill, and when the version is in the trash."""
    server = serve()
    first = server.post("once.kept", b"{}", Idempotency_Key="k").json()
    server.kill()
    second = serve()
    assert second.post("once.kept", b"{}", Idempotency_Key="k").json() == first
    second.client.delete("/v1/data/once.kept")
    assert second.post("once.kept", b"{}", Idempotency_Key="k").json() == first
    second.stop()


def test_receipts_are_kept_for_two_days(tmp_path: Path) -> None:
    """After 48 hours a key is free again, and old receipts are swept by new ones."""
    now = [1_800_000_000 * SECOND_US]

    def put(vault: Vault, key: int, body: bytes = b"{}") -> Stored:
        with vault.new_draft() as draft:
            draft.append(body)
            once = Once(key.to_bytes(32, "big"), bytes(32))
            work = vault.plan_put(parse_scope("a.b"), draft, writer="http", once=once)
            return vault.apply_durably(work)

    with Vault.open(tmp_path / "vault", create=True, clock_us=lambda: now[0]) as vault:
        first = put(vault, 0)
        assert [put(vault, key).is_repeated for key in range(1, 40)] == [False] * 39
        now[0] += KEEP_US - SECOND_US
        assert put(vault, 0).is_repeated
        with pytest.raises(Conflict):
            put(vault, 0, b'{"n":1}')
        now[0] += 2 * SECOND_US
        assert put(vault, 0, b'{"n":1}') != first
        for key in range(100, 105):
            put(vault, key)
        with vault.read() as db:
            assert fetch(db, "SELECT COUNT(*) FROM receipts") == [(6,)]
