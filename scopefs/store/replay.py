"""Replay: the rows that an event has made, made again from the event alone.

For a rebuild of the index. The tree comes out as it was: nodes with their numbers, names with their
past, what each node showed and when. Rows of versions come out without what only their envelopes
say (kind, hash, media type, final name and mtime); whoever rebuilds fills that in. Slots may come
out differently.

An event that names what is not known (for an earlier one is lost) is reported, and skipped; a
version finds its place all the same, by the name that its event has.

Source: docs/format.md, Events.
"""

from collections.abc import Callable
from typing import Any

import apsw

from scopefs.errors import IndexBroken
from scopefs.model.events import LOST, decode_detail
from scopefs.model.naming import NodeKind
from scopefs.model.scope import parse_scope
from scopefs.model.stamps import format_collected_at, format_stamp, parse_collected_at
from scopefs.store import tree
from scopefs.store.journal import Transaction
from scopefs.store.restore import bring_all_back, let_stand_for, show_what_is_there
from scopefs.store.rows import allocate_nodes, end_name, insert_name, show, touch_directory
from scopefs.store.sql import Row, fetch
from scopefs.store.trash import end_names_below

Members = dict[str, Any]

_WRONG = (KeyError, IndexError, TypeError, ValueError, AssertionError, apsw.Error)
"""What an event that does not fit to the rows makes of the code below."""


class UnfitEvent(Exception):
    """An event that names what is not there."""


class Replay:
    """Makes rows in `db`, an index whose `next_node` is above all node ids that will come."""

    def __init__(self, db: apsw.Connection) -> None:
        self._db = db
        self._seq = 0
        self._at_us = 0
        self._transaction = Transaction(db, 0)
        self.scratch: dict[int, str] = {}
        """Files that show the bytes of a scratch file: node to scope."""
        self._ops: dict[str, Callable[[Members], int | None]] = {
            "mkdir": self._mkdir, "version": self._version, "scratch": self._scratch,
            "show": self._show, "empty": self._empty, "symlink": self._symlink, "link": self._link,
            "rename": self._rename, "unlink": self._end, "rmdir": self._end,
            "attributes": self._attributes, "delete": self._delete,
            "delete-scope": self._delete_scope, "restore": self._restore, "destroy": self._destroy,
            LOST: lambda _: None,
        }  # fmt: skip

    def apply(self, seq: int, at_us: int, detail: str, digest: bytes) -> str | None:
        """Make the rows of one event, and its own; what was wrong with it, if anything was."""
        self._seq, self._at_us = seq, at_us
        self._transaction = Transaction(self._db, at_us)
        scope_node: int | None = None
        fault: str | None = None
        self._db.execute("SAVEPOINT event")
        try:
            members = decode_detail(detail)
            op = self._ops.get(members["op"])
            if op is None:
                raise UnfitEvent(f"what it says is not known: {members['op']!r}")
            scope_node = op(members)
            for node, mtime_ns in members.get("touched", ()):
                self._set_mtime(node, mtime_ns)
        except (UnfitEvent, IndexBroken, *_WRONG) as error:
            self._db.execute("ROLLBACK TO event")
            fault = str(error) if isinstance(error, UnfitEvent) else repr(error)
        self._db.execute("RELEASE event")
        self._db.execute(
            "INSERT INTO events(seq, at_us, scope, detail, hash) VALUES(?,?,?,?,?)",
            (seq, at_us, scope_node, detail, digest),
        )
        return fault

    # The operations, each returning the node of its scope

    def _mkdir(self, members: Members) -> int | None:
        node, parent, name = members["node"], members["parent"], _name(members)
        scope_node: int | None
        if "scope" in members:
            kind, scope_node = NodeKind.SCOPE, node
            self._db.execute(
                "INSERT OR IGNORE INTO scopes(node, scope) VALUES(?,?)", (node, members["scope"])
            )
        elif parent == tree.ROOT_NODE:
            kind, scope_node = NodeKind.SOURCE, None
        else:
            kind, scope_node = NodeKind.FOLDER, self._scope_of(parent)
        self._check_directory(parent)
        self._add_node(node, kind, scope_node)
        self._name(parent, name, node)
        mtime_ns = members.get("mtimeNs", self._at_us * 1000)
        show(self._transaction, node, self._seq, None, _mode(members), mtime_ns)
        return scope_node

    def _version(self, members: Members) -> int:
        scope, node = members["scope"], members.get("node")
        collected_us = parse_collected_at(members["collectedAt"])
        name = _name(members, "file") or None
        path = f"data/{scope.replace('.', '/')}/{format_stamp(collected_us)}.json"
        scope_node = self._ensure_scope(scope)
        self._db.execute(
            "INSERT INTO data_files(id, path, scope, collected_at, created_at, size_bytes,"
            " collected_us, node, name, mtime_ns, payload_size, writer_uid, writer)"
            " VALUES(?,?,?,?,?,0,?,?,?,?,?,?,?)",
            (members["version"], path, scope, format_collected_at(collected_us),
             format_collected_at(self._at_us), collected_us, node, name, members.get("mtimeNs"),
             members["sizeBytes"], members.get("uid"), members.get("writer")),
        )  # fmt: skip
        self._db.execute(
            "UPDATE scopes SET last_us = MAX(last_us, ?) WHERE node = ?",
            (collected_us, scope_node),
        )
        if node is not None:
            self._add_node(node, NodeKind.FILE, scope_node)
            if "parent" in members:
                self._ensure_folder(members["parent"], scope_node, name)
            self._name_if_new(members)
            self.scratch.pop(node, None)
            show(self._transaction, node, self._seq, members["version"], _mode(members),
                 members["mtimeNs"])  # fmt: skip
        return scope_node

    def _scratch(self, members: Members) -> int | None:
        node = members["node"]
        scope_node = self._show_nothing(members)
        self.scratch[node] = tree.scope_text(self._db, scope_node) if scope_node else ""
        return scope_node

    def _empty(self, members: Members) -> int | None:
        self.scratch.pop(members["node"], None)
        return self._show_nothing(members)

    def _show_nothing(self, members: Members) -> int | None:
        node = members["node"]
        if "parent" in members:
            self._add_node(node, NodeKind.FILE, self._scope_of(members["parent"]))
        self._name_if_new(members)
        scope_node = self._scope_of(node)
        show(self._transaction, node, self._seq, None, _mode(members), members["mtimeNs"])
        return scope_node

    def _show(self, members: Members) -> int | None:
        node = members["node"]
        scope_node = self._scope_of(node)
        show(self._transaction, node, self._seq, members["shows"], _mode(members),
             members["mtimeNs"])  # fmt: skip
        return scope_node

    def _symlink(self, members: Members) -> int | None:
        node, parent = members["node"], members["parent"]
        scope_node = self._scope_of(parent)
        self._add_node(node, NodeKind.SYMLINK, scope_node)
        self._name(parent, _name(members), node)
        mtime_ns = members.get("mtimeNs", self._at_us * 1000)
        target = _name(members, "target")
        show(self._transaction, node, self._seq, None, 0o777, mtime_ns, target)
        return scope_node

    def _link(self, members: Members) -> int | None:
        node = members["node"]
        scope_node = self._scope_of(node)
        came_from = None
        if "fromParent" in members:
            came_from = self._find_row(members["fromParent"], _name(members, "from"))
        self._check_directory(members["parent"])
        self._name(members["parent"], _name(members), node, came_from)
        self._show_again(node)
        return scope_node

    def _rename(self, members: Members) -> int | None:
        node, parent, name = members["node"], members["parent"], _name(members)
        scope_node = self._scope_of(node)
        to_parent, to = members["toParent"], _name(members, "to")
        self._check_directory(to_parent)
        row = self._find_row(parent, name)
        if row is not None:
            self._make_free(to_parent, to)
            end_name(self._transaction, row, parent, self._seq)
        self._name(to_parent, to, node, row)
        if not self._kind_of(node).is_directory:
            self._show_again(node)
        return scope_node

    def _end(self, members: Members) -> int | None:
        node, parent, name = members["node"], members["parent"], _name(members)
        row = self._find_row(parent, name)
        if row is None:
            raise UnfitEvent(f"the name {name!r} that it ends is not there")
        end_name(self._transaction, row, parent, self._seq)
        if not tree.find_live_names(self._db, node):
            self.scratch.pop(node, None)
        return self._scope_of(node)

    def _attributes(self, members: Members) -> int | None:
        node = members["node"]
        scope_node = self._scope_of(node)
        version, _, _, target = self._shown(node)
        show(self._transaction, node, self._seq, version, _mode(members), members["mtimeNs"],
             target)  # fmt: skip
        return scope_node

    def _delete(self, members: Members) -> int | None:
        self._db.execute(
            "UPDATE data_files SET deleted_seq = ?1, path = 'trash/' || ?1 || substr(path, 5)"
            " WHERE id = ?2 AND deleted_seq IS NULL",
            (self._seq, members["version"]),
        )
        scope_node = tree.find_scope_node(self._db, members["scope"])
        node = members.get("node")
        if node is None:
            return scope_node
        _, mode, mtime_ns, _ = self._shown(node)
        shows = members["shows"]
        if shows is not None:
            mtime_ns = self._shown_as(node, shows)[1]
        show(self._transaction, node, self._seq, shows, mode, mtime_ns)
        if shows is None:
            back = {(went["parent"], _name(went)): went["node"] for went in members.get("back", ())}
            for row, parent, name in tree.find_live_names(self._db, node):
                end_name(self._transaction, row, parent, self._seq)
                if (parent, name) in back:
                    self._insert(parent, name, back[parent, name], row)
        return scope_node

    def _delete_scope(self, members: Members) -> int | None:
        self._db.execute(
            "UPDATE data_files SET deleted_seq = ?1, path = 'trash/' || ?1 || substr(path, 5)"
            " WHERE scope = ?2 AND deleted_seq IS NULL",
            (self._seq, members["scope"]),
        )
        end_names_below(self._transaction, members["node"], self._seq)
        return int(members["node"])

    def _restore(self, members: Members) -> int | None:
        entry, db = members["entry"], self._db
        for removed, live in members.get("same", ()):
            let_stand_for(self._transaction, removed, live)
        db.execute(
            "UPDATE data_files SET path = 'data' || substr(path, length('trash/' || ?1) + 1),"
            " deleted_seq = NULL WHERE deleted_seq = ?1",
            (entry,),
        )
        # What it lists to be dropped here is of rows that a rebuild does not have.
        db.execute("DELETE FROM moves")
        scope_node = tree.find_scope_node(db, members["scope"])
        if scope_node is None:
            raise UnfitEvent(f"its scope {members['scope']} is not known")
        if "version" not in members and tree.is_reachable(db, scope_node):
            show_what_is_there(self._transaction, scope_node, entry, self._seq)
        if "version" not in members and "back" not in members:
            bring_all_back(self._transaction, scope_node, entry, self._seq)
            return scope_node
        if "node" in members:
            mode, mtime_ns = self._shown_as(members["node"], members["shows"])
            show(self._transaction, members["node"], self._seq, members["shows"], mode, mtime_ns)
        for back in members.get("back", ()):
            self._bring_back(back["parent"], _name(back), back["node"], entry)
        return scope_node

    def _bring_back(self, parent: int, name: bytes, node: int, entry: int) -> None:
        """A name as an entry of the trash gives it back: it continues the one that ended."""
        standing = self._find_row(parent, name)
        if standing is not None:
            # It was let go to what it had shown before, and so it goes back.
            end_name(self._transaction, standing, parent, self._seq)
            self._insert(parent, name, node, standing)
            return
        rows = fetch(
            self._db,
            "SELECT id FROM names WHERE node = ?1 AND name = ?2 AND until_seq IS NOT NULL"
            " ORDER BY until_seq NOT IN (?3, ?3 - 1), parent != ?4, from_seq DESC LIMIT 1",
            (node, name, entry, parent),
        )
        self._insert(parent, name, node, rows[0][0] if rows else None)

    def _destroy(self, members: Members) -> int | None:
        entry = members["entry"]
        self._db.execute("DELETE FROM data_files WHERE deleted_seq = ?", (entry,))
        for node in list(self.scratch):
            ended = fetch(
                self._db,
                "SELECT MAX(until_seq = ?), MAX(until_seq IS NULL) FROM names WHERE node = ?",
                (entry, node),
            )
            if ended[0] == (1, 0):
                del self.scratch[node]
        return tree.find_scope_node(self._db, members["scope"])

    # Rows

    def _add_node(self, node: int, kind: NodeKind, scope_node: int | None) -> None:
        self._db.execute(
            "INSERT OR IGNORE INTO nodes(id, kind, scope) VALUES(?,?,?)",
            (node, int(kind), scope_node),
        )

    def _name_if_new(self, members: Members) -> None:
        if "parent" in members:
            self._check_directory(members["parent"])
            self._name(members["parent"], _name(members), members["node"])

    def _name(self, parent: int, name: bytes, node: int, came_from: int | None = None) -> None:
        self._make_free(parent, name)
        self._insert(parent, name, node, came_from)

    def _insert(self, parent: int, name: bytes, node: int, came_from: int | None) -> None:
        insert_name(self._transaction, parent, name, node, self._seq, came_from=came_from)

    def _make_free(self, parent: int, name: bytes) -> None:
        """End what stands at a name: a rename replaces it; else the event of its end is lost."""
        row = self._find_row(parent, name)
        if row is not None:
            end_name(self._transaction, row, parent, self._seq)

    def _find_row(self, parent: int, name: bytes) -> int | None:
        if tree.find_link(self._db, parent, name) is None:
            return None
        return tree.load_name_id(self._db, parent, name)

    def _shown(self, node: int) -> Row:
        """What a node shows: `(version, mode, mtime_ns, target)`."""
        rows = fetch(
            self._db,
            "SELECT version, mode, mtime_ns, target FROM shown WHERE node = ?"
            " ORDER BY from_seq DESC LIMIT 1",
            (node,),
        )
        if not rows:
            raise UnfitEvent(f"node {node} is not known")
        return rows[0]

    def _shown_as(self, node: int, version: int) -> Row:
        """Mode and mtime with which a node showed a version last."""
        rows = fetch(
            self._db,
            "SELECT mode, mtime_ns FROM shown WHERE node = ? AND version = ?"
            " ORDER BY from_seq DESC LIMIT 1",
            (node, version),
        )
        return rows[0] if rows else self._shown(node)[1:3]

    def _show_again(self, node: int) -> None:
        version, mode, mtime_ns, target = self._shown(node)
        show(self._transaction, node, self._seq, version, mode, mtime_ns, target)

    def _set_mtime(self, node: int, mtime_ns: int) -> None:
        self._db.execute(
            "UPDATE shown SET mtime_ns = ?2 WHERE node = ?1 AND from_seq ="
            " (SELECT MAX(from_seq) FROM shown WHERE node = ?1)",
            (node, mtime_ns),
        )

    def _kind_of(self, node: int) -> NodeKind:
        rows = fetch(self._db, "SELECT kind FROM nodes WHERE id = ?", (node,))
        if not rows:
            raise UnfitEvent(f"node {node} is not known")
        return NodeKind(rows[0][0])

    def _scope_of(self, node: int) -> int | None:
        rows = fetch(self._db, "SELECT scope FROM nodes WHERE id = ?", (node,))
        if not rows:
            raise UnfitEvent(f"node {node} is not known")
        scope: int | None = rows[0][0]
        return scope

    def _check_directory(self, node: int) -> None:
        if not self._kind_of(node).is_directory:
            raise UnfitEvent(f"node {node} is no directory")

    # What an event that is lost would have made

    def _ensure_scope(self, scope: str) -> int:
        """The node of a scope, made with its directories if the event that made it is lost."""
        node = tree.find_scope_node(self._db, scope)
        if node is not None:
            return node
        segments = parse_scope(scope).segments
        parent = tree.ROOT_NODE
        for depth, segment in enumerate(segments, start=1):
            link = tree.find_link(self._db, parent, segment.encode())
            text = ".".join(segments[:depth])
            if link is None or (depth > 1 and tree.find_scope_node(self._db, text) is None):
                node = allocate_nodes(self._transaction, 1)
                if depth > 1:
                    self._add_node(node, NodeKind.SCOPE, node)
                    self._db.execute("INSERT INTO scopes(node, scope) VALUES(?,?)", (node, text))
                else:
                    self._add_node(node, NodeKind.SOURCE, None)
                self._name(parent, segment.encode(), node)
                show(self._transaction, node, self._seq, None, 0o755, self._at_us * 1000)
                parent = node
            else:
                parent = link[0]
        return parent

    def _ensure_folder(self, folder: int, scope_node: int, path: bytes | None) -> None:
        """The directory of a new file; made where the file's path says, if it is not known."""
        if path is None or fetch(self._db, "SELECT 1 FROM nodes WHERE id = ?", (folder,)):
            return
        *folders, _ = path.split(b"/")
        if not folders:
            raise UnfitEvent(f"its directory, node {folder}, is not known")
        parent = scope_node
        for name in folders[:-1]:
            link = tree.find_link(self._db, parent, name)
            node = link[0] if link is not None else allocate_nodes(self._transaction, 1)
            if link is None:
                self._make_folder(parent, name, node, scope_node)
            parent = node
        self._make_folder(parent, folders[-1], folder, scope_node)

    def _make_folder(self, parent: int, name: bytes, node: int, scope_node: int) -> None:
        self._check_directory(parent)
        self._add_node(node, NodeKind.FOLDER, scope_node)
        self._name(parent, name, node)
        show(self._transaction, node, self._seq, None, 0o755, self._at_us * 1000)
        touch_directory(self._transaction, parent)


def _name(members: Members, key: str = "name") -> bytes:
    """A name of an event; empty if it has none."""
    if f"{key}Hex" in members:
        return bytes.fromhex(members[f"{key}Hex"])
    return str(members.get(key, "")).encode()


def _mode(members: Members) -> int:
    return int(members["mode"], 8)
