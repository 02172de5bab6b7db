"""What all handlers of one server share."""

from dataclasses import dataclass, field

import trio

from scopefs.api.access import ANYBODY, Origins, Principal, Tokens
from scopefs.api.access_log import AccessLog
from scopefs.api.bodies import DATA_INGEST_MAX_SIZE
from scopefs.api.feed import Feed
from scopefs.api.metrics import Metrics
from scopefs.api.pending import Pending
from scopefs.commits import Commits
from scopefs.vault import Vault


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """What a server is told. `needs_token`: whether it asks who somebody is."""

    needs_token: bool = True
    max_body: int = DATA_INGEST_MAX_SIZE
    hosts: tuple[str, ...] = ()
    is_unix: bool = False


@dataclass(frozen=True, slots=True)
class Served:
    """One vault behind one server."""

    vault: Vault
    options: HttpOptions
    origins: Origins
    tokens: Tokens | None
    """None lets everybody in."""
    log: AccessLog
    metrics: Metrics
    commits: Commits
    feed: Feed
    pending: Pending
    stop: trio.Event
    """Set when the server is to end: streams end then."""
    started_s: float


@dataclass(slots=True)
class Asked:
    """What is known of one request, for those who write about it."""

    principal: Principal = field(default=ANYBODY)
    scope: str | None = None
    route: str = "unknown"
    bytes_in: int = 0
    bytes_out: int = 0
    status: int = 0
