"""What is carried from vault to vault, in a form that can be compared."""

from pathlib import Path
from typing import Any

from scopefs import Vault
from scopefs.model.naming import NodeKind
from scopefs.model.scope import parse_scope
from scopefs.store import tree
from scopefs.transfer import exports
from scopefs.transfer.imports import Importer, ImportResult
from scopefs.transfer.sources import VaultSource, open_source


def ignore(_count: int) -> None:
    """Progress that nobody watches."""


def export_to(vault: Vault, dest: Path, *scopes: str) -> exports.Exported:
    """`scopefs export`."""
    wanted = exports.list_scopes_to_export(vault, scopes)
    return exports.export(vault, wanted, exports.open_target(vault, str(dest)), ignore)


def import_from(vault: Vault, source: Path) -> ImportResult:
    """`scopefs import`."""
    opened = open_source(vault, str(source))
    try:
        return Importer(vault, opened, ignore).run()
    finally:
        if isinstance(opened, VaultSource):
            opened.vault.close()


def describe(vault: Vault) -> dict[str, Any]:
    """All that an export carries: versions with their bytes, files with their names, and so on."""
    found: dict[str, Any] = {}
    with vault.read() as db:
        scopes = [row[0] for row in db.execute("SELECT scope FROM scopes ORDER BY scope")]
    for scope in scopes:
        with vault.read() as db:
            node = tree.find_scope_node(db, scope)
            assert node is not None
            if not vault.versions(scope) and not tree.is_reachable(db, node):
                continue
        found[scope] = _describe_scope(vault, scope, node)
    return found


def _describe_scope(vault: Vault, scope: str, node: int) -> dict[str, Any]:
    versions = {
        version.stamp: (vault.read_envelope(version), vault.read_payload(version))
        for version in vault.versions(scope)
    }
    stamps = {version.id: version.stamp for version in vault.versions(scope)}
    owners: dict[int, set[str]] = {}
    for version in vault.versions(scope):
        owners.setdefault(version.node or 0, set()).add(version.stamp)
    nodes: dict[int, Any] = {}
    folders = {}
    for _, path, entry in vault._walk(node, b""):
        if entry.kind is NodeKind.FOLDER:
            folders[path] = (oct(entry.mode), entry.mtime_ns)
        else:
            shows = stamps.get(entry.version or 0)
            nodes.setdefault(
                entry.node,
                (entry.kind.name, oct(entry.mode), entry.mtime_ns, entry.target, shows, set()),
            )[-1].add(path)
    with vault.read() as db:
        scope_entry = tree.find_node(db, node)
        reachable = tree.is_reachable(db, node)
    assert scope_entry is not None
    return {
        "versions": versions,
        "files": sorted(nodes.values(), key=lambda found: sorted(found[-1])),
        "grouped": sorted(map(sorted, owners.values())),
        "folders": folders,
        "scope": (parse_scope(scope), reachable, oct(scope_entry.mode) if reachable else ""),
    }
