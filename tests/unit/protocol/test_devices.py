"""What a keeper makes of workers whose class of devices fails in a job."""

import pytest

from sparkle_protocol import effects as fx
from sparkle_protocol import facts as f
from sparkle_protocol import messages as m
from sparkle_protocol.work.exclusion import ALIKE, BLIND_NS, FIRST_PROBATION_NS, PRESENT_NS
from sparkle_protocol.work.lease import SECOND_NS
from tests.unit.protocol.kept_jobs import peer
from tests.unit.protocol.test_keeping import CODEC, RIGHT, A, B, C, D, Identity, Keeper, spec

GPU, CPU = "opencl/nvidia", "cpu/x86_64"
GPUS = [peer(20 + n) for n in range(8)]
CPUS = [peer(40 + n) for n in range(8)]


class MixedKeeper(Keeper):
    """A submitter whose workers say what they are."""

    excluded: tuple[fx.Notify, ...] = ()

    def perform(self, effects: fx.Effects) -> m.Reply | None:
        told = [one for one in effects if isinstance(one, fx.Notify) and one.event == "class_excluded"]
        self.excluded += tuple(told)
        return super().perform(effects)

    def lease_as(self, worker: Identity, device: str, want: int = 1) -> list[int]:
        reply = self.ask(worker, m.LeaseRequest(want, ["square@1"], [], device))
        assert isinstance(reply, m.LeaseReply)
        payloads = [CODEC.open(raw).payload for raw in reply.leases]
        return [item.unit for payload in payloads if isinstance(payload, f.Leases) for item in payload.items]

    def fail_as(self, worker: Identity, device: str, unit: int = 0) -> None:
        self.report(worker, f.Failures(self.id, [f.FailureItem(unit, 0, "kernel", "it broke", device)]))

    def until_given(self, worker: Identity, device: str, unit: int) -> None:
        """Ask, as often as it takes, until the worker has the unit."""
        taken: list[int] = []
        for _ in range(700):
            taken += self.lease_as(worker, device)
            if unit in taken:
                return
            self.pass_time(SECOND_NS)
        raise AssertionError(f"unit {unit} was never handed out; {taken}")

    def gpus_fail(self) -> None:
        """Three devices of a class fail on three units."""
        for worker, unit in zip(GPUS, range(3), strict=False):
            assert self.lease_as(worker, GPU) == [unit]
            self.fail(worker, unit=unit)

    def cpus_agree(self, unit: int) -> None:
        for worker in CPUS[:2]:
            self.until_given(worker, CPU, unit)
            self.commit(worker, RIGHT, unit)
        for worker in CPUS[:2]:
            self.reveal(worker, RIGHT, unit)


def mixed(units: int = 20) -> MixedKeeper:
    keeper = MixedKeeper(spec(units))
    keeper.gpus_fail()
    keeper.cpus_agree(1)
    return keeper


def test_a_class_that_fails_where_another_succeeds_gets_no_more_units_of_the_job() -> None:
    keeper = mixed()
    assert keeper.lease_as(GPUS[5], GPU) == []
    assert keeper.lease_as(CPUS[5], CPU) != []
    (told,) = keeper.excluded
    assert told.fields["device"] == GPU
    assert str(told.fields["reason"]).startswith("3 devices of class opencl/nvidia failed on 3 units (kernel)")
    assert keeper.job.devices.exclusion.all_excluded() == {GPU: told.fields["reason"]}


def test_an_excluded_class_gets_one_unit_on_probation_and_is_back_after_one_success() -> None:
    keeper = mixed()
    keeper.pass_time(FIRST_PROBATION_NS)
    (unit,) = keeper.lease_as(GPUS[5], GPU, 8)
    assert keeper.lease_as(GPUS[6], GPU, 8) == []
    assert keeper.lease_as(GPUS[5], GPU, 8) == []
    keeper.commit(GPUS[5], RIGHT, unit)
    keeper.until_given(CPUS[6], CPU, unit)
    keeper.commit(CPUS[6], RIGHT, unit)
    for worker in (GPUS[5], CPUS[6]):
        keeper.reveal(worker, RIGHT, unit)
    assert unit in keeper.job.state.final_units
    assert keeper.lease_as(GPUS[6], GPU) != []


def test_a_unit_on_which_one_class_fails_alike_waits_for_another_one() -> None:
    keeper = MixedKeeper(spec(1))
    keeper.lease_as(CPUS[0], CPU)  # there is another class, which will not answer
    for worker in GPUS[:ALIKE]:
        keeper.until_given(worker, GPU, 0)
        keeper.fail(worker)
    assert keeper.job.dead == {}
    keeper.pass_time(60 * SECOND_NS)
    assert keeper.lease_as(GPUS[5], GPU) == []
    assert keeper.lease_as(CPUS[1], CPU) == [0]


def test_a_restart_does_not_blame_the_unit_before_it_knows_which_classes_are_there() -> None:
    keeper = MixedKeeper(spec(1))
    keeper.lease_as(CPUS[0], CPU)
    for worker in GPUS[:ALIKE]:
        keeper.until_given(worker, GPU, 0)
        keeper.fail_as(worker, GPU)
    keeper.restart()
    assert keeper.job.dead == {}
    keeper.cpus_agree(0)
    assert keeper.job.outcome == "done"


def test_without_another_class_a_unit_is_dead_soon_after_a_restart() -> None:
    keeper = MixedKeeper(spec(1))
    keeper.lease_as(CPUS[0], CPU)
    for worker in GPUS[:ALIKE]:
        keeper.until_given(worker, GPU, 0)
        keeper.fail_as(worker, GPU)
    keeper.restart()
    keeper.pass_time(BLIND_NS)
    assert 0 in keeper.job.dead


def test_a_unit_is_dead_once_no_other_class_comes_any_more() -> None:
    keeper = MixedKeeper(spec(1))
    keeper.lease_as(CPUS[0], CPU)
    for worker in GPUS[:ALIKE]:
        keeper.until_given(worker, GPU, 0)
        keeper.fail(worker)
    assert keeper.core.next_deadline() is not None
    for _ in range(3 * PRESENT_NS // (60 * SECOND_NS)):
        keeper.pass_time(60 * SECOND_NS)
    assert keeper.job.dead == {0: "unit 0 failed on 3 workers: it broke"}


def test_a_unit_on_which_two_classes_fail_is_dead() -> None:
    keeper = MixedKeeper(spec(1))
    for worker, device in ((GPUS[0], GPU), (GPUS[1], GPU), (CPUS[0], CPU)):
        keeper.until_given(worker, device, 0)
        keeper.fail(worker)
    assert 0 in keeper.job.dead


@pytest.mark.parametrize("device", ["", CPU])
def test_with_one_class_only_three_alike_failures_end_a_unit_as_ever(device: str) -> None:
    keeper = MixedKeeper(spec(1))
    for worker in (A, B, C):
        keeper.until_given(worker, device, 0)
        keeper.fail(worker)
    assert keeper.job.dead == {0: "unit 0 failed on 3 workers: it broke"}
    assert keeper.lease(D) == []
