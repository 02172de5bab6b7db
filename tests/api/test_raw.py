"""`content=raw` and names: ranges, ETags, HEAD, attachments."""

import hashlib
from urllib.parse import quote

import pytest

from scopefs.api.routes import OPERATIONS
from tests.api.serving import BYTES, Served, error_of

SIZE = 2_500_000
BODY = hashlib.shake_128(b"raw").digest(SIZE)
ETAG = f'"{hashlib.sha256(BODY).hexdigest()}"'
RAW = "/v1/data/raw.big?content=raw"


@pytest.fixture(scope="module", autouse=True)
def stored(served: Served) -> None:
    """One payload of several chunks, under a name."""
    name = "Grüße & 100%.bin"
    served.post("raw.big", BODY, Content_Type="video/mp4", X_Filename=f"UTF-8''{quote(name)}")
    served.post("raw.small", b"0123456789", Content_Type="text/plain", X_Filename="plain.txt")


def test_headers(served: Served) -> None:
    """Type, length, attachment with the name, nosniff, ETag."""
    headers = served.client.get(RAW).headers
    assert headers["content-type"] == "video/mp4"
    assert headers["content-length"] == str(SIZE)
    assert headers["etag"] == ETAG
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-disposition"] == (
        'attachment; filename="Gr__e & 100_.bin";'
        " filename*=UTF-8''Gr%C3%BC%C3%9Fe%20%26%20100%25.bin"
    )
    plain = served.client.get("/v1/data/raw.small?content=raw").headers["content-disposition"]
    assert plain == 'attachment; filename="plain.txt"'


def test_head(served: Served) -> None:
    """HEAD says the same without a body, at every route and of errors too."""
    paths = {
        operation.path.replace("{scope}", "raw.small").replace("{name}", "plain.txt")
        for operation in OPERATIONS
        if operation.method == "GET"
    } - {"/v1/events"}
    own = (RAW, "/v1/data/raw.big", "/v1/data/raw.small?content=raw", "/openapi.json", "/v1/none",
           "/v1/data/No", "/v1/data/raw.none", "/v1/data?limit=0")  # fmt: skip
    for path in sorted(paths) + list(own):
        head, get = served.client.head(path), served.client.get(path)
        assert head.content == b""
        assert head.status_code == get.status_code
        # What tells of the requests themselves has grown in between.
        grows = path in ("/health", "/metrics", "/v1/access-logs", "/v1/none")
        skipped = ("date", "content-length") if grows else ("date",)
        assert [pair for pair in head.headers.items() if pair[0] not in skipped] == [
            pair for pair in get.headers.items() if pair[0] not in skipped
        ], path


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [("bytes=0-0", 0, 0), ("bytes=5-", 5, SIZE - 1), ("bytes=-7", SIZE - 7, SIZE - 1),
     ("bytes=1048570-1048590", 1048570, 1048590), (f"bytes=0-{SIZE * 2}", 0, SIZE - 1),
     (f"bytes=-{SIZE * 2}", 0, SIZE - 1), (f"bytes={SIZE - 1}-", SIZE - 1, SIZE - 1),
     ("Bytes=3-4", 3, 4), (f"bytes=1-{'9' * 40}", 1, SIZE - 1),
     (f"bytes=-{'9' * 40}", 0, SIZE - 1)],
)  # fmt: skip
def test_a_range(served: Served, asked: str, first: int, last: int) -> None:
    """206 with exactly these bytes."""
    response = served.client.get(RAW, headers={"Range": asked})
    assert response.status_code == 206
    assert response.headers["content-range"] == f"bytes {first}-{last}/{SIZE}"
    assert response.content == BODY[first : last + 1]


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", "bytes=-0", f"bytes={SIZE + 5}-{SIZE + 9}",
                                   f"bytes={'9' * 40}-"])  # fmt: skip
def test_a_range_behind_the_end(served: Served, asked: str) -> None:
    """416, and how long it is."""
    response = served.client.get(RAW, headers={"Range": asked})
    assert error_of(response) == (416, "RANGE_NOT_SATISFIABLE")
    assert response.headers["content-range"] == f"bytes */{SIZE}"
    assert response.json()["details"] == {"sizeBytes": SIZE}


@pytest.mark.parametrize(
    "asked", ["bytes=5-2", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6", "bytes=-", ""]
)
def test_no_range(served: Served, asked: str) -> None:
    """What is no single range is passed over: all of it."""
    response = served.client.get("/v1/data/raw.small?content=raw", headers={"Range": asked})
    assert (response.status_code, response.content) == (200, b"0123456789")


@pytest.mark.parametrize(
    ("tags", "status"),
    [(ETAG, 304), (f"W/{ETAG}", 304), (f'"x", {ETAG}', 304), ("*", 304), ('"x"', 200)],
)
def test_if_none_match(served: Served, tags: str, status: int) -> None:
    """304 without a body if the client has it, whatever range it asks for."""
    response = served.client.get(RAW, headers={"If-None-Match": tags})
    assert response.status_code == status
    assert response.headers["etag"] == ETAG
    assert (response.content == b"") == (status == 304)
    both = served.client.get(RAW, headers={"If-None-Match": tags, "Range": "bytes=0-4"})
    assert both.status_code == (304 if status == 304 else 206)


def test_if_none_match_in_several_lines(served: Served) -> None:
    """Each line is looked at."""
    lines = [("If-None-Match", '"x"'), ("If-None-Match", f'"y", {ETAG}')]
    assert served.client.get(RAW, headers=lines).status_code == 304
    assert served.client.get(RAW, headers=lines[:1]).status_code == 200


def test_if_range(served: Served) -> None:
    """A range of what has changed is all of it."""
    asked = {"Range": "bytes=0-4"}
    assert served.client.get(RAW, headers={**asked, "If-Range": ETAG}).status_code == 206
    for other in ('"old"', f"W/{ETAG}", "Tue, 01 Dec 2026 03:28:44 GMT"):
        assert served.client.get(RAW, headers={**asked, "If-Range": other}).status_code == 200


def test_names_are_listed_read_written_and_ended(served: Served) -> None:
    """PUT makes a version, GET reads it, DELETE ends the name; its versions stay."""
    path = "/v1/data/names.all/names/" + quote("Ordner ä/b?#%.txt")
    for body in (b"one", b"two"):
        response = served.client.put(path, content=body, headers=BYTES)
        assert (response.status_code, response.json()["status"]) == (201, "stored")
    read = served.client.get(path)
    assert (read.content, read.headers["content-type"]) == (b"two", "text/plain")
    page = served.client.get("/v1/data/names.all/names").json()
    item = page["names"][0]
    assert (page["total"], item["name"], item["sizeBytes"]) == (1, "Ordner ä/b?#%.txt", 3)
    assert item["contentHash"] == f"0x{hashlib.sha256(b'two').hexdigest()}"
    for _ in range(2):
        assert served.client.delete(path).status_code == 204
    assert error_of(served.client.get(path)) == (404, "NOT_FOUND")
    assert served.client.get("/v1/data/names.all/versions").json()["total"] == 2
    assert served.client.delete("/v1/data/never.there/names/x").status_code == 204


def test_names_that_are_no_utf8(served: Served) -> None:
    """A name is bytes, escaped in the address and given in hexadecimal in a listing."""
    path = "/v1/data/names.bytes/names/%FF%FE"
    assert served.client.put(path, content=b"x").status_code == 201
    assert served.client.get(path).content == b"x"
    item = served.client.get("/v1/data/names.bytes/names").json()["names"][0]
    assert (item["name"], item["nameHex"]) == (None, "fffe")


def test_line_breaks_in_names(served: Served) -> None:
    """They are bytes like others, also at the end; and no path is another's with one behind it."""
    for name in ("a%0Ab", "a%0A", "a"):
        path = f"/v1/data/names.breaks/names/{name}"
        assert served.client.put(path, content=name.encode()).status_code == 201
        assert served.client.get(path).content == name.encode()
    assert served.client.get("/v1/data/names.breaks/names").json()["total"] == 3
    for path in ("/v1/data%0A", "/v1/data/names.breaks/versions%0A", "/health%0A"):
        assert error_of(served.client.get(path)) == (404, "NOT_FOUND")


@pytest.mark.parametrize("name", ["", "%2E%2E", "a/%2E/b", "a%00b", "x" * 256, ".versions"])
def test_names_that_cannot_be(served: Served, name: str) -> None:
    """400, and nothing is stored."""
    response = served.client.put(f"/v1/data/names.no/names/{name}", content=b"x")
    assert error_of(response) == (400, "INVALID_BODY")
    assert served.client.get("/v1/data/names.no/names").json()["total"] == 0


def test_an_empty_name_needs_bytes(served: Served) -> None:
    """PUT of nothing makes no version."""
    response = served.client.put("/v1/data/names.no/names/a", content=b"")
    assert error_of(response) == (400, "INVALID_BODY")
