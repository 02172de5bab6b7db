"""scopefs status"""

from pathlib import Path

import click

from scopefs.cli.options import json_option, print_json, print_rows, vault_option


@click.command("status")
@vault_option
@json_option
def command(vault_path: Path, as_json: bool) -> None:
    """Show what the vault holds, where it is mounted, and what was refused lately.

    \b
    Example:
        scopefs status
        scopefs status --json
    """
    import json

    from scopefs.mount.point import find_holder
    from scopefs.vault import Vault

    with Vault.open(vault_path) as vault:
        found = vault.status()
        holder = find_holder(vault.layout)
        log = vault.layout.logs / "rejected.jsonl"
        lines = log.read_bytes().splitlines() if log.exists() else []
    found["mount"] = holder
    found["refusals"] = len(lines)
    found["lastRefusal"] = json.loads(lines[-1]) if lines else None
    if as_json:
        print_json(found)
        return
    last, backing = found["lastVersion"], found["fileSystem"]
    rows = [
        ("vault", found["vault"]),
        ("mounted", f"{holder['mountpoint']} (process {holder['pid']})" if holder else "no"),
        ("file system", f"{backing['type']} at {backing['mountpoint']}"),
        *(("", f"{backing['type']} {warning}") for warning in backing["warnings"]),
        ("scopes", str(found["scopes"])),
        ("versions", f"{found['versions']} ({found['payloadBytes']} bytes)"),
        ("last version", f"{last['scope']} {last['collectedAt']}" if last else "none"),
        ("unsettled", str(found["unsettled"])),
        ("partial", str(found["partial"])),
        ("refusals", str(found["refusals"])),
    ]
    if found["lastRefusal"]:
        refusal = found["lastRefusal"]
        rows.append(("last refusal", f"{refusal['path']}: {refusal['reason']}"))
        rows.append(("", f"try: {refusal['try']}"))
    print_rows(rows)
