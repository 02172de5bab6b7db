"""The bytes of versions that are imported, on their way into the journal.

Up to 64 KiB they stand in their row; larger ones in a staging file, which is durable before any row
names it.
"""

import dataclasses
from collections.abc import Iterable

from scopefs.errors import PayloadCorrupt
from scopefs.model.imports import Arrival
from scopefs.store.drafts import MEMORY_MAX_BYTES, Draft
from scopefs.store.publish import Sealed
from scopefs.store.readers import PayloadReader

_CHUNK_BYTES = 1 << 20


def seal_in_row(arrival: Arrival) -> Sealed | None:
    """An arrival whose payload goes into its row; None if it is too large or in a blob."""
    facts, payload = arrival.facts, arrival.payload
    if payload is None or len(payload) > MEMORY_MAX_BYTES:
        return None
    return Sealed(facts.size_bytes, facts.sha256, facts.kind, facts.media_type, payload, None)


def seal_in_draft(draft: Draft, arrival: Arrival, blob: Iterable[bytes]) -> Sealed:
    """An arrival whose payload goes through a draft; `blob` has it, if the envelope has not.

    Raises `PayloadCorrupt` if the blob is not the one that the envelope names.
    """
    for chunk in blob if arrival.payload is None else (arrival.payload,):
        draft.append(chunk)
    return adopt_sealed(draft.seal(None), arrival)


def adopt_sealed(sealed: Sealed, arrival: Arrival) -> Sealed:
    """Sealed bytes as those of an arrival. Raises `PayloadCorrupt` if they are not."""
    facts = arrival.facts
    if (sealed.size, sealed.sha256) != (facts.size_bytes, facts.sha256):
        raise PayloadCorrupt(
            f"the blob of {arrival.scope} does not have the size and hash that its envelope names: "
            f"{facts.sha256.hex()}"
        )
    return dataclasses.replace(sealed, kind=facts.kind, media_type=facts.media_type)


def iterate_chunks(reader: PayloadReader) -> Iterable[bytes]:
    """All bytes of a reader, which is closed behind the last."""
    try:
        for start in range(0, reader.size, _CHUNK_BYTES):
            yield reader.read(start, _CHUNK_BYTES)
    finally:
        reader.close()
