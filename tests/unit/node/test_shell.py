"""The shell: what waits for the disk, what happens when that fails, and that no core can spin or stop the node."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sparkle_p2p.node import shell as shell_module
from sparkle_p2p.node.shell import Shell
from sparkle_p2p.node.store import Store, StoreError, writing
from sparkle_p2p.runtime.clock import boot_ns
from sparkle_protocol import effects as fx
from sparkle_protocol import messages
from sparkle_protocol.errors import TransportError
from sparkle_protocol.ids import JobId, PeerId, ResultHash

ME = PeerId("12D3KooWHrTvH4VQ24pGBZYPKnk61sCSgzFDGEy3FbFGezvmwW7B")
OTHER = PeerId("12D3KooWMJzrobDffLGhPMWhVp7H8e3gN8me4hUYi8dXiENcq6ZV")
JOB = JobId(b"j" * 32)


def stored(number: int) -> fx.Persist:
    return fx.Persist((fx.StoreResult(JOB, ResultHash(number.to_bytes(32, "big")), b"r"),))


def note(name: str) -> fx.Notify:
    return fx.Notify(name)


@dataclass
class ScriptedCore:
    """Answers every event by what the test says, and keeps the events."""

    answer: Callable[[object], fx.Effects] = lambda event: ()
    due: int | None = None
    events: list[object] = field(default_factory=list)

    def handle(self, event: object, now_ns: int) -> fx.Effects:
        self.events.append(event)
        return self.answer(event)

    def next_deadline(self) -> int | None:
        return self.due


class SlowDisk:
    """The store's connection, which can be made to wait or to fail."""

    def __init__(self, store: Store) -> None:
        self.real = store._connection()
        self.failing = False
        self.held = threading.Event()  # unless set, it takes its time
        self.held.set()
        store._db = self  # type: ignore[assignment]

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)

    def execute(self, sql: str, *arguments: object) -> object:
        self.held.wait(10)
        if self.failing and sql.startswith("BEGIN"):
            raise sqlite3.OperationalError("database or disk is full")
        return self.real.execute(sql, *arguments)


@dataclass
class Bench:
    shell: Shell
    store: Store
    core: ScriptedCore
    disk: SlowDisk
    performed: list[fx.Effect]
    heard: Callable[[fx.Effect], None] = lambda effect: None

    def take(self, effect: fx.Effect) -> None:
        self.performed.append(effect)
        self.heard(effect)

    @property
    def names(self) -> list[str]:
        return [effect.event for effect in self.performed if isinstance(effect, fx.Notify)]


@asynccontextmanager
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    store = Store(tmp_path / "node.db")
    await store.open()
    core, parts = ScriptedCore(), []
    async with asyncio.TaskGroup() as group:
        shell = Shell(ME, store, group, lambda message: core, lambda effect: parts[0].take(effect))
        parts.append(Bench(shell, store, core, SlowDisk(store), []))
        yield parts[0]
        shell.stop()
    await store.close()


async def settle(b: Bench) -> None:
    """Return once nothing waits for the disk."""
    async with asyncio.timeout(5):
        with contextlib.suppress(StoreError):
            await b.shell.perform_durably(b.core, ())


async def test_what_stands_after_a_persist_waits_for_the_disk(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.shell.perform(b.core, (note("before"), stored(1), note("after")))
        assert b.names == ["before"]
        await settle(b)
        assert b.names == ["before", "after"]
        assert await b.store.results(JOB, [ResultHash((1).to_bytes(32, "big"))]) == [b"r"]


async def test_later_batches_of_a_core_do_not_overtake(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        other = ScriptedCore()
        b.shell.perform(b.core, (stored(1), note("first")))
        b.shell.perform(b.core, (note("second"),))
        b.shell.perform(b.core, (note("third"), stored(2), note("fourth")))
        b.shell.perform(other, (note("of another core"),))
        assert b.names == ["of another core"]
        await settle(b)
        assert b.names == ["of another core", "first", "second", "third", "fourth"]


async def test_nothing_is_acknowledged_that_is_not_kept(tmp_path: Path) -> None:
    """A request whose records cannot be written is refused; asked again after that, it still is."""
    async with bench(tmp_path) as b:
        replies = {
            1: (stored(1), fx.Reply(1, messages.Ok()), fx.Send(7, OTHER, messages.Offer([]))),
            2: (fx.Reply(2, messages.Ok()),),  # the core knows it already: nothing new to store
            3: (fx.Reply(3, messages.Ok()),),
        }
        b.core.answer = lambda event: replies[event.token] if isinstance(event, fx.Requested) else ()
        b.disk.failing = True
        offer = messages.encode_message(messages.Offer([]))
        for _ in range(2):
            refused = messages.decode_reply(await b.shell.serve(OTHER, offer))
            assert isinstance(refused, messages.Refusal)
            assert refused.code == "storage"
        assert fx.SendFailed in map(type, b.core.events)  # so that the core sends it again some day
        assert b.names == ["storage_failed"]  # once, not for every batch
        b.disk.failing = False
        assert isinstance(messages.decode_reply(await b.shell.serve(OTHER, offer)), messages.Ok)
        assert b.names == ["storage_failed", "storage_restored"]
        assert len(await b.store.results(JOB, [ResultHash((1).to_bytes(32, "big"))])) == 1


async def test_a_unit_that_may_not_start_is_told_to_its_core(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.disk.failing = True
        compute = fx.Compute(JOB, 1, 0, spec=None)  # type: ignore[arg-type]
        b.shell.perform(b.core, (stored(1), compute))
        await settle(b)
        await asyncio.sleep(0)
        (event,) = b.core.events
        assert isinstance(event, fx.ComputeFailed)
        assert not event.blame


async def test_a_durable_batch_that_fails_never_happened(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.disk.failing = True
        with pytest.raises(StoreError, match="full"):
            await b.shell.perform_durably(b.core, (stored(1), note("published")), keep=False)
        b.disk.failing = False
        await b.shell.perform_durably(b.core, (stored(2), note("other")))
        assert b.names == ["storage_failed", "storage_restored", "other"]
        with pytest.raises(StoreError, match="is not in"):
            await b.store.results(JOB, [ResultHash((1).to_bytes(32, "big"))])


async def test_nothing_is_told_that_a_crash_now_would_make_untrue(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.disk.failing = True
        b.shell.perform(b.core, (stored(1), note("final")))
        b.shell.perform(b.core, (note("done"),))
        await settle(b)
        assert b.names == ["storage_failed"]
        b.disk.failing = False
        b.shell.perform(b.core, (note("next"),))
        await settle(b)
        assert b.names == ["storage_failed", "storage_restored", "final", "done", "next"]


async def test_on_a_quiet_node_what_was_withheld_is_told_when_the_disk_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else happens on the node: no further batch, no request."""
    monkeypatch.setattr(writing, "RETRY_S", 0.01)
    async with bench(tmp_path) as b:
        told = asyncio.Event()
        b.heard = lambda effect: told.set() if effect == note("done") else None
        b.disk.failing = True
        b.shell.perform(b.core, (stored(1), note("final"), note("done")))
        await settle(b)
        assert b.names == ["storage_failed"]
        b.disk.failing = False
        async with asyncio.timeout(5):
            await told.wait()
        assert b.names == ["storage_failed", "storage_restored", "final", "done"]
        assert len(await b.store.results(JOB, [ResultHash((1).to_bytes(32, "big"))])) == 1


async def test_whoever_brings_the_backlog_to_disk_what_was_withheld_is_told(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.disk.failing = True
        b.shell.perform(b.core, (stored(1), note("final")))
        await settle(b)
        b.disk.failing = False
        await b.store.write(())  # as for combining a result
        assert b.names == ["storage_failed", "storage_restored", "final"]


async def test_nothing_is_acknowledged_of_which_a_part_was_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is slower than the records come: the batch is refused, though the wait for the others succeeds."""
    monkeypatch.setattr(writing, "CROWDED_RECORDS", 1)
    async with bench(tmp_path) as b:
        b.shell.perform(b.core, (stored(1),))
        with pytest.raises(StoreError, match="fast enough"):
            await b.shell.perform_durably(b.core, (stored(2), note("published")), keep=False)
        await b.shell.perform_durably(b.core, (stored(3), note("cancelled")))
        assert b.names == ["cancelled"]
        for number, there in ((2, 0), (3, 1)):
            found = await b.store.results_there(JOB, [ResultHash(number.to_bytes(32, "big"))])
            assert len(found) == there


async def test_requests_are_refused_before_more_waits_than_the_disk_can_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "CROWDED_RECORDS", 0)
    async with bench(tmp_path) as b:
        b.disk.failing = True
        b.shell.perform(b.core, (stored(1),))
        await settle(b)
        refused = messages.decode_reply(await b.shell.serve(OTHER, messages.encode_message(messages.Offer([]))))
        assert isinstance(refused, messages.Refusal)
        assert refused.code == "storage"
        assert b.core.events == []  # what it had heard it would have to keep


async def test_after_something_was_given_up_a_repeated_request_is_not_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The core knows the fact and finds nothing new to store; the disk is back, but never got the fact."""
    monkeypatch.setattr(writing, "MAX_RECORDS", 1)
    async with bench(tmp_path) as b:
        b.disk.failing = True
        b.shell.perform(b.core, (stored(1),))
        await settle(b)
        offer = messages.encode_message(messages.Offer([]))
        batches = [(stored(2), note("final"))]
        b.core.answer = lambda event: (
            (*(batches.pop() if batches else ()), fx.Reply(event.token, messages.Ok()))
            if isinstance(event, fx.Requested)
            else ()
        )
        for failing in (True, False, False):
            b.disk.failing = failing
            refused = messages.decode_reply(await b.shell.serve(OTHER, offer))
            assert isinstance(refused, messages.Refusal)
            assert refused.code == "storage"
        with pytest.raises(StoreError, match="restart the node"):
            await b.shell.perform_durably(b.core, (note("submitted"),))
        assert b.names == ["storage_failed", "storage_failed"]  # the second says that it is for good


async def test_a_refused_submit_answers_for_all_that_came_with_it(tmp_path: Path) -> None:
    """The same batch may hold sends of other jobs and answers: their core must hear that nothing became of them."""
    async with bench(tmp_path) as b:
        b.disk.failing = True
        send = fx.Send(7, OTHER, messages.Offer([]))
        with pytest.raises(StoreError, match="full"):
            await b.shell.perform_durably(b.core, (stored(1), note("job_submitted"), send), keep=False)
        await asyncio.sleep(0)
        (failed,) = b.core.events
        assert isinstance(failed, fx.SendFailed)
        assert (failed.tag, failed.peer) == (7, OTHER)
        assert not b.store.behind
        b.disk.failing = False
        await b.shell.perform_durably(b.core, (stored(2),))
        assert "job_submitted" not in b.names


async def test_an_event_that_cannot_be_told_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with bench(tmp_path) as b:

        def hear(effect: fx.Effect) -> None:
            if effect == note("bad"):
                raise KeyError("a bug")

        b.heard = hear
        b.disk.failing = True
        b.shell.perform(b.core, (stored(1), note("bad"), note("good")))
        await settle(b)
        b.disk.failing = False
        async with asyncio.timeout(5):
            await b.shell.perform_durably(b.core, (stored(2), note("next")))
        assert b.names == ["storage_failed", "storage_restored", "bad", "good", "next"]
    assert "telling bad failed" in caplog.text


async def test_who_waits_for_a_batch_is_answered_when_the_node_ends_at_once(tmp_path: Path) -> None:
    """The tasks are cancelled while the disk takes its time."""
    store = Store(tmp_path / "node.db")
    await store.open()
    disk, core = SlowDisk(store), ScriptedCore()
    waiting: list[asyncio.Task[None]] = []
    with contextlib.suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            shell = Shell(ME, store, group, lambda message: core, lambda effect: None)
            disk.held.clear()
            waiting.append(asyncio.create_task(shell.perform_durably(core, (stored(1),))))
            for _ in range(3):  # until the lane has begun to wait
                await asyncio.sleep(0)
            raise RuntimeError
    with pytest.raises(StoreError, match="stopping"):
        async with asyncio.timeout(5):
            await waiting[0]
    disk.held.set()
    await store.close()


async def test_a_core_that_leaves_its_deadline_in_the_past_does_not_eat_a_processor(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.core.due = boot_ns() - 10**9
        third = asyncio.Event()
        b.core.answer = lambda event: third.set() or () if len(b.core.events) == 3 else ()
        began = boot_ns()
        b.shell.arm(b.core)
        async with asyncio.timeout(5):
            await third.wait()
        assert boot_ns() - began >= 2 * shell_module.STUCK_ALARM_S * 1e9
        assert all(isinstance(event, fx.Tick) for event in b.core.events)


async def test_a_core_that_fails_is_logged_and_asked_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shell_module, "FAILED_ALARM_S", 0.01)
    async with bench(tmp_path) as b:
        recovered = asyncio.Event()

        def answer(event: object) -> fx.Effects:
            if len(b.core.events) == 1:
                raise KeyError("a bug")
            recovered.set()
            return ()

        b.core.answer, b.core.due = answer, boot_ns()
        b.shell.arm(b.core)
        async with asyncio.timeout(5):
            await recovered.wait()
    assert "ScriptedCore failed to handle a Tick" in caplog.text


async def test_a_banned_peer_is_asked_nothing_and_not_connected_to(tmp_path: Path) -> None:
    """Else a node that hangs up on a peer would meet it again by offering it work, and so on without end."""
    connected: list[PeerId] = []

    class Network:
        def links(self) -> tuple[()]:
            return ()

        async def connect_peer(self, peer: PeerId, timeout_s: float) -> None:
            connected.append(peer)
            raise TransportError("nobody is there")

    core, heard = ScriptedCore(), asyncio.Event()

    def answer(event: object) -> fx.Effects:
        heard.set()
        return ()

    core.answer = answer
    store = Store(tmp_path / "node.db")
    await store.open()
    async with asyncio.TaskGroup() as group:
        shell = Shell(ME, store, group, lambda message: core, lambda effect: None, banned=lambda peer: peer == OTHER)
        shell.overlay = Network()  # type: ignore[assignment]
        shell.perform(core, (fx.Send(7, OTHER, messages.Offer([])),))
        async with asyncio.timeout(5):
            await heard.wait()
        shell.stop()
    await store.close()
    (failed,) = [event for event in core.events if isinstance(event, fx.SendFailed)]
    assert (failed.tag, failed.peer) == (7, OTHER)
    assert connected == []


async def test_requests_under_way_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound a send fails at once, and its core hears so."""
    monkeypatch.setattr(shell_module, "MAX_SENDS", 2)
    async with bench(tmp_path) as b:
        b.core.answer = lambda event: ()  # requests to itself are never answered
        b.shell.perform(b.core, tuple(fx.Send(tag, ME, messages.Offer([])) for tag in range(4)))
        await asyncio.sleep(0)
        failed = [event.tag for event in b.core.events if isinstance(event, fx.SendFailed)]
        assert failed == [2, 3]


async def test_a_stopped_shell_refuses_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        waiting = asyncio.create_task(b.shell.serve(OTHER, messages.encode_message(messages.Offer([]))))
        await asyncio.sleep(0)
        b.shell.stop()
        async with asyncio.timeout(5):
            late = await b.shell.serve(OTHER, messages.encode_message(messages.Offer([])))
            for reply in (await waiting, late):
                refused = messages.decode_reply(reply)
                assert isinstance(refused, messages.Refusal)
                assert refused.code == "stopping"
        with pytest.raises(StoreError, match="stopping"):
            await b.shell.perform_durably(b.core, (stored(1),))
        b.shell.tell(b.core, fx.Tick())
        assert not any(isinstance(event, fx.Tick) for event in b.core.events)


async def test_a_busy_peer_is_asked_again_and_not_blamed(tmp_path: Path) -> None:
    """A refusal for the other node's own reasons is a failed send, so that cores repeat the request."""
    async with bench(tmp_path) as b:
        heard = asyncio.Event()

        def answer(event: object) -> fx.Effects:
            if isinstance(event, fx.Requested):
                return (fx.Reply(event.token, messages.Refusal("busy", "not now")),)
            heard.set()
            return ()

        b.core.answer = answer
        b.shell.perform(b.core, (fx.Send(5, ME, messages.Offer([])),))
        async with asyncio.timeout(5):
            await heard.wait()
        assert b.core.events[-1] == fx.SendFailed(5, ME, "not now")
        assert b.performed == []
