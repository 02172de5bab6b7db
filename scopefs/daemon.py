"""The daemon: builds vault, mount and HTTP by hand and runs them in one nursery.

It ends when the file system is unmounted, by whomever, or on SIGTERM, SIGINT or SIGHUP, which
unmount it. In either case whatever was closed is published and settled first.
"""

import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pyfuse3
import trio

from scopefs.api.context import HttpOptions
from scopefs.api.server import (
    HttpAddress,
    ensure_token,
    open_listener,
    serve_http,
    show_listener,
)
from scopefs.errors import MountRefused, ScopefsError
from scopefs.mount.attributes import Ownership, show_as
from scopefs.mount.control import Control
from scopefs.mount.health import (
    Health,
    keep_beating,
    keep_status,
    wait_answer,
    watchdog_interval_s,
)
from scopefs.mount.locks import wait_quickly
from scopefs.mount.open_files import OpenFiles
from scopefs.mount.operations import Operations
from scopefs.mount.point import (
    FILE_SYSTEM_NAME,
    MountLock,
    check_mountpoint,
    find_mounts,
    is_mounted,
    unmount,
)
from scopefs.mount.publication import Publisher
from scopefs.mount.refusals import Refusals
from scopefs.read_only import ReadOnlyVault
from scopefs.store.backing import find_backing
from scopefs.store.config import Config
from scopefs.vault import Durability, Vault

STOP_GRACE_S = 10.0
"""How long a stopping mount waits for programs that still have files open."""

RELOCK_WAIT_S = 30.0
"""How long a new mount waits for one that is just ending."""

TRASH_INTERVAL_S = 86_400.0

_POLL_S = 0.01
_LOG = logging.getLogger(__name__)
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What a mount is told."""

    allow_other: bool = False
    durability: Durability = "strict"
    http: HttpAddress | None = None
    http_options: HttpOptions | None = None
    check_reads: bool = True
    read_only: bool = False
    ownership: Ownership = field(default_factory=Ownership)
    for_kernel: tuple[str, ...] = ()
    """Options of mount(8) that the kernel or libfuse knows: `noexec`, `noatime`."""
    config: Config | None = None
    """Of the vault; None: what the files and the environment say."""


def run_mount(
    vault_path: Path, mountpoint: Path, options: MountOptions, on_ready: Callable[[], None]
) -> None:
    """Mount a vault, making it if it is missing, and serve until it is unmounted.

    If it is only to be read, it has to be there, and others may have it mounted. `on_ready` is
    called once the mount answers. Raises `MountRefused`, `VaultInUse` and what `Vault.open` raises,
    all before anything is mounted.
    """
    check_mountpoint(mountpoint, vault_path)
    listener = open_listener(options.http) if options.http is not None else None
    with (
        closing(listener) if listener else nullcontext(),
        _open_vault(vault_path, options) as vault,
        (
            nullcontext() if options.read_only
            else closing(MountLock(vault.layout, mountpoint, wait_s=RELOCK_WAIT_S))
        ),
    ):  # fmt: skip
        if listener is not None:
            ensure_token(vault, options.http_options or HttpOptions())
        trio.run(_mount, vault, mountpoint, options, listener, on_ready)
        # Still under the lock: a next mount finds everything settled.
        vault.close()


def _open_vault(path: Path, options: MountOptions) -> Vault:
    if options.read_only:
        return ReadOnlyVault.look_at(path, check_reads=options.check_reads, config=options.config)
    return Vault.open(
        path, create=True, durability=options.durability, check_reads=options.check_reads,
        config=options.config,
    )  # fmt: skip


def run_serve(
    vault_path: Path, address: HttpAddress, options: HttpOptions, on_ready: Callable[[str], None]
) -> None:
    """Serve HTTP alone, until a signal comes; open requests are finished first."""
    with closing(open_listener(address)) as listener, Vault.open(vault_path, create=True) as vault:
        trio.run(_serve, vault, listener, options, on_ready)


async def _mount(
    vault: Vault,
    mountpoint: Path,
    options: MountOptions,
    listener: socket.socket | None,
    on_ready: Callable[[], None],
) -> None:
    open_files = OpenFiles()
    publisher = Publisher(vault, open_files)
    refusals = Refusals(
        vault.layout.logs / "rejected.jsonl", str(mountpoint), vault.clock_us,
        is_kept=not options.read_only,
    )  # fmt: skip
    health = Health(vault, open_files, refusals)
    operations = Operations(
        vault, open_files, publisher, Control(vault, str(mountpoint), refusals, health), refusals
    )
    show_as(options.ownership)
    # By its source mount(8) knows whether a line of fstab is mounted already.
    source = str(vault.layout.root).replace("\\", "\\\\").replace(",", "\\,")
    fuse_options = {
        *pyfuse3.default_options, f"fsname={source}", f"subtype={FILE_SYSTEM_NAME}",
        "nosuid", "nodev", *options.for_kernel,
    }  # fmt: skip
    if options.allow_other:
        fuse_options.add("allow_other")
    if options.read_only:
        fuse_options.add("ro")
    try:
        pyfuse3.init(operations, str(mountpoint), fuse_options)
    except RuntimeError as error:
        raise MountRefused(f"{mountpoint} cannot be mounted: {error}") from error
    stop, door_ended = trio.Event(), trio.Event()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publisher.run)
            if vault.config.trash.keep_days is not None and not options.read_only:
                nursery.start_soon(_empty_trash_daily, vault)
            await nursery.start(_unmount_on_signal, mountpoint, stop)
            if listener is not None:
                _LOG.info("HTTP at %s", show_listener(listener))
                await nursery.start(
                    _serve_until, door_ended, vault, listener, stop, options.http_options
                )
            else:
                door_ended.set()
            nursery.start_soon(_announce, mountpoint, vault, health, on_ready)
            wait_quickly()
            await pyfuse3.main()
            notify("STOPPING=1")
            stop.set()
            await publisher.close_all()
            # It gives its open requests a time of its own.
            await door_ended.wait()
            nursery.cancel_scope.cancel()
    finally:
        health.close()
        # main() returns once the kernel has let go; after an exception it has not.
        pyfuse3.close(unmount=is_mounted(mountpoint))


async def _serve_until(
    ended: trio.Event, vault: Vault, listener: socket.socket, stop: trio.Event,
    options: HttpOptions | None, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:  # fmt: skip
    """The HTTP door; says when its last request is over."""
    try:
        await serve_http(vault, listener, stop, options, task_status=task_status)
    finally:
        ended.set()


async def _empty_trash_daily(vault: Vault) -> None:
    """Destroy what config.toml says is old enough, now and once a day."""
    while True:
        try:
            done = await trio.to_thread.run_sync(vault.empty_old_trash)
        except (OSError, ScopefsError) as error:
            _LOG.error("the trash could not be emptied: %s", error)
        else:
            if done.entries:
                _LOG.info(
                    "emptied what was in the trash for %g days: %d version(s), %d bytes",
                    vault.config.trash.keep_days, done.versions, done.payload_bytes,
                )  # fmt: skip
        await trio.sleep(TRASH_INTERVAL_S)


async def _announce(
    mountpoint: Path, vault: Vault, health: Health, on_ready: Callable[[], None]
) -> None:
    """Say that the mount is up, once it answers; tell systemd from then on how it is."""
    await trio.to_thread.run_sync(_wait_for_answer, mountpoint, abandon_on_cancel=True)
    notify("READY=1", f"STATUS=mounted at {mountpoint}")
    # What is there by now stays: the collector would look at it for 15 ms, again and again.
    gc.freeze()
    on_ready()
    backing = find_backing(vault.layout.root)
    for warning in backing.warnings:
        _LOG.warning("the file system of %s, %s, %s", vault.layout.root, backing.type, warning)
    if "NOTIFY_SOCKET" not in os.environ:
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_status, health.describe, lambda text: notify(f"STATUS={text}"))
        interval_s = watchdog_interval_s()
        if interval_s is not None:
            nursery.start_soon(
                keep_beating, lambda: wait_answer(mountpoint), lambda: notify("WATCHDOG=1"),
                interval_s,
            )  # fmt: skip


def _wait_for_answer(mountpoint: Path) -> None:
    """Until the kernel's table has the mount and a stat of it succeeds."""
    while mountpoint not in find_mounts() or wait_answer(mountpoint) != str(pyfuse3.ROOT_INODE):
        time.sleep(_POLL_S)


async def _unmount_on_signal(
    mountpoint: Path, stop: trio.Event, *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:  # fmt: skip
    with trio.open_signal_receiver(*_SIGNALS) as signals:
        task_status.started()
        async for number in signals:
            _LOG.info("%s: unmounting %s", signal.Signals(number).name, mountpoint)
            stop.set()
            try:
                await trio.to_thread.run_sync(unmount, mountpoint)
            except MountRefused:
                # In use: out of sight at once, gone when the last file is closed.
                await trio.to_thread.run_sync(lambda: unmount(mountpoint, lazy=True))
            await trio.sleep(STOP_GRACE_S)
            _LOG.warning("files are still open after %.0f s: ending all the same", STOP_GRACE_S)
            pyfuse3.terminate()


async def _serve(
    vault: Vault, listener: socket.socket, options: HttpOptions, on_ready: Callable[[str], None]
) -> None:
    stop = trio.Event()
    # Before anybody is told that it is up: who hears it may send a signal at once.
    with trio.open_signal_receiver(*_SIGNALS) as signals:
        async with trio.open_nursery() as nursery:
            bound = show_listener(listener)
            await nursery.start(serve_http, vault, listener, stop, options)
            notify("READY=1", f"STATUS=HTTP at {bound}")
            gc.freeze()
            on_ready(bound)
            async for _ in signals:
                notify("STOPPING=1")
                stop.set()
                break


def notify(*lines: str) -> None:
    """Tell systemd how it goes (sd_notify, one datagram), where it asked for that."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.sendto("\n".join(lines).encode(), address)
