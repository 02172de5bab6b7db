"""scopefs completion, and what the arguments of other commands can be completed with.

Completion reads the index and makes nothing: no vault, no file beside it, no lock. It never waits,
and says nothing if anything is wrong.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote

import click
from click.shell_completion import CompletionItem, get_completion_class

if TYPE_CHECKING:
    import apsw

    from scopefs.store.layout import Layout

VARIABLE = "_SCOPEFS_COMPLETE"
"""Click's name for what the scripts set."""

_MOST = 200
_LOOKED_AT = 2000
_PLAIN = re.compile(r"[\w@%+=:,./-]")

Find: TypeAlias = Callable[
    ["Layout", "apsw.Connection", click.Context, str], Iterable[tuple[str, str]]
]
"""Values that may begin with a text, each with a word about it."""
Complete: TypeAlias = Callable[[click.Context, click.Parameter, str], list["CompletionItem[str]"]]


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print a script that completes commands, options, scopes, names and stamps with TAB.

    Those offered are of the vault that the line names with --vault DIR, else of the usual one. Make
    the directory that the script goes to first (mkdir -p), and open a new shell. In bash it needs
    the package bash-completion; without that put eval "$(scopefs completion bash)" into ~/.bashrc.
    In zsh the directory has to be in $fpath before compinit is called in ~/.zshrc.

    \b
    Example:
        scopefs completion bash > ~/.local/share/bash-completion/completions/scopefs
        scopefs completion zsh > ~/.zfunc/_scopefs
        echo 'fpath=(~/.zfunc $fpath); autoload -Uz compinit; compinit' >> ~/.zshrc
        scopefs completion fish > ~/.config/fish/completions/scopefs.fish
    """
    from scopefs.cli import group

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(group, {}, "scopefs", VARIABLE).source(), nl=False)


def _completes(find: Find) -> Complete:
    """A function for `shell_complete=`, which is silent on errors."""

    def complete(
        context: click.Context, _param: click.Parameter, incomplete: str
    ) -> list["CompletionItem[str]"]:
        # Whatever is wrong here, a prompt is no place to say it.
        try:
            return list(islice(_find_items(find, context, incomplete), _MOST))
        except Exception:
            return []

    return complete


def _find_items(
    find: Find, context: click.Context, incomplete: str
) -> Iterator["CompletionItem[str]"]:
    from scopefs.store.layout import Layout

    layout = Layout(Path(context.params["vault_path"]))
    with closing(_open(layout)) as db:
        taken = {str(value) for values in context.params.values() if isinstance(values, tuple)
                 for value in values}  # fmt: skip
        for value, about in find(layout, db, context, incomplete):
            # A line is a value to the shell; what it cannot hold is not offered.
            if value.startswith(incomplete) and value.isprintable() and value not in taken:
                yield CompletionItem(_quote(value), help=about)


def _open(layout: "Layout") -> "apsw.Connection":
    """The index, to be read only: neither it nor its WAL nor its shared memory is written."""
    import apsw

    wal = Path(f"{layout.index}-wal")
    way = "readonly_shm=1" if wal.exists() and wal.stat().st_size else "immutable=1"
    return apsw.Connection(
        f"file:{quote(os.fspath(layout.index))}?mode=ro&{way}",
        flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
    )


def _quote(value: str) -> str:
    """As it has to stand on the command line of bash; zsh and fish do that themselves."""
    if not os.environ.get(VARIABLE, "").startswith("bash"):
        return value
    # Twice: the script of click reads what we print with `read`, which takes one away.
    return "".join(char if _PLAIN.match(char) else f"\\\\{char}" for char in value)


def _find_scopes(
    _layout: "Layout", db: "apsw.Connection", _context: click.Context, _incomplete: str
) -> Iterator[tuple[str, str]]:
    from scopefs.store.index import list_scopes

    for found in list_scopes(db, _LOOKED_AT):
        yield found.scope, f"{found.versions} version(s)"


def _scope_of(context: click.Context) -> str:
    """The scope that was given; behind an option that lacks its value click leaves it aside."""
    scope: str = context.params.get("scope") or context.args[0]
    return scope


def _find_stamps(
    _layout: "Layout", db: "apsw.Connection", context: click.Context, _incomplete: str
) -> Iterator[tuple[str, str]]:
    from scopefs.store.index import find_by_scope

    for version in find_by_scope(db, _scope_of(context), _LOOKED_AT):
        yield version.stamp, os.fsdecode(version.name or b"-").encode("utf-8", "replace").decode()


def _find_names(
    _layout: "Layout", db: "apsw.Connection", context: click.Context, incomplete: str
) -> Iterator[tuple[str, str]]:
    from scopefs.store.tree import find_scope_node

    node = find_scope_node(db, _scope_of(context))
    if node is not None:
        yield from islice(_walk(db, node, "", incomplete), _LOOKED_AT)


def _walk(
    db: "apsw.Connection", node: int, prefix: str, incomplete: str
) -> Iterator[tuple[str, str]]:
    """The files of a directory, and those of its folders that may fit."""
    from scopefs.model.naming import NodeKind
    from scopefs.store.tree import list_children

    for child in list_children(db, node, 0, _LOOKED_AT):
        path = prefix + os.fsdecode(child.name)
        if child.entry.kind is NodeKind.FILE:
            yield path, f"{child.entry.size} bytes"
        elif child.entry.kind is NodeKind.FOLDER and (
            f"{path}/".startswith(incomplete) or incomplete.startswith(f"{path}/")
        ):
            yield from _walk(db, child.entry.node, f"{path}/", incomplete)


def _find_trash(
    _layout: "Layout", db: "apsw.Connection", _context: click.Context, _incomplete: str
) -> Iterator[tuple[str, str]]:
    from scopefs.store.trash import list_trash

    for entry in list_trash(db, 1 << 62, _MOST):
        yield str(entry.id), f"{entry.scope} ({entry.what})"


def _find_partial(
    layout: "Layout", _db: "apsw.Connection", _context: click.Context, _incomplete: str
) -> Iterator[tuple[str, str]]:
    from scopefs.store.partial import list_partial

    for story in list_partial(layout):
        yield story["id"], f"{story.get('scope', '')} {story.get('name', '')}".strip()


def complete_scope_or_file(
    context: click.Context, param: click.Parameter, incomplete: str
) -> list["CompletionItem[str]"]:
    """Scopes; what is none is a path."""
    return complete_scope(context, param, incomplete) or [CompletionItem(incomplete, type="file")]


complete_scope = _completes(_find_scopes)
complete_stamp = _completes(_find_stamps)
complete_name = _completes(_find_names)
complete_trash = _completes(_find_trash)
complete_partial = _completes(_find_partial)
