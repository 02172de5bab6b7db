"""What goes over the wire: the JSON of answers. Sizes in bytes, times as collectedAt."""

from typing import Annotated, Any, Literal

import msgspec

from scopefs.model.envelope import encode_name
from scopefs.model.naming import NodeKind
from scopefs.model.stamps import format_collected_at
from scopefs.store.index import ScopeCount, Version
from scopefs.store.tree import Entry

Time = Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?Z$")]
Hash = Annotated[str, msgspec.Meta(pattern="^0x[0-9a-f]{64}$")]
Count = Annotated[int, msgspec.Meta(ge=0)]


class ErrorBody(msgspec.Struct):
    """The one shape of every error."""

    error: str
    message: str
    details: dict[str, Any] = {}


class Stored(msgspec.Struct, rename="camel"):
    """The answer to a put."""

    scope: str
    collected_at: Time
    status: Literal["stored"] = "stored"


class Health(msgspec.Struct):
    """The answer of /health; uptime in seconds, the vault by its id."""

    status: Literal["healthy"]
    version: str
    uptime: float
    vault: str


class ScopeItem(msgspec.Struct, rename="camel"):
    """A scope that has versions."""

    scope: str
    latest_collected_at: Time
    version_count: Count
    size_bytes: Count


class VersionItem(msgspec.Struct, rename="camel", omit_defaults=True):
    """A version; `version` is its number. A name that is not UTF-8 is given in hexadecimal."""

    collected_at: Time
    version: int
    name: str | None
    size_bytes: Count
    content_hash: Hash
    media_type: str
    name_hex: str | None = None


class NameItem(msgspec.Struct, rename="camel", omit_defaults=True):
    """A name and what it shows: nothing but a size of 0, if the file is empty."""

    name: str | None
    size_bytes: Count
    kind: Literal["file", "symlink"] = msgspec.field(default="file")
    collected_at: Time | None = None
    version: int | None = None
    content_hash: Hash | None = None
    media_type: str | None = None
    name_hex: str | None = None


class ScopePage(msgspec.Struct):
    """The answer of /v1/data."""

    scopes: list[ScopeItem]
    total: Count
    limit: Count
    offset: Count


class VersionPage(msgspec.Struct):
    """The answer of /v1/data/{scope}/versions, newest first."""

    scope: str
    versions: list[VersionItem]
    total: Count
    limit: Count
    offset: Count


class NamePage(msgspec.Struct):
    """The answer of /v1/data/{scope}/names."""

    scope: str
    names: list[NameItem]
    total: Count
    limit: Count
    offset: Count


class Access(msgspec.Struct, rename="camel"):
    """One request: who asked what, and what became of it."""

    at: Time
    token: str | None
    client: str | None
    method: str
    path: str
    scope: str | None
    status: int
    bytes_in: Count
    bytes_out: Count
    ms: float


class AccessPage(msgspec.Struct):
    """The answer of /v1/access-logs, newest first."""

    logs: list[Access]
    total: Count
    limit: Count
    offset: Count


class Envelope(msgspec.Struct, rename="camel"):
    """An envelope. `data` is the document, or describes a payload that is none."""

    version: Literal["1.0"]
    scope: str
    collected_at: Time
    data: dict[str, Any]
    file: dict[str, Any] = {}


def show_scope(found: ScopeCount) -> ScopeItem:
    """A scope as it is listed."""
    return ScopeItem(
        found.scope, format_collected_at(found.latest_us or 0), found.versions, found.bytes
    )


def show_version(found: Version) -> VersionItem:
    """A version as it is listed."""
    name = encode_name(found.name)
    return VersionItem(
        found.collected_at, found.id, name.get("name"), found.payload_size,
        f"0x{found.payload_sha256.hex()}", found.media_type or "application/octet-stream",
        name.get("nameHex"),
    )  # fmt: skip


def show_entry(path: bytes, entry: Entry, version: Version | None) -> NameItem:
    """A name as it is listed."""
    name = encode_name(path)
    item = NameItem(name.get("name"), entry.size, name_hex=name.get("nameHex"))
    if entry.kind is NodeKind.SYMLINK:
        item.kind = "symlink"
    elif version is not None:
        item.collected_at, item.version = version.collected_at, version.id
        item.content_hash = f"0x{version.payload_sha256.hex()}"
        item.media_type = version.media_type
    return item
