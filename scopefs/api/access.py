"""Who may do what: tokens, and where a request comes from.

A browser can be made to send requests here by any page that its user looks at. So a foreign `Host`
is refused (a name that was made to point at this machine: DNS rebinding), and so is a foreign
`Origin` (a page elsewhere that posts here). Raises `MissingAuth`, `Forbidden`, `Unavailable`.
"""

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from scopefs.errors import Forbidden, MissingAuth, Unavailable
from scopefs.model.scope import Scope
from scopefs.store.layout import Layout
from scopefs.store.listing import EVERYTHING, is_matched
from scopefs.store.tokens import Right, Token, hash_token, load_tokens, stamp_tokens


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `name` is None where nobody is asked who it is."""

    name: str | None
    rights: tuple[Right, ...]
    scopes: tuple[str, ...]

    def check_right(self, right: Right) -> None:
        """Refuse what the token is not good for. Raises `Forbidden`."""
        if right not in self.rights:
            raise Forbidden(f"the token {self.name!r} has no right to {right}")

    def check_scope(self, scope: Scope | None) -> None:
        """Refuse a scope that the token is not for; None: the vault as a whole."""
        if not is_matched(None if scope is None else scope.raw, self.scopes):
            what = "the vault as a whole" if scope is None else scope.raw
            raise Forbidden(f"the token {self.name!r} is not for {what}")


ANYBODY = Principal(None, (Right.READ, Right.WRITE), EVERYTHING)


class Tokens:
    """The tokens of a vault as they are now: the file is looked at for every request."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._stamp: tuple[int, int, int] | None = None
        self._tokens: tuple[Token, ...] = ()

    def find_principal(self, authorization: str) -> Principal:
        """Whose `Authorization` that is. Raises `MissingAuth`."""
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer" or not secret.strip():
            raise MissingAuth(
                "a token is needed: send `Authorization: Bearer TOKEN`; `scopefs token show` "
                "tells it"
            )
        given = hash_token(secret.strip())
        found: Token | None = None
        # All are compared, each in constant time: how long it takes tells nothing.
        for token in self._load():
            if hmac.compare_digest(token.sha256, given):
                found = token
        if found is None:
            raise MissingAuth("the token is not known, or was revoked")
        return Principal(found.name, found.rights, found.scopes)

    def _load(self) -> tuple[Token, ...]:
        stamp = stamp_tokens(self._layout.tokens)
        if stamp is None:
            check_there(self._layout)
        if stamp != self._stamp:
            self._tokens = load_tokens(self._layout)
            self._stamp = stamp
        return self._tokens


def check_there(layout: Layout) -> None:
    """Refuse to speak for a vault that was moved away. Raises `Unavailable`."""
    if not layout.vault_json.exists():
        raise Unavailable("the vault's directory is gone")


@dataclass(frozen=True, slots=True)
class Origins:
    """Where requests may be addressed to, and come from."""

    hosts: frozenset[str]
    origins: frozenset[str]
    is_unix: bool = False

    def check_host(self, host: str) -> None:
        """Refuse a request that is addressed to a name which is not ours. Raises `Forbidden`."""
        name = _host_name(host)
        if self.is_unix or _is_own_name(name) or name in self.hosts:
            return
        raise Forbidden(
            f"the request is addressed to {host[:100]!r}: use the address itself, or name the host "
            "in config.toml ([http] hosts)"
        )

    def check_origin(self, headers: Mapping[str, str]) -> str | None:
        """The configured page elsewhere that asks; None for no page, or one of ours.

        Raises `Forbidden`.
        """
        origin = headers.get("origin")
        if origin is None:
            return None
        if origin in self.origins:
            return origin
        # One of ours has been served under the very host that it asks.
        if _origin_host(origin) == headers.get("host"):
            return None
        raise Forbidden(
            f"pages of {origin[:100]!r} may not use this vault: name them in config.toml "
            "([http] origins)"
        )


def _origin_host(origin: str) -> str:
    """Host and port of an origin; nothing for `null`, and for what is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0].removeprefix("[").lower()
    return host.partition(":")[0].lower().removesuffix(".")


def _is_own_name(name: str) -> bool:
    """An address cannot be rebound, and `localhost` is nobody else's."""
    if name == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
