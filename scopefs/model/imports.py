"""Arrivals: envelopes that come from elsewhere, checked before anything is done with them.

An arrival becomes a version only if scopefs would write the very same bytes for it, so that what
was imported cannot be told from what was published. Envelopes of other programs, which have no
member `file`, are the exception: the text of `data` becomes the payload of a nameless version.

Source: docs/semantics.md, X.
"""

import hashlib
from dataclasses import dataclass

import msgspec

from scopefs.errors import InvalidEnvelope, InvalidName, InvalidTime, TooLarge
from scopefs.model.envelope import (
    Envelope,
    FileFacts,
    decode_envelope,
    decode_stored,
    encode_stored,
    find_payload_slice,
)
from scopefs.model.naming import NodeKind, Place, check_file_place, place_directory, show_name
from scopefs.model.payload import (
    DOCUMENT_MAX_BYTES,
    Kind,
    decide_kind,
    guess_media_type,
    is_json_object,
)
from scopefs.model.scope import Scope
from scopefs.model.stamps import SECOND_US, format_collected_at

AHEAD_MAX_US = 5 * SECOND_US
"""How far ahead of the clock an imported collectedAt may be."""

ENVELOPE_MAX_BYTES = DOCUMENT_MAX_BYTES + (1 << 20)
"""No envelope that scopefs writes is larger: the largest document, and room for the rest."""

_EDGE_BYTES = 4096
_INT64 = range(-(1 << 63), 1 << 63)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A checked envelope. `payload` is None if it stands in a blob."""

    scope: Scope
    collected_us: int
    facts: FileFacts
    payload: bytes | None


class _Members(msgspec.Struct):
    file: msgspec.Raw = msgspec.Raw(b"")


def decode_arrival(content: bytes) -> Arrival:
    """Read an envelope that is to be imported, and check its payload against size and hash.

    Raises `InvalidEnvelope`, `TooLarge`.
    """
    if len(content) > ENVELOPE_MAX_BYTES:
        raise TooLarge(f"an envelope has at most {ENVELOPE_MAX_BYTES} bytes, not {len(content)}")
    envelope = decode_envelope(content)
    if envelope.collected_us <= 0:
        raise InvalidEnvelope(f"collectedAt {envelope.collected_at} is before 1970")
    if envelope.file is None:
        return _adopt_foreign(envelope, content)
    facts = envelope.file
    if not facts.size_bytes:
        raise InvalidEnvelope("an empty payload makes no version")
    if facts.mtime_ns is not None and facts.mtime_ns not in _INT64:
        raise InvalidEnvelope(f"mtimeNs {facts.mtime_ns} is no time")
    if facts.name is not None:
        try:
            check_name_within(envelope.scope, facts.name)
        except InvalidName as error:
            raise InvalidEnvelope(f"no file of {envelope.scope} has that name: {error}") from error
    stored = find_payload_slice(envelope, content)
    if facts.kind is Kind.BLOB:
        return Arrival(envelope.scope, envelope.collected_us, facts, None)
    payload = decode_stored(facts.kind, stored)
    if (len(payload), hashlib.sha256(payload).digest()) != (facts.size_bytes, facts.sha256):
        raise InvalidEnvelope("the payload does not have the size and hash that the envelope names")
    if encode_stored(facts.kind, payload) != stored or (
        # Something could stand behind `data`, and be taken for a part of the payload.
        facts.kind is Kind.DOCUMENT and not is_json_object(payload)
    ):
        raise InvalidEnvelope("the envelope is not as scopefs would have written it")
    return Arrival(envelope.scope, envelope.collected_us, facts, payload)


def check_arrival_time(collected_us: int, now_us: int) -> None:
    """Refuse a version from the future. Raises `InvalidTime`."""
    if collected_us > now_us + AHEAD_MAX_US:
        raise InvalidTime(
            f"collectedAt {format_collected_at(collected_us)} is more than "
            f"{AHEAD_MAX_US // SECOND_US} seconds ahead of the clock, {format_collected_at(now_us)}"
        )


def check_name_within(scope: Scope, name: bytes) -> None:
    """Refuse a name, folders included, that no file of the scope can have. Raises `InvalidName`."""
    place = Place(NodeKind.SCOPE, scope.segments)
    *folders, base = name.split(b"/")
    for folder in folders:
        place = place_directory(place, folder)
        if place.kind is not NodeKind.FOLDER:
            raise InvalidName(f"the directory {show_name(folder)} is a scope of its own")
    check_file_place(place, base)


def _adopt_foreign(envelope: Envelope, content: bytes) -> Arrival:
    """The version that another program's envelope becomes."""
    if bytes(msgspec.json.decode(content, type=_Members).file):
        # Ours, damaged, or of a newer scopefs: its `data` may not be the payload.
        raise InvalidEnvelope("the envelope has a member `file` that this scopefs does not know")
    payload = envelope.data
    kind = decide_kind(payload)
    facts = FileFacts(
        kind, len(payload), hashlib.sha256(payload).digest(),
        guess_media_type(kind, None, payload[:_EDGE_BYTES]),
    )  # fmt: skip
    return Arrival(envelope.scope, envelope.collected_us, facts, payload)
