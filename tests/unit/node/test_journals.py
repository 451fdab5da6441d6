"""Journals of real jobs: fed by the core's own events, kept in a real database, going on after a restart."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sparkle_p2p.node import reading
from sparkle_p2p.node.journal_words import timeline
from sparkle_p2p.node.journals import Journals
from sparkle_p2p.node.store import Store, StoreError
from sparkle_p2p.node.why_unit import explain_unit
from sparkle_protocol import effects as fx
from sparkle_protocol.ids import JobId, short_peer
from sparkle_protocol.work.lease import SECOND_NS
from tests.unit.node.test_store import break_disk
from tests.unit.protocol.test_keeping import ME, RIGHT, WRONG, A, B, Keeper, spec

NOON = 1_790_000_000_000


class Told(Keeper):
    """A keeper whose events are heard by journals, on one clock."""

    def __init__(self, store: Store, units: int) -> None:
        self.journals = Journals(ME.peer_id, store, lambda job: self.core.jobs.get(job))
        self.heard: list[str] = []
        self.late: list[fx.Notify] = []
        super().__init__(spec(units))
        self.catch_up()

    @property
    def now_ms(self) -> int:
        return NOON + self.now // 1_000_000

    def perform(self, effects: fx.Effects) -> object:  # type: ignore[override]
        self.late += [effect for effect in effects if isinstance(effect, fx.Notify)]
        answer = super().perform(effects)
        if hasattr(self, "id"):
            self.catch_up()
        return answer

    def catch_up(self) -> None:
        for notify in self.late:
            self.journals.hear(notify.event, notify.fields, self.now, self.now_ms)
        self.late.clear()

    async def again(self, store: Store, alive_ms: int) -> None:
        """The process ended; the next one restores the job."""
        self.journals = Journals(ME.peer_id, store, lambda job: self.core.jobs.get(job))
        late, self.late = self.late, []
        self.restart()
        self.late = late
        await self.journals.restored(self.job, alive_ms, self.now_ms)

    async def story(self) -> list[str]:
        journal = await self.journals.of(self.id)
        return [f"{moment.time - NOON / 1000:g} {moment.reason.sentence}" for moment in timeline(journal.entries)]

    def accept(self, unit: int) -> None:
        self.commit(A, RIGHT, unit)
        self.commit(B, RIGHT, unit)
        self.reveal(A, RIGHT, unit)
        self.reveal(B, RIGHT, unit)


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = Store(tmp_path / "node.db")
    await opened.open()
    yield opened
    await opened.close()


async def test_the_story_of_a_job_goes_on_after_a_restart(store: Store) -> None:
    """Submitted, begun, half done, a worker lost, the node killed and back, done: with the right times."""
    told = Told(store, 4)
    told.now += 3 * SECOND_NS
    assert told.lease(A) == [0]
    told.now += 2 * SECOND_NS
    told.journals.look(told.now, told.now_ms)
    assert told.lease(B) == [0]
    told.accept(0)
    assert told.lease(A) == [1]
    told.now += SECOND_NS
    told.journals.peer_lost(A.peer_id, told.core.jobs, told.now_ms)
    told.perform(told.core.handle(fx.PeerDown(A.peer_id), told.now))
    told.pass_time(6 * SECOND_NS)
    await told.journals.save({"alive_ms": told.now_ms})
    assert (await store.totals())["alive_ms"] == told.now_ms

    alive_ms = told.now_ms
    told.now += 40 * SECOND_NS
    await told.again(store, alive_ms)
    a = short_peer(A.peer_id)
    before = [
        "0 Submitted: square in 4 units.",
        "0 Published: 1 of 1 keeper holds its spec and inputs.",
        f"3 {a} took the first unit.",
        "5 25 % reached: 1 of 4 units accepted.",
        f"6 Worker {a} lost with 1 unit in hand; 1 went to others.",
        "52 This node is back; it had ended without notice 40 s before.",
    ]
    assert await told.story() == before
    for unit in (1, 2, 3):
        assert told.lease(B)
        assert told.lease(A)
        told.accept(unit)
    assert await told.story() == [
        *before, "52 50 % reached: 2 of 4 units accepted.", "52 75 % reached: 3 of 4 units accepted.", "52 Done.",

    ]  # fmt: skip
    whole = await told.story()
    await told.journals.save({})
    assert not told.journals._journals  # a job that is over costs no memory
    assert await told.story() == whole


async def test_a_clean_stop_is_told_with_how_long_it_lasted(store: Store) -> None:
    told = Told(store, 2)
    told.now += 5 * SECOND_NS
    told.journals.stopping(told.now_ms)
    await told.journals.save({})
    told.now += 64 * SECOND_NS
    await told.again(store, NOON)
    assert (await told.story())[2:] == ["5 This node was stopped.", "69 This node is back after 1 min 04 s."]


async def test_a_job_whose_first_lines_were_lost_in_a_crash_still_says_when_it_was_submitted(store: Store) -> None:
    told = Told(store, 2)
    told.now += 9 * SECOND_NS
    await told.again(store, told.now_ms - 2000)
    submitted, back = (await told.journals.of(told.id)).entries
    assert (submitted.kind, submitted.first_ms) == ("job_submitted", told.job.state.spec.created_ms)
    assert (back.kind, back.notes["away_s"]) == ("node_back", 2)


async def test_an_end_whose_line_was_lost_is_noticed(store: Store) -> None:
    told = Told(store, 1)
    await told.journals.save({})
    told.agree(A, B)
    await told.again(store, told.now_ms)
    assert (await told.story())[-1] == "0 Done; noticed when this node came back."
    await told.again(store, told.now_ms)


async def test_a_rejected_worker_is_told_with_the_evidence(store: Store) -> None:
    told = Told(store, 1)
    for worker, result in ((A, WRONG), (B, RIGHT)):
        told.lease(worker)
        told.commit(worker, result)
    for worker, result in ((A, WRONG), (B, RIGHT)):
        told.reveal(worker, result)
    told.agree(ME, result=RIGHT)
    lines = [line for line in await told.story() if "rejected" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"0 {short_peer(A.peer_id)} rejected: it answered ")
    assert "this node computed" in lines[0]


async def test_leases_that_run_out_are_one_line_each_worker(store: Store) -> None:
    told = Told(store, 40)
    taken = len(told.lease(A, 8))
    assert taken == 8
    told.pass_time(31 * SECOND_NS)
    assert (await told.story())[-1].endswith(
        f"{short_peer(A.peer_id)} lost 8 leases: not finished in time, others get the units."
    )
    assert told.journals.late(A.peer_id) == 8


async def test_a_latecomer_changes_no_pace_and_a_job_that_is_over_stays_forgotten(store: Store) -> None:
    """A third worker's result for a unit that is final is judged, which is news for nobody else."""
    told = Told(store, 2)
    for worker in (A, B):
        told.lease(worker)
    told.now += 5 * SECOND_NS
    told.journals.look(told.now, told.now_ms)
    told.accept(0)
    assert told.journals.pace(told.id).recent(told.now) == (1, 1, 5.0)
    told.journals.hear("unit_final", {"job": told.id.hex(), "unit": 0, "workers": 3}, told.now, told.now_ms)
    assert told.journals.pace(told.id).recent(told.now) == (1, 1, 5.0)
    for worker in (A, B):
        told.lease(worker)
    told.accept(1)
    await told.journals.save({})
    told.journals.hear("unit_final", {"job": told.id.hex(), "unit": 0, "workers": 3}, told.now, told.now_ms)
    told.journals.look(told.now, told.now_ms)
    assert not told.journals._journals
    assert (await told.story())[-1].endswith("Done.")


async def test_what_a_full_disk_refused_is_written_later(store: Store) -> None:
    told = Told(store, 2)
    disk = break_disk(store)
    with pytest.raises(StoreError):
        await told.journals.save({})
    disk.works = True
    await told.journals.save({})
    assert [entry.kind for entry in await store.journal(told.id)] == ["job_submitted", "job_published"]


async def test_events_of_jobs_that_are_not_ours_leave_no_trace(store: Store) -> None:
    told = Told(store, 1)
    for fields in ({}, {"job": "zz"}, {"job": b"x".hex()}, {"job": JobId(b"x" * 32).hex(), "peer": "12D3"}):
        told.journals.hear("lease_expired", fields, 0, NOON)
    assert len(told.journals._journals) == 1


def explained(told: Told, unit: int) -> str:
    answer = explain_unit(told.job, unit, told.journals.pace(told.id), told.now)
    return "\n".join(reason.sentence for reason in (answer.headline, *answer.details))


async def test_a_unit_says_what_it_waits_for_at_every_stage(store: Store) -> None:
    """From the queue over leases, commits and reveals to its end, and after a failure."""
    told = Told(store, 3)
    a, b = short_peer(A.peer_id), short_peer(B.peer_id)
    assert "Waits to be handed out after about 2 units before it." in explained(told, 2)
    assert "When it starts cannot be foreseen: no worker has taken a unit yet." in explained(told, 2)
    assert told.lease(A) == [0]
    told.now += 4 * SECOND_NS
    told.beat(A)
    said = explained(told, 0)
    assert "Not decided yet; 1 more worker wanted." in said
    assert f"{a} computes it (50%), leased 4 s ago; its lease lasts 30 s more." in said
    assert "Probably computed in 4 s; between 3 s and 6 s is likely." in said
    assert told.lease(B) == [0]
    assert f"Waits for {a} and {b} to finish it." in explained(told, 0)
    told.commit(A, RIGHT)
    assert f"{a} has committed and not shown its result; that is asked for once every" in explained(told, 0)
    told.commit(B, RIGHT)
    told.now += 10 * SECOND_NS
    said = explained(told, 0)
    assert f"Waits for {' and '.join(sorted([a, b], key=said.index))} to show the result, at most 20 s." in said
    told.reveal(A, RIGHT)
    assert "nobody disagrees so far" in explained(told, 0)
    told.reveal(B, RIGHT)
    said = explained(told, 0)
    assert said.startswith("Accepted: ")
    assert said.count("agrees with what was accepted.") == 2
    assert "Waits" not in said
    assert told.lease(A) == [1]
    told.fail(A, unit=1)
    said = explained(told, 1)
    assert "s more after it failed; then another worker gets it." in said
    assert f"{a} failed on it (kernel: it broke)." in said


async def test_a_worker_that_takes_and_does_not_deliver_is_named(store: Store) -> None:
    told = Told(store, 1)
    told.lease(A)
    told.pass_time(31 * SECOND_NS)
    assert f"{short_peer(A.peer_id)} was given it and did not deliver." in explained(told, 0)
    assert reading.keepers(told.job) == (ME.peer_id,)


async def test_saving_twice_at_once_is_saving_once(store: Store) -> None:
    """As when a node stops while it saves: a job that is over leaves memory once."""
    told = Told(store, 1)
    told.lease(A)
    told.lease(B)
    told.accept(0)
    await asyncio.gather(told.journals.save({}), told.journals.save({}))
    assert (await told.story())[-1] == "0 Done."
