"""When the settling thread settles: after 250 ms of quiet, at latest after 2 s."""

import threading
from collections.abc import Callable

import pytest

from scopefs.errors import Unavailable
from scopefs.store import background
from scopefs.store.background import LATEST_S, QUIET_S, SettleThread, SyncThread
from tests.store.inspection import NOON_US, PATIENCE_S


class FakeTime:
    """A monotonic clock that moves only when somebody waits on it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.while_waiting: Callable[[], None] = lambda: None

    def monotonic(self) -> float:
        return self.now


class FakeCondition:
    """Stands in for the thread's condition: to wait is to move the clock."""

    def __init__(self, time: FakeTime) -> None:
        self._time = time

    def __enter__(self) -> "FakeCondition":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def notify(self) -> None:
        return None

    def wait(self, seconds: float) -> None:
        self._time.now += min(seconds, 0.1)
        assert self._time.now < 1010, "waits for ever"
        self._time.while_waiting()

    def wait_for(self, predicate: Callable[[], bool], seconds: float | None = None) -> bool:
        if not predicate() and seconds is None:
            raise AssertionError("would wait for ever")
        return predicate()


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    """The time that the module goes by."""
    fake = FakeTime()
    monkeypatch.setattr(background, "time", fake)
    return fake


@pytest.fixture
def thread(time: FakeTime) -> SettleThread:
    """A settling thread that never starts: the test calls what it would run."""
    made = SettleThread(lambda _: True, lambda: NOON_US)
    made._condition = FakeCondition(time)  # type: ignore[assignment]
    made._thread = threading.Thread()
    return made


def test_due_after_quiet(thread: SettleThread, time: FakeTime) -> None:
    """One change is settled 250 ms later."""
    thread.poke()
    assert thread._wait_until_due()
    assert time.now == pytest.approx(1000 + QUIET_S)


def test_later_changes_put_it_off(thread: SettleThread, time: FakeTime) -> None:
    """The 250 ms count from the last change."""
    pokes = iter(range(5))
    time.while_waiting = lambda: thread.poke() if next(pokes, None) is not None else None
    thread.poke()
    assert thread._wait_until_due()
    assert time.now == pytest.approx(1000.5 + QUIET_S)


def test_not_put_off_for_ever(thread: SettleThread, time: FakeTime) -> None:
    """Under load it is done 2 s after the first change."""
    time.while_waiting = thread.poke
    thread.poke()
    assert thread._wait_until_due()
    assert time.now == pytest.approx(1000 + LATEST_S)


def test_regression_young_versions_and_a_long_settle(thread: SettleThread, time: FakeTime) -> None:
    """What was too young for a settle is settled by the next, however long the first one took."""
    calls: list[float] = []

    def settle(_: int) -> bool:
        calls.append(time.now)
        time.now += 1
        thread._stopping = len(calls) == 2
        return True

    thread._settle = settle
    time.while_waiting = lambda: None if calls else thread.poke()
    thread.poke()
    thread._run()
    assert len(calls) == 2


def test_stop_ends_the_waiting(thread: SettleThread, time: FakeTime) -> None:
    """Who is told to stop does not settle once more."""
    thread.poke()
    thread._stopping = True
    assert not thread._wait_until_due()
    assert time.now == 1000


def test_poke_after_stop_does_nothing() -> None:
    """A stopped thread is not started again."""
    calls: list[int] = []
    settling = SettleThread(lambda us: bool(calls.append(us)), lambda: NOON_US)
    settling.stop()
    settling.poke()
    assert settling._thread is None
    assert calls == []


def test_versions_younger_than_the_quiet_time_are_left() -> None:
    """The thread asks for what is older than 250 ms by the vault's clock."""
    called = threading.Event()
    asked: list[int] = []

    def settle(older_than_us: int) -> bool:
        asked.append(older_than_us)
        called.set()
        return True

    settling = SettleThread(settle, lambda: NOON_US)
    settling.poke()
    assert called.wait(PATIENCE_S)
    settling.stop()
    assert set(asked) == {NOON_US - 250_000}


@pytest.mark.parametrize("is_error", [False, True])
def test_settle_that_did_not_succeed_is_tried_again(
    caplog: pytest.LogCaptureFixture, is_error: bool
) -> None:
    """An error, or another process at work, is followed by another try without a new change."""
    done = threading.Event()
    tries: list[int] = []

    def settle(us: int) -> bool:
        tries.append(us)
        if len(tries) == 1:
            if is_error:
                raise OSError(5, "the disk failed")
            return False
        done.set()
        return True

    settling = SettleThread(settle, lambda: NOON_US)
    settling.poke()
    assert done.wait(PATIENCE_S)
    settling.stop()
    assert ("the disk failed" in caplog.text) is is_error


def test_stop_waits_for_the_settle_under_way() -> None:
    """After stop returned nothing settles any more."""
    inside, go, ended = threading.Event(), threading.Event(), threading.Event()

    def settle(_: int) -> bool:
        inside.set()
        assert go.wait(PATIENCE_S)
        ended.set()
        return True

    settling = SettleThread(settle, lambda: NOON_US)
    settling.poke()
    assert inside.wait(PATIENCE_S)
    stopper = threading.Thread(target=settling.stop)
    stopper.start()
    assert not ended.is_set()
    go.set()
    stopper.join(PATIENCE_S)
    assert ended.is_set()
    assert not stopper.is_alive()


def test_sync_comes_in_time_however_long_settling_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for all that came before; after the end, never."""
    monkeypatch.setattr(background, "SYNC_S", 0.01)
    synced, go = threading.Semaphore(0), threading.Event()
    syncing = SyncThread(synced.release)
    settling = SettleThread(lambda _: go.wait(PATIENCE_S), lambda: NOON_US, syncing)
    for _ in range(3):
        settling.poke()
        assert synced.acquire(timeout=PATIENCE_S)
    go.set()
    settling.stop()
    settling.poke()
    assert not synced.acquire(blocking=False)


def test_sync_that_failed_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next change has another."""
    monkeypatch.setattr(background, "SYNC_S", 0.01)
    called = threading.Semaphore(0)

    def sync() -> None:
        called.release()
        raise Unavailable("the disk failed")

    syncing = SyncThread(sync)
    for _ in range(2):
        syncing.poke()
        assert called.acquire(timeout=PATIENCE_S)
    syncing.stop()
    assert "the disk failed" in caplog.text
