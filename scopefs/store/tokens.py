"""`tokens.json`: who may use the HTTP door. Made, 0600, when it is first needed.

The token `default` may do everything and stands there as it is, readable by the vault's owner
alone; of all others only the SHA-256 is kept, and the token is told once, when it is made. Changes
replace the file as a whole, so that a server sees a revocation at the next request. Raises
`Conflict`, `NotFound`, `Unavailable`.
"""

import hashlib
import os
import secrets
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from scopefs.errors import Conflict, InvalidQuery, InvalidScope, NotFound, Unavailable
from scopefs.model.scope import find_segment_fault, parse_scope
from scopefs.store.atomic import sync_directory, write_temporary
from scopefs.store.layout import Layout, locked

DEFAULT_NAME = "default"
NAME_MAX = 64
_BYTES = 32


class Right(StrEnum):
    """What a token is good for."""

    READ = "read"
    WRITE = "write"


class Token(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One entry of tokens.json. `token`: the secret itself, of the default one alone."""

    name: str
    sha256: str
    rights: tuple[Right, ...]
    scopes: tuple[str, ...]
    created_at: str = ""
    token: str = ""


class _File(msgspec.Struct):
    tokens: tuple[Token, ...] = ()


def load_tokens(layout: Layout) -> tuple[Token, ...]:
    """All tokens; none if there is no file. Raises `Unavailable` if it cannot be understood."""
    try:
        return msgspec.json.decode(layout.tokens.read_bytes(), type=_File).tokens
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unavailable(
            f"{layout.tokens} cannot be read as tokens: {error}; remove it to begin anew"
        ) from error


def ensure_default_token(layout: Layout, created_at: str) -> str:
    """The default token, made if there is none."""
    # It may be in a vault that can only be read.
    if found := _find_default(load_tokens(layout)):
        return found
    with locked(layout, "tokens"):
        tokens = load_tokens(layout)
        if found := _find_default(tokens):
            return found
        secret = secrets.token_urlsafe(_BYTES)
        made = Token(
            DEFAULT_NAME, hash_token(secret), (Right.READ, Right.WRITE), ("*",), created_at, secret
        )
        _replace(layout, (made, *tokens))
        return secret


def add_token(
    layout: Layout, name: str, rights: Sequence[Right], scopes: Sequence[str], created_at: str
) -> str:
    """Make a named token, and return it: it is kept nowhere. Raises `Conflict`."""
    if not name or len(name) > NAME_MAX or not name.isprintable() or name != name.strip():
        raise InvalidQuery(f"{name!r} is no name: 1 to {NAME_MAX} printable characters")
    for pattern in scopes:
        check_pattern(pattern)
    with locked(layout, "tokens"):
        tokens = load_tokens(layout)
        if name == DEFAULT_NAME or any(token.name == name for token in tokens):
            raise Conflict(f"there is a token {name!r} already: revoke it, or take another name")
        secret = secrets.token_urlsafe(_BYTES)
        made = Token(name, hash_token(secret), tuple(rights), tuple(scopes), created_at)
        _replace(layout, (*tokens, made))
        return secret


def revoke_token(layout: Layout, name: str) -> None:
    """Forget a token; the default one is made anew when it is next needed. Raises `NotFound`."""
    with locked(layout, "tokens"):
        tokens = load_tokens(layout)
        left = tuple(token for token in tokens if token.name != name)
        if len(left) == len(tokens):
            raise NotFound(f"there is no token {name!r}; see `scopefs token list`")
        _replace(layout, left)


def check_pattern(pattern: str) -> None:
    """Refuse what is neither `*`, nor a scope, nor the beginning of one with `.*`.

    Raises `InvalidScope`.
    """
    if pattern == "*":
        return
    if not pattern.endswith(".*"):
        parse_scope(pattern)
        return
    segments = pattern.removesuffix(".*").split(".")
    if len(segments) > 2 or any(find_segment_fault(segment) for segment in segments):
        raise InvalidScope(f"{pattern!r} is no pattern of scopes: write it like instagram.*")


def hash_token(secret: str) -> str:
    """What is kept of a token. It is random, so that a plain hash tells nothing about it."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def stamp_tokens(path: Path) -> tuple[int, int, int] | None:
    """What changes whenever the file is replaced; None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _find_default(tokens: Sequence[Token]) -> str | None:
    return next((each.token for each in tokens if each.name == DEFAULT_NAME and each.token), None)


def _replace(layout: Layout, tokens: tuple[Token, ...]) -> None:
    # One name, for one process at a time: what a kill has left goes the next time.
    temporary = layout.root / ".tokens.json.tmp"
    temporary.unlink(missing_ok=True)
    content = msgspec.json.format(msgspec.json.encode(_File(tokens)), indent=2) + b"\n"
    try:
        write_temporary(temporary, content)
        fd = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.rename(layout.tokens)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(layout.root)
