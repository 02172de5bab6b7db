"""Listings: scopes, versions, names, access logs, metrics."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from tests.api.serving import Served, error_of


@pytest.fixture(scope="module", autouse=True)
def filled(served: Served) -> None:
    """Some scopes and versions."""
    for scope in ("instagram.profile", "instagram.profile.shared", "instagram2.x", "insta.gram"):
        assert served.post(scope, b"{}").status_code == 201
    for number in range(5):
        served.post("pages.many", b'{"n":%d}' % number, X_Filename=f"f{number}.json")


def test_scopes(served: Served) -> None:
    """By name, with the newest time, the number of versions and the bytes of their payloads."""
    page = served.client.get("/v1/data").json()
    assert list(page) == ["scopes", "total", "limit", "offset"]
    assert (page["total"], page["limit"], page["offset"]) == (5, 50, 0)
    names = [item["scope"] for item in page["scopes"]]
    assert names == sorted(names)
    many = page["scopes"][names.index("pages.many")]
    assert (many["versionCount"], many["sizeBytes"]) == (5, 35)
    newest = served.client.get("/v1/data/pages.many").json()["collectedAt"]
    assert many["latestCollectedAt"] == newest


@pytest.mark.parametrize(
    ("prefix", "found"),
    [("instagram", ["instagram.profile", "instagram.profile.shared"]),
     ("instagram.profile", ["instagram.profile", "instagram.profile.shared"]),
     ("instagram.profile.shared", ["instagram.profile.shared"]), ("instagram.", []),
     ("Instagram", []), ("insta", ["insta.gram"]), ("%", []), ("instagra_", []), ("*", [])],
)  # fmt: skip
def test_prefix(served: Served, prefix: str, found: list[str]) -> None:
    """Literal, case-sensitive, and ending at a segment."""
    page = served.client.get("/v1/data", params={"scopePrefix": prefix}).json()
    assert [item["scope"] for item in page["scopes"]] == found
    assert page["total"] == len(found)


def test_pages(served: Served) -> None:
    """limit and offset cut what a listing says, and total does not change."""
    for path, key in (("/v1/data", "scopes"), ("/v1/data/pages.many/versions", "versions"),
                      ("/v1/data/pages.many/names", "names")):  # fmt: skip
        whole = served.client.get(path).json()
        parts = []
        for offset in range(0, 6, 2):
            page = served.client.get(f"{path}?limit=2&offset={offset}").json()
            assert (page["total"], page["limit"], page["offset"]) == (5, 2, offset)
            parts += page[key]
        assert parts == whole[key]
        assert served.client.get(f"{path}?offset={2**63 - 1}").json()[key] == []


@pytest.mark.parametrize("path", ["/v1/data", "/v1/data/a.b/versions", "/v1/data/a.b/names",
                                  "/v1/access-logs"])  # fmt: skip
@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=-1", "limit=", "limit=1.0", "limit=x", "limit=%2B1",
     "limit=1e2", "limit=%D9%A1", "offset=-1", "offset=x", "offset=9223372036854775808",
     "limit=0x1", "limit=+1"],
)  # fmt: skip
def test_numbers_out_of_range(served: Served, path: str, query: str) -> None:
    """Anything but whole numbers in range: 400."""
    assert error_of(served.client.get(f"{path}?{query}")) == (400, "INVALID_QUERY")


def test_versions(served: Served) -> None:
    """Newest first, with all that the contract names; an unknown scope is empty."""
    page = served.client.get("/v1/data/pages.many/versions").json()
    assert list(page) == ["scope", "versions", "total", "limit", "offset"]
    assert [item["name"] for item in page["versions"]] == [f"f{n}.json" for n in range(4, -1, -1)]
    assert {"collectedAt", "version", "name", "sizeBytes", "contentHash", "mediaType"} == set(
        page["versions"][0]
    )
    empty = served.client.get("/v1/data/no.such/versions").json()
    assert (empty["versions"], empty["total"]) == ([], 0)


def test_access_logs(serve: Callable[..., Served]) -> None:
    """Who asked what, newest first, over all days; lines that are none are skipped."""
    server = serve()
    server.post("log.me", b'{"n":1}')
    server.client.get("/v1/data/log.me")
    with server.make_client("wrong") as client:
        client.get("/v1/data/log.me")
    today = datetime.now(UTC).date()
    old = server.vault / "logs" / f"access-{today - timedelta(days=1)}.log"
    line = {"at": "2026-01-01T00:00:00Z", "token": "old", "client": None, "method": "GET",
            "path": "/v1/data", "scope": None, "status": 200, "bytesIn": 0, "bytesOut": 1,
            "ms": 0.5}  # fmt: skip
    old.write_text(f"{json.dumps(line)}\nno line\n{{}}\n\xff\n{json.dumps(line)}\n")
    page = server.client.get("/v1/access-logs").json()
    assert list(page) == ["logs", "total", "limit", "offset"]
    assert page["total"] == 5
    told = [(item["token"], item["method"], item["status"], item["scope"]) for item in page["logs"]]
    assert told == [
        (None, "GET", 401, None), ("default", "GET", 200, "log.me"),
        ("default", "POST", 201, "log.me"), ("old", "GET", 200, None), ("old", "GET", 200, None),
    ]  # fmt: skip
    assert page["logs"][2]["bytesIn"] == 7
    pages = [
        server.client.get(f"/v1/access-logs?limit=1&offset={offset}").json()["logs"][0]["token"]
        for offset in (5, 4)
    ]
    # Each asking is a line itself.
    assert pages == ["old", "default"]
    names = sorted(path.name for path in (server.vault / "logs").glob("access-*.log"))
    assert names[-1] == f"access-{today}.log"
    assert (server.vault / "logs" / names[-1]).stat().st_mode & 0o777 == 0o600
    server.stop()


def test_metrics(served: Served) -> None:
    """Requests by route, and what the vault holds."""
    served.client.get("/v1/data/metrics.none")
    response = served.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    text = response.text
    assert 'requests_total{method="GET",route="/v1/data/{scope}",status="404"}' in text
    assert "scopefs_vault_versions 9.0" in text
