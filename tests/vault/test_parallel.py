"""Many at once: threads and processes that put into one scope within one second."""

import json
import threading
from pathlib import Path

from scopefs import Vault
from scopefs.store.index import Version
from tests.store.inspection import (
    NOON_US,
    SECOND_US,
    Clock,
    check_whole,
    finish,
    list_files,
    start_python,
)

THREADS = 20
PROCESSES = 4
PUTS = 50

_PUT = """
import json, sys
from scopefs import Vault
root, process, puts, now_us = sys.argv[1], *map(int, sys.argv[2:5])
with Vault.open(root, clock_us=lambda: now_us) as vault:
    print("ready", flush=True)
    times = []
    for n in range(puts):
        content = json.dumps({"process": process, "n": n}).encode()
        times.append(vault.put("my.files", content, name="p%d" % process).collected_us)
print(json.dumps(times))
"""


def test_threads_and_processes_in_one_frozen_second(tmp_path: Path) -> None:
    """20 threads and 4 processes with 50 puts each make 1,200 versions, each with its own time."""
    clock = Clock(NOON_US + 123)
    expected = {(f"t{thread}", n) for thread in range(THREADS) for n in range(PUTS)}
    expected |= {(f"p{process}", n) for process in range(PROCESSES) for n in range(PUTS)}
    own: list[list[Version]] = [[] for _ in range(THREADS)]
    with Vault.open(tmp_path / "v", create=True, clock_us=clock) as vault:

        def put(thread: int) -> None:
            for n in range(PUTS):
                content = json.dumps({"thread": thread, "n": n}).encode()
                own[thread].append(vault.put("my.files", content, name=f"t{thread}"))

        processes = [
            start_python(_PUT, vault.layout.root, str(n), str(PUTS), str(clock.now_us))
            for n in range(PROCESSES)
        ]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        threads = [threading.Thread(target=put, args=(thread,)) for thread in range(THREADS)]
        for started in threads:
            started.start()
        for started in threads:
            started.join()
        times = [[version.collected_us for version in versions] for versions in own]
        for process in processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            finish(process)
            times.append(json.loads(line))

        versions = vault.versions("my.files")
        assert len(versions) == len(expected) == (THREADS + PROCESSES) * PUTS
        # Each putter saw its own times grow, and no two share one.
        assert all(seen == sorted(seen) for seen in times)
        every = sorted(us for seen in times for us in seen)
        assert len(set(every)) == len(every)
        assert [version.collected_us for version in reversed(versions)] == every
        # The first has the whole second, the others follow the clock by single microseconds.
        assert every == [NOON_US, *range(NOON_US + 123, NOON_US + 123 + len(every) - 1)]
        assert every[-1] < NOON_US + SECOND_US
        found = set()
        for version in versions:
            data = json.loads(vault.read_payload(version))
            word, number = next(iter(data.items()))
            found.add((f"{word[0]}{number}", data["n"]))
            assert version.name == f"{word[0]}{number}".encode()
        assert found == expected
    with Vault.open(tmp_path / "v") as vault:
        check_whole(vault)
        assert len(list_files(vault.layout.data)) == len(expected)


def test_threads_on_one_name(vault: Vault) -> None:
    """Threads that put one name at once make one file, whose newest version the name shows."""

    def put(thread: int) -> None:
        for n in range(10):
            vault.put("my.files", b"%d.%d" % (thread, n), name="F/n")

    threads = [threading.Thread(target=put, args=(thread,)) for thread in range(8)]
    for started in threads:
        started.start()
    for started in threads:
        started.join()
    versions = vault.versions("my.files")
    assert len(versions) == 80
    assert len({version.node for version in versions}) == 1
    ((name, entry),) = vault.names("my.files")
    assert (name, entry.version) == (b"F/n", versions[0].id)
    check_whole(vault)


def test_reading_while_others_put_and_settle(vault: Vault) -> None:
    """Whatever a listing shows can be read at that moment, while it is being settled."""
    stop = threading.Event()
    errors: list[BaseException] = []

    def guard(work):
        def run() -> None:
            try:
                while not stop.is_set():
                    work()
            except BaseException as error:
                errors.append(error)

        return threading.Thread(target=run)

    def put() -> None:
        vault.put("my.files", b"x" * 20_000, name="blob")
        vault.put("my.files", b'{"a":1}', name="document")
        vault.put("my.files", b"y" * 70_000, name="file")

    def read() -> None:
        for version in vault.versions("my.files", limit=6):
            assert len(vault.read_payload(version)) == version.payload_size
            assert len(vault.read_envelope(version)) == version.size_bytes

    threads = [guard(put), guard(vault.settle), guard(read), guard(read)]
    for started in threads:
        started.start()
    while len(vault.versions("my.files")) < 60 and not errors:
        assert threads[0].is_alive()
    stop.set()
    for started in threads:
        started.join()
    assert errors == []
    check_whole(vault)


def test_deleting_while_others_put(vault: Vault) -> None:
    """Deletions of a scope and puts into it at once leave the vault whole."""
    done = threading.Event()
    errors: list[BaseException] = []

    def delete() -> None:
        try:
            while not done.is_set():
                if vault.versions("my.files", limit=1):
                    vault.delete_scope("my.files")
        except BaseException as error:
            errors.append(error)

    deleter = threading.Thread(target=delete)
    deleter.start()
    for n in range(100):
        vault.put("my.files", b"%d" % n, name=f"F/{n % 3}" if n % 2 else None)
    done.set()
    deleter.join()
    assert errors == []
    check_whole(vault)
