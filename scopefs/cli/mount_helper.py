"""`mount.scopefs`, as mount(8) calls it: SOURCE DIRECTORY [-sfnv] [-o OPTIONS] [-t TYPE].

It is `scopefs mount` in other words. docs/mounting.md says where mount(8) looks for it.
"""

import sys

import click

from scopefs.cli import main as run_scopefs
from scopefs.cli.mount_options import parse_mount_options
from scopefs.errors import InvalidQuery, ScopefsError


@click.command("mount.scopefs", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("source", type=click.Path())
@click.argument("directory", type=click.Path())
@click.option("-o", "options", metavar="OPTIONS", multiple=True, help="As in /etc/fstab.")
@click.option("-s", "sloppy", is_flag=True, help="Pass over unknown options.")
@click.option("-f", "fake", is_flag=True, help="Look at the options, but mount nothing.")
@click.option("-v", "verbose", is_flag=True, help="Say what was mounted.")
@click.option("-n", "no_mtab", is_flag=True, help="Nothing: the kernel keeps the table.")
@click.option("-t", "kind", metavar="TYPE", help="Nothing: it is scopefs.")
@click.option("-N", "namespace", metavar="NAMESPACE", hidden=True)
def command(
    source: str, directory: str, options: tuple[str, ...], sloppy: bool, fake: bool, verbose: bool,
    no_mtab: bool, kind: str | None, namespace: str | None,
) -> None:  # fmt: skip
    """Mount the vault SOURCE at DIRECTORY, for mount(8).

    \b
    Example:
        mount -t scopefs /srv/vault /mnt/vault -o allow_other,ro
    """
    if namespace is not None:
        raise InvalidQuery("mount -N: a vault cannot be mounted into another namespace")
    parse_mount_options(options, sloppy=sloppy)
    if fake:
        return
    arguments = ["mount", "--vault", source, *(["--sloppy"] if sloppy else [])]
    for option in options:
        arguments += ["-o", option]
    # The mount in the background is the same command again.
    sys.argv[1:] = [*arguments, *([] if verbose else ["--quiet"]), "--", directory]
    run_scopefs(sys.argv[1:])


def main() -> None:
    """Run the program; ends with the codes of mount(8): 1 bad words, 8 Ctrl+C, 32 not mounted."""
    try:
        command.main(prog_name="mount.scopefs", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(1)
    except click.exceptions.Abort:
        sys.exit(8)
    except ScopefsError as error:
        click.echo(f"mount.scopefs: {error}", err=True)
        sys.exit(1)
    except SystemExit as ended:
        sys.exit({0: 0, 2: 1, 130: 8}.get(int(ended.code or 0), 32))
