"""What a keeper still knows of units that it sealed: enough for whoever is late, and who lied."""

from random import Random

import pytest

from sparkle_protocol import effects as fx
from sparkle_protocol import facts as f
from sparkle_protocol import messages as m
from sparkle_protocol.facts import SEAL_UNITS, lot_of, units_of
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import hash_result
from sparkle_protocol.work.lease import REVEAL_DEADLINE_NS
from sparkle_protocol.work.sealed import SealedRange
from sparkle_protocol.work.submitter import Submitter
from tests.unit.protocol.test_keeping import CODEC, ME, NONCE, RIGHT, WRONG, A, B, C, D, Keeper, check_form, spec

LIAR = D


class Sealing(Keeper):
    """One with a disk that forgets what was sealed, and workers that report many units at once."""

    def __init__(self) -> None:
        self.ranges: list[SealedRange] = []
        super().__init__(spec(SEAL_UNITS + 1))

    def perform(self, effects: fx.Effects) -> m.Reply | None:
        answer = super().perform(effects)
        for record in (r for effect in effects if isinstance(effect, fx.Persist) for r in effect.records):
            if isinstance(record, fx.SealRange):
                self.ranges.append(SealedRange.decode(record.raw))
                gone = {fact_id for _, fact_id in record.drop}
                self.disk = [fact for fact in self.disk if fact.id not in gone]
        return answer

    def restart(self) -> None:
        self.core = Submitter(ME, CODEC, Random(2), check_form)
        self.told.clear()
        self.perform(self.core.restore(self.disk[0], self.disk[1:], self.now, self.results, sealed=self.ranges))

    def show(self, worker: Identity, result: bytes, *units: int) -> None:
        for start in range(0, len(units), m.MAX_RESULTS_PER_REPORT):
            part = units[start : start + m.MAX_RESULTS_PER_REPORT]
            items = [f.RevealItem(unit, 0, hash_result(result), NONCE) for unit in part]
            self.report(worker, f.Reveals(self.id, items), results=[result] * len(part))

    def work(self, *workers: Identity) -> None:
        """Let these workers compute what they are given, until the first range is done."""
        while any(unit not in self.job.state.final_units for unit in range(SEAL_UNITS)):
            given = {worker: [unit for unit in self.lease(worker, 128) if unit < SEAL_UNITS] for worker in workers}
            if not any(given.values()):
                self.pass_time(REVEAL_DEADLINE_NS + 1)  # somebody does not show what it committed to
            for worker, units in given.items():
                if units:
                    self.commit(worker, RIGHT, *units)
            for worker, units in given.items():
                self.show(worker, RIGHT, *units)


@pytest.fixture
def sealed() -> Sealing:
    """A liar was found out at unit 0, and C committed to unit 1 and did not show its result: then all was sealed."""
    keeper = Sealing()
    assert [keeper.lease(worker, 1) for worker in (A, LIAR)] == [[0], [0]]
    keeper.commit(A, RIGHT)
    keeper.commit(LIAR, WRONG)
    keeper.reveal(A, RIGHT)
    keeper.reveal(LIAR, WRONG)
    assert keeper.lease(C, 2) == [0, 1]
    keeper.commit(C, RIGHT, 0, 1)
    keeper.show(C, RIGHT, 0)
    assert keeper.job.rejected == {LIAR.peer_id}
    keeper.work(A, B)
    assert [one.index for one in keeper.ranges] == [0]
    return keeper


def test_a_worker_that_is_late_hears_how_it_ended_and_breaks_no_rule(sealed: Sealing) -> None:
    assert m.Settled(5, 0, True) in sealed.commit(B, RIGHT, 5).settled  # its reply was lost
    assert m.Settled(7, 0, True) in sealed.report(A, running=[m.Heartbeat(7, 0, 1.0)]).settled
    assert m.UnitEpoch(9, 0) in sealed.commit(C, WRONG, 9).drop
    items = [f.RevealItem(1, 0, hash_result(RIGHT), NONCE)]
    reply = sealed.report(C, f.Reveals(sealed.id, items), results=[RIGHT])
    assert m.UnitEpoch(1, 0) in reply.drop
    assert m.UnitEpoch(12, 0) in sealed.report(C, running=[m.Heartbeat(12, 0, 0.5)]).drop
    assert sealed.violations == []
    assert len(sealed.job.state.sealed) == SEAL_UNITS


def test_nothing_fine_is_left_but_what_proves_a_lie(sealed: Sealing) -> None:
    assert [unit for unit in sealed.job.state.touched_units() if unit < SEAL_UNITS] == [0]
    assert all(unit >= SEAL_UNITS for unit in sealed.job.leases.books)
    about = {unit for fact in sealed.job.state.facts() for unit in units_of(fact.payload)}
    assert SEAL_UNITS in about  # of which a lease is out; facts about that unit and sealed ones stay for it
    proofs = [fact for fact in sealed.disk if lot_of(fact.payload) == 0]
    assert {fact.author for fact in proofs} >= {LIAR.peer_id}
    assert all(0 in units_of(fact.payload) for fact in proofs)


def test_a_restart_remembers_who_lied_and_whose_results_were_accepted(sealed: Sealing) -> None:
    before = sealed.job
    sealed.restart()
    assert sealed.job is not before
    assert sealed.job.rejected == {LIAR.peer_id}
    assert sealed.job.accepted_by == before.accepted_by
    assert sealed.job.state.tally.total() == before.state.tally.total()
    assert sealed.job.state.final_units == before.state.final_units
    assert not sealed.job.lacking
    assert sealed.lease(LIAR) == []
    assert sealed.lease(A) == [SEAL_UNITS]  # the one unit of the other range


def test_the_rest_of_the_job_goes_on_to_its_end(sealed: Sealing) -> None:
    sealed.restart()
    for worker in (A, B):
        assert sealed.lease(worker) == [SEAL_UNITS]
        sealed.commit(worker, RIGHT, SEAL_UNITS)
    for worker in (A, B):
        sealed.show(worker, RIGHT, SEAL_UNITS)
    assert sealed.job.outcome == "done"
