"""Nodes of the world for jobs whose results are checked: workers' bits differ, and a check tells right from wrong.

A result is the square and four bytes of its worker; it stands for the name of a blob that the worker alone has. A
check takes a while, fails to get the blob from a worker that is not there, and sometimes has no answer at all. While
the submitter is away, keepers fetch blobs from whoever has them.
"""

from random import Random

from sparkle_protocol import effects as fx
from sparkle_protocol.facts import JobSpec, Policy, Verdicts, view_of
from sparkle_protocol.ids import JobId, hash_result
from sparkle_protocol.work.blob_sizes import BlobSizes
from sparkle_protocol.work.state import JobState
from tests.property.world import Core, World, WorldNode, spec, true_result

INPUTS = [bytes([n]) * 32 for n in range(2)]
SIZES = BlobSizes(lambda spec: tuple(1 << 20 for _ in spec.inputs), lambda _spec, _unit: 1 << 12)
WRONG = "the sums differ by 1e9 times the rounding error"


def checked_spec(units: int, rng: Random, policy: Policy | None = None, *, inputs: bool = False) -> JobSpec:
    job = spec(units, rng, policy or Policy(quorum=1), total_s=360_000)
    return replace_spec(job, verification="algebraic", inputs=INPUTS if inputs else [])


def replace_spec(job: JobSpec, **changes: object) -> JobSpec:
    fields = {name: getattr(job, name) for name in JobSpec.__struct_fields__}
    return JobSpec(**{**fields, **changes})


def is_right(unit: int, result: bytes) -> bool:
    return result[:8] == true_result(unit)


class CheckedNode(WorldNode):
    """A node whose shell checks results and fetches inputs."""

    vain = 0.0  # of checks have no answer
    check_s = 0.5
    inputs_s = 0.2  # until inputs are here; a node with None never gets them
    never_fetches = False
    full = False  # there is no room for results of others

    def equip(self) -> None:
        self.submitter.lend(1 << 30, SIZES)

    def start(self) -> None:
        self.checking: set[tuple[JobId, int, int, str]] = set()
        self.most_checks = 0
        self.holds: dict[JobId, bool] = {}  # jobs whose inputs are wanted, and whether they are here
        self.blobs: set[bytes] = getattr(self, "blobs", set())  # what this node computed, or fetched: on disk
        self.spares: dict[JobId, set[int]] = {}  # units whose results are kept for others
        super().start()

    def lose_disk(self) -> None:
        super().lose_disk()
        self.blobs = set()

    def perform_one(self, core: Core, effect: fx.Effect) -> None:
        super().perform_one(core, effect)
        if isinstance(effect, fx.CheckUnit):
            self.check(effect)
        elif isinstance(effect, fx.HoldInputs):
            assert self.id not in effect.sources
            self.holds.setdefault(effect.job, False)
            if not self.never_fetches:
                delay = self.world.rng.uniform(0.5, 1.5) * self.inputs_s
                self.world.later(delay, self, lambda: self.got_inputs(effect))
        elif isinstance(effect, fx.ReleaseInputs):
            self.holds.pop(effect.job, None)
        elif isinstance(effect, fx.HoldResult):
            assert self.id not in effect.sources
            assert effect.job in self.submitter.kept
            self.spares.setdefault(effect.job, set())
            self.world.later(self.world.rng.uniform(0.1, 1.9), self, lambda: self.hold_result(effect))
        elif isinstance(effect, fx.ReleaseResults):
            self.spares.pop(effect.job, None)

    def got_inputs(self, effect: fx.HoldInputs) -> None:
        if effect.job in self.holds:  # not released meanwhile
            self.holds[effect.job] = True
            self.handle(fx.InputsHeld(effect.job))

    def hold_result(self, effect: fx.HoldResult) -> None:
        if effect.job not in self.spares:
            return
        result = self.disk.results.get((effect.job, effect.result))
        sources = [self.world.by_id[peer] for peer in effect.sources]
        found = result in self.blobs or any(self.reads(one, result) for one in sources)
        if result is None or not found or self.full:
            self.handle(fx.ResultNotHeld(effect.job, effect.unit, full=self.full))
        else:
            self.blobs.add(result)
            self.spares[effect.job].add(effect.unit)

    def reads(self, other: WorldNode, result: bytes | None) -> bool:
        """The other has a blob and can be asked for it."""
        linked = other.up and not self.world.loses(self, other) and not self.world.loses(other, self)
        return linked and result in getattr(other, "blobs", ())

    def compute(self, effect: fx.Compute) -> None:
        lies = self.lie is not None and self.lie(effect.unit)
        result = true_result(effect.unit + lies) + (self.seed % 2**32).to_bytes(4, "big")
        if self.stalls:
            return
        self.blobs.add(result)
        done = fx.Computed(effect.job, effect.unit, effect.epoch, result)
        self.world.later(self.world.rng.uniform(0.5, 1.5) * self.world.unit_s, self, lambda: self.handle(done))

    def check(self, effect: fx.CheckUnit) -> None:
        key = (effect.job, effect.unit, effect.epoch, effect.worker)
        assert key not in self.checking, "one result is checked twice at a time"
        assert self.id not in effect.sources
        assert effect.worker in (self.id, *effect.sources[:1])
        self.checking.add(key)
        self.most_checks = max(self.most_checks, len(self.checking))
        self.world.later(self.world.rng.uniform(0.1, 1.9) * self.check_s, self, lambda: self.answer(effect))

    def answer(self, effect: fx.CheckUnit) -> None:
        world, worker = self.world, self.world.by_id[effect.worker]
        self.checking.discard((effect.job, effect.unit, effect.epoch, effect.worker))
        passed: bool | None = None
        if effect.result in self.blobs or self.reads(worker, effect.result):
            self.blobs.add(effect.result)
            passed = is_right(effect.unit, effect.result)
        if world.rng.random() < self.vain:
            passed = None
        text = WRONG if passed is False else ""
        self.handle(fx.UnitChecked(effect.job, effect.unit, effect.epoch, effect.worker, passed, text))


# --- what must hold ---------------------------------------------------------------------------------------------


def results_of(world: World, job: JobId) -> dict[bytes, bytes]:
    """All results that any node has on its disk, by name."""
    return {name: raw for node in world.nodes for (one, name), raw in node.disk.results.items() if one == job}


def check_finals(state: JobState, results: dict[bytes, bytes]) -> None:
    """With all of these facts together no unit has two finals in one epoch, and each final result is right."""
    found: dict[tuple[int, int], set[bytes]] = {}
    for fact in state.facts():
        for item in fact.payload.items if isinstance(fact.payload, Verdicts) else ():
            view = state.views.get(view_of(item.epoch))
            for result, peers in state.support(item.unit, item.epoch).items():
                if view is not None and view.suffices(peers, state.submitter):
                    found.setdefault((item.unit, item.epoch), set()).add(result)
    for (unit, epoch), names in found.items():
        assert len(names) == 1, f"unit {unit} has {len(names)} finals in epoch {epoch}"
        assert all(is_right(unit, results[name]) for name in names), f"unit {unit} is wrong"


def check_result_document(submitter: WorldNode, job: JobId) -> None:
    """The submitter's job is done, and what its user gets is right."""
    kept = submitter.submitter.jobs[job]
    assert kept.outcome == "done", kept.error
    for unit in range(kept.state.spec.units):
        final = kept.state.final(unit)
        assert final is not None
        result = submitter.disk.results[job, final]
        assert hash_result(result) == final
        assert is_right(unit, result)


def check_the_accused(world: World) -> None:
    """Only liars are rejected, and by a check; nobody honest broke a rule."""
    honest = {node.id for node in world.nodes if node.lie is None}
    for node in world.nodes:
        for kept in node.submitter.all_jobs():
            assert not kept.rejected & honest
            assert all(one.code == "check" and one.text == WRONG for one in kept.rejections)
        assert not [(peer, why) for peer, why in node.violations if peer in honest]
