"""POST, GET and DELETE of /v1/data/{scope}: what is stored, and what is read back."""

import base64
import hashlib
import json
import re
from typing import Any
from urllib.parse import quote

import pytest

from scopefs.model.stamps import parse_collected_at
from tests.api.serving import BYTES, JSON, Served, error_of
from tests.mounting import run_scopefs

MIB = 1 << 20


def object_of(size: int) -> bytes:
    """A JSON object of exactly `size` bytes."""
    return b'{"a":"' + b"x" * (size - 8) + b'"}'


def test_an_object_is_stored_verbatim(served: Served) -> None:
    """The body's bytes stand in the envelope as they came: blanks, duplicates, long numbers."""
    body = b'{ "b":1e999,\n"a": 9007199254740993, "a":2, "$binary": true }\n'
    response = served.post("post.verbatim", body)
    assert response.status_code == 201
    assert list(response.json()) == ["scope", "collectedAt", "status"]
    assert response.json()["status"] == "stored"
    envelope = served.client.get("/v1/data/post.verbatim").content
    assert envelope.endswith(b'"data":' + body + b"}\n")
    assert json.loads(envelope)["collectedAt"] == response.json()["collectedAt"]
    assert served.client.get("/v1/data/post.verbatim?content=raw").content == body


def test_without_a_content_type_it_is_json(served: Served) -> None:
    """A body that is announced as nothing must be an object too."""
    assert served.client.post("/v1/data/post.bare", content=b"{}").status_code == 201
    assert error_of(served.client.post("/v1/data/post.bare", content=b"x")) == (400, "INVALID_BODY")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
def test_json_is_recognised(served: Served, kind: str) -> None:
    """Parameters and case of the content type do not matter."""
    assert served.post("post.kinds", b"{}", Content_Type=kind).status_code == 201
    assert error_of(served.post("post.kinds", b"[]", Content_Type=kind)) == (400, "INVALID_BODY")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b'{"a":NaN}', b'{"a":"\xff"}', b"{}{}",
                                  rb'{"a":"\ud800}', rb'{"a":\ud800}', rb'["\ud800"]',
                                  rb'{"a":"\ud80g"}', b'\xef\xbb\xbf{}', b'{"a":1}\0'])  # fmt: skip
def test_what_is_no_object_is_refused(served: Served, body: bytes) -> None:
    """Not JSON, or no object: 400, and nothing is stored."""
    assert error_of(served.post("post.refused", body)) == (400, "INVALID_BODY")
    assert served.client.get("/v1/data/post.refused/versions").json()["total"] == 0


@pytest.mark.parametrize("body", [rb'{"a":"\ud800"}', rb'{"\uDFFFx":[1]}', rb'{"a":"\\\ud83d"}'])
def test_half_a_character_is_stored(served: Served, body: bytes) -> None:
    """A lone surrogate is JSON, and what JavaScript writes of a cut string: it becomes a blob."""
    assert served.post("post.halves", body).status_code == 201
    assert served.client.get("/v1/data/post.halves?content=raw").content == body
    assert served.client.get("/v1/data/post.halves").json()["data"]["encoding"] == "base64"


def test_a_deep_object_is_stored(served: Served) -> None:
    """An object too deep for an envelope is an object all the same: it becomes a blob."""
    body = b'{"a":' * 300 + b"1" + b"}" * 300
    assert served.post("post.deep", body).status_code == 201
    assert served.client.get("/v1/data/post.deep?content=raw").content == body


@pytest.mark.parametrize("size", [1, 16_384, 16_385, 65_536, 65_537, 3 * MIB + 1])
def test_a_blob_of_any_size(served: Served, size: int) -> None:
    """What has another content type comes back byte for byte, raw and in its envelope."""
    scope = f"blob.size{size}"
    body = hashlib.shake_128(b"x").digest(size)
    assert served.post(scope, body, Content_Type="image/png").status_code == 201
    raw = served.client.get(f"/v1/data/{scope}?content=raw")
    assert raw.content == body
    assert raw.headers["content-type"] == "image/png"
    data = served.client.get(f"/v1/data/{scope}").json()["data"]
    assert base64.b64decode(data.pop("content")) == body
    assert data == {
        "$binary": True, "mimeType": "image/png", "sizeBytes": size,
        "contentHash": f"0x{hashlib.sha256(body).hexdigest()}", "encoding": "base64",
    }  # fmt: skip


def test_an_object_as_a_blob(served: Served) -> None:
    """With another content type an object is a blob, and what looks like one is just data."""
    body = b'{"$binary":true,"encoding":"blob","contentHash":"0x00"}'
    assert served.post("blob.object", body, Content_Type="text/plain").status_code == 201
    data = served.client.get("/v1/data/blob.object").json()["data"]
    assert (data["encoding"], base64.b64decode(data["content"])) == ("base64", body)
    assert served.post("blob.user", body).status_code == 201
    assert served.client.get("/v1/data/blob.user").json()["data"] == json.loads(body)


def test_an_empty_blob_is_refused(served: Served) -> None:
    """Nothing makes no version."""
    assert error_of(served.post("blob.empty", b"", Content_Type="text/plain")) == (
        400, "INVALID_BODY",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"X-Filename": "a b.txt"}, "a b.txt"),
        ({"X-Filename": "café.txt".encode()}, "café.txt"),
        ({"X-Filename": "100%25.txt"}, "100%25.txt"),
        ({"X-Filename": "UTF-8''caf%C3%A9.txt"}, "café.txt"),
        ({"X-Filename": "My Photos/2024/a.jpg"}, "My Photos/2024/a.jpg"),
        ({"Content-Disposition": 'attachment; filename="a;\\"b.txt"'}, 'a;"b.txt'),
        ({"Content-Disposition": "attachment; filename=plain.txt"}, "plain.txt"),
        ({"Content-Disposition": "attachment; filename=x; filename*=UTF-8''%E2%82%AC.txt"},
         "€.txt"),
        ({"Content-Disposition": "attachment; filename*=iso-8859-1'en'%A3.txt"}, "£.txt"),
        ({"Content-Disposition": 'attachment; filename="C:\\\\dir\\\\a.txt"'}, "a.txt"),
        ({"Content-Disposition": "inline"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_file_names(served: Served, headers: dict[str, Any], name: str | None) -> None:
    """The name comes from X-Filename, else from Content-Disposition, also as RFC 8187 has it."""
    scope = f"named.n{hashlib.sha256(repr(headers).encode()).hexdigest()[:10]}"
    response = served.client.post(
        f"/v1/data/{scope}", content=b"bytes", headers={"Content-Type": "text/plain", **headers}
    )
    assert response.status_code == 201
    version = served.client.get(f"/v1/data/{scope}/versions").json()["versions"][0]
    assert version["name"] == name
    if name is not None:
        assert served.client.get(f"/v1/data/{scope}/names/{quote(name)}").content == b"bytes"


@pytest.mark.parametrize(
    "headers",
    [{"X-Filename": ".."}, {"X-Filename": "/etc/passwd"}, {"X-Filename": "a/../b"},
     {"X-Filename": "x" * 256}, {"X-Filename": ".versions"}, {"X-Filename": "UTF-8''%zz"},
     {"Content-Disposition": "attachment; filename*=utf-16''a"}, {"X-Metadata": "x" * 8193}],
)  # fmt: skip
def test_names_that_cannot_be(served: Served, headers: dict[str, str]) -> None:
    """A name that no file can have: 400, and nothing is stored."""
    response = served.client.post("/v1/data/named.no", content=b"x", headers={**BYTES, **headers})
    assert error_of(response) == (400, "INVALID_BODY")
    assert served.client.get("/v1/data/named.no/versions").json()["total"] == 0


@pytest.mark.parametrize(
    ("text", "shown"),
    [('{"a": [1, 2], "data": {}}', {"a": [1, 2], "data": {}}), ("[1]", [1]), ("12", 12),
     ("plain text", "plain text"), ('{"a":', '{"a":'), ("NaN", "NaN"),
     ("caf\u00e9".encode(), "caf\u00e9"), ("[" * 500 + "]" * 500, "[" * 500 + "]" * 500)],
)  # fmt: skip
def test_metadata(served: Served, text: Any, shown: object) -> None:
    """X-Metadata is JSON if it parses, else text, and stands in the envelope."""
    headers = {**BYTES, "X-Metadata": text}
    scope = f"meta.m{hashlib.sha256(repr(text).encode()).hexdigest()[:10]}"
    assert served.client.post(f"/v1/data/{scope}", content=b"x", headers=headers).is_success
    assert served.client.get(f"/v1/data/{scope}").json()["data"]["metadata"] == shown


def test_a_silent_content_type_is_guessed(served: Served) -> None:
    """What curl sends unasked says nothing: the name tells."""
    for kind in ("application/octet-stream", "application/x-www-form-urlencoded"):
        served.post("blob.guessed", b"x", Content_Type=kind, X_Filename="a.png")
        found = served.client.get("/v1/data/blob.guessed/versions").json()["versions"][0]
        assert found["mediaType"] == "image/png"


@pytest.mark.parametrize("scope", ["bad", "a.b.c.d", "Test.scope", "1.a", "a..b", "a.b%00", "%FF"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_invalid_scopes(served: Served, scope: str, method: str) -> None:
    """A scope that is none: 400, at every route."""
    for rest in ("", "/versions", "/names") if method == "GET" else ("",):
        response = served.client.request(method, f"/v1/data/{scope}{rest}")
        assert error_of(response) == (400, "INVALID_SCOPE")


def test_nothing_there(served: Served) -> None:
    """404 with the words of the contract."""
    response = served.client.get("/v1/data/no.such")
    assert error_of(response) == (404, "NOT_FOUND")
    assert response.json()["message"] == 'No data found for scope "no.such"'


def test_at_compares_instants(served: Served) -> None:
    """The newest at or before a time, in any form of ISO 8601, with offset and fraction."""
    times = [served.post("read.at", b'{"n":%d}' % n).json()["collectedAt"] for n in (1, 2)]
    second_us = parse_collected_at(times[1])
    assert second_us % 1_000_000

    def ask(at: str) -> int | str:
        response = served.client.get("/v1/data/read.at", params={"at": at})
        body = response.json()
        return body["data"]["n"] if response.is_success else body["error"]

    exact = times[1].replace("Z", "+00:00")
    assert [ask(times[1]), ask(exact), ask("2999-01-01T00:00:00+14:00")] == [2, 2, 2]
    assert [ask(times[0]), ask(times[0].lower())] == [1, 1]
    earlier = f"{times[1][:-2]}{int(times[1][-2]) - 1}Z" if times[1][-2] != "0" else None
    if earlier is not None:
        assert ask(earlier) == 1
    assert ask("2000-01-01T00:00:00Z") == "NOT_FOUND"
    day, clock = times[1][:10], times[1][11:-1]
    hour = int(clock[:2])
    if 2 <= hour < 22:
        moved = f"{day}T{hour + 2:02d}{clock[2:]}+02:00"
        assert ask(moved) == 2
        # A plus that nobody escaped has become a blank.
        raw = served.client.get(f"/v1/data/read.at?at={moved}")
        assert raw.json()["data"]["n"] == 2


@pytest.mark.parametrize("at", ["", " ", "yesterday", "2026-13-01", "2026-01-01T25:00:00Z", "1e3",
                                "2026-01-01T00:00:00+99:00", "\0"])  # fmt: skip
def test_unreadable_times(served: Served, at: str) -> None:
    """Unreadable or empty: 400."""
    response = served.client.get("/v1/data/read.none", params={"at": at})
    assert error_of(response) == (400, "INVALID_TIMESTAMP")


def test_version_by_number(served: Served) -> None:
    """`version` names one version of that scope; a removed or foreign one is not there."""
    served.post("read.version", b'{"n":1}')
    served.post("read.other", b"{}")
    number = served.client.get("/v1/data/read.version/versions").json()["versions"][0]["version"]
    served.post("read.version", b'{"n":2}')
    found = served.client.get(f"/v1/data/read.version?version={number}").json()
    assert found["data"] == {"n": 1}
    assert error_of(served.client.get(f"/v1/data/read.other?version={number}"))[0] == 404
    for at, status in (("2999", 200), ("2000", 404)):
        both = served.client.get(f"/v1/data/read.version?version={number}&at={at}")
        assert both.status_code == status


def test_deleting_a_scope(served: Served) -> None:
    """204, also when nothing is there; to the trash; never a child scope."""
    served.post("gone.scope", b"{}")
    served.post("gone.scope.child", b"{}")
    for _ in range(2):
        response = served.client.delete("/v1/data/gone.scope")
        assert (response.status_code, response.content) == (204, b"")
    assert served.client.get("/v1/data/gone.scope").status_code == 404
    assert b"gone.scope" in run_scopefs("trash", "list", vault=served.vault).stdout
    assert served.client.get("/v1/data/gone.scope.child").status_code == 200
    assert served.client.delete("/v1/data/never.there").status_code == 204


def test_the_largest_body_passes(served: Served) -> None:
    """Exactly 52,428,800 bytes pass, with a length and chunked; one more is refused."""
    body = object_of(50 * MIB)
    pieces = (body[start : start + MIB] for start in range(0, len(body), MIB))
    assert served.client.post("/v1/data/big.chunked", content=pieces, headers=JSON).is_success
    assert served.client.get("/v1/data/big.chunked?content=raw").content == body
    more = body[:-1] + b" }"
    assert error_of(served.post("big.more", more)) == (413, "CONTENT_TOO_LARGE")
    pieces = (more[start : start + MIB] for start in range(0, len(more), MIB))
    response = served.client.post("/v1/data/big.more", content=pieces, headers=JSON)
    assert error_of(response) == (413, "CONTENT_TOO_LARGE")


def test_bodies_of_other_routes(served: Served) -> None:
    """A body that nobody wants may have 1,048,576 bytes."""
    allowed = served.client.request("GET", "/v1/data", content=b"x" * MIB)
    assert allowed.status_code == 200
    refused = served.client.request("GET", "/v1/data", content=b"x" * (MIB + 1))
    assert error_of(refused) == (413, "CONTENT_TOO_LARGE")
    chunked = served.client.request("DELETE", "/v1/data/a.b", content=iter([b"x" * MIB, b"x"]))
    assert error_of(chunked) == (413, "CONTENT_TOO_LARGE")


def test_collected_at_has_the_form_of_the_contract(served: Served) -> None:
    """The first in a second without a fraction, the next with six digits."""
    times = [served.post("post.form", b"{}").json()["collectedAt"] for _ in range(3)]
    assert all(re.fullmatch(r"[\d-]{10}T[\d:]{8}(\.\d{6})?Z", text) for text in times)
    assert [parse_collected_at(text) for text in times] == sorted(map(parse_collected_at, times))
