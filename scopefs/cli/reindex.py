"""scopefs reindex"""

from contextlib import ExitStack
from pathlib import Path

import click

from scopefs.cli.options import json_option, print_json, printable, vault_option
from scopefs.cli.progress import Bar, progress_option, wants_bar
from scopefs.cli.verify import DAMAGED_EXIT, vars_of

_HARMLESS = ("recovered",)
"""What is told of a rebuild although nothing was lost."""


@click.command("reindex")
@vault_option
@progress_option
@json_option
def command(vault_path: Path, progress: bool | None, as_json: bool) -> int:
    """Make index.db again, from the envelopes in data/ and trash/ and the lines in events/.

    For a vault whose index is lost or damaged. What was settled comes back as it was, inode numbers
    included. What was not is taken from the old index, as far as that can be read; without it, it
    is lost but for large files that were being written, which go to partial/. The old index is kept
    as index.db.broken-TIME. Nobody else may use the vault. A rebuild that was interrupted is begun
    again. Exit code 6 if anything is lost or damaged.

    \b
    Example:
        scopefs reindex && scopefs verify
    """
    from scopefs.errors import VaultInUse
    from scopefs.mount.point import find_holder
    from scopefs.store.layout import Layout
    from scopefs.store.reindex import rebuild_index
    from scopefs.vault import system_clock_us

    layout = Layout(vault_path)
    is_shown = wants_bar(progress, as_json=as_json)
    bars: dict[str, Bar] = {}

    def tell(what: str, count: int, total: int) -> None:
        if what not in bars:
            # What comes next begins when the one before is done.
            stack.close()
            bars[what] = stack.enter_context(Bar(what, total, is_shown=is_shown, unit="read"))
        bars[what].reach(count)

    try:
        with ExitStack() as stack:
            done = rebuild_index(layout, system_clock_us(), tell)
    except VaultInUse as error:
        holder = find_holder(layout)
        where = f" (mounted at {holder.get('mountpoint')})" if holder else ""
        raise VaultInUse(f"{error}{where}") from error
    if as_json:
        print_json({
            "versions": done.versions, "names": done.names, "events": done.events,
            "salvagedEvents": done.salvaged_events, "salvagedWrites": done.salvaged_writes,
            "partial": done.partial, "oldIndex": str(done.old) if done.old else None,
            "problems": [vars_of(problem) for problem in done.problems],
        })  # fmt: skip
    else:
        for problem in done.problems:
            click.echo(
                f"{problem.code}  {printable(problem.where)}: {problem.what}\n    {problem.do}"
            )
        click.echo(
            f"the index was made again: {done.versions} version(s), {done.names} name(s), "
            f"{done.events} event(s)"
        )
        if done.salvaged_events or done.salvaged_writes:
            click.echo(
                f"from the old index: {done.salvaged_events} event(s), "
                f"{done.salvaged_writes} write(s)"
            )
        if done.partial:
            click.echo(f"{done.partial} file(s) went to partial/ (scopefs partial list)")
        if done.old is not None:
            click.echo(f"the old index is {done.old}: remove it when all is well")
    lost = [problem for problem in done.problems if problem.code not in _HARMLESS]
    return DAMAGED_EXIT if lost else 0
