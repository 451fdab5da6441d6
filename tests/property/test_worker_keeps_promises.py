"""Whatever keepers answer, and whenever it dies, a worker keeps what it committed to, and states one commit only."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from sparkle_protocol import effects as fx
from sparkle_protocol import facts as f
from sparkle_protocol import messages as m
from sparkle_protocol.identity import Identity
from tests.unit.protocol.scripted_keepers import CODEC, OTHERS, SUBMITTER, Scene, commits_in

A, B, C = OTHERS[:3]
KEEPERS = (SUBMITTER, A, B, C)
UNITS = 3
NEXT = f.epoch_of(f.VIEWS_PER_GENERATION, 0)

who = st.sampled_from(KEEPERS)
some_units = st.sets(st.integers(0, UNITS - 1), max_size=4)
ANSWERS = ("nothing", "reveal", "settle", "drop", "ended", "busy", "unknown_job", "protocol", "lost", "silence")
steps = st.one_of(
    st.tuples(st.just("give"), who, some_units.filter(bool)),
    st.tuples(st.just("compute"), st.integers(0, 3)),
    st.tuples(st.just("compute"), st.integers(0, 3)),
    st.tuples(st.just("answer"), who, st.sampled_from(ANSWERS), some_units),
    st.tuples(st.just("answer"), who, st.sampled_from(ANSWERS), some_units),
    st.tuples(st.just("tell"), who, st.sampled_from(("reveal", "settle", "drop", "ended")), some_units),
    st.tuples(st.just("carry"), st.sampled_from((SUBMITTER, B, C)), some_units.filter(bool)),
    st.tuples(st.just("up"), who),
    st.tuples(st.just("down"), who),
    st.tuples(st.just("wait"), st.integers(1, 60)),
    st.tuples(st.just("restart")),
)


@dataclass
class Watcher:
    """What the worker may no longer forget, and everything that it signed."""

    scene: Scene = field(default_factory=lambda: Scene(SUBMITTER, A, B, units=UNITS, slots=2))
    stated: dict[tuple[int, int], bytes] = field(default_factory=dict)
    promised: set[int] = field(default_factory=set)
    refusing: set[Identity] = field(default_factory=set)

    @property
    def moved_on(self) -> bool:
        state = self.scene.agent.jobs.get(self.scene.job)
        return state is not None and state.view is not None and state.view.number > 0

    @property
    def keepers(self) -> set[Identity]:
        return {SUBMITTER, B, C} if self.moved_on else {SUBMITTER, A, B}

    def look(self) -> None:
        """Check what left the worker since the last look."""
        for report in self.scene.reports:
            for item in commits_in(CODEC.open(raw) for raw in report.facts):
                held = (self.scene.job, item.unit, item.epoch) in self.scene.agent.held
                assert held or (item.unit, item.epoch) in self.stated  # else it is a repetition
                before = self.stated.setdefault((item.unit, item.epoch), item.commit)
                assert before == item.commit, "two different commits for one unit and epoch"
                if held:
                    assert (self.scene.job, item.unit, item.epoch) in self.scene.disk.commits
                    self.promised.add(item.unit)
        self.scene.reports.clear()
        computed = {unit for unit, state in self.scene.states().items() if state not in ("queued", "running")}
        assert self.promised <= computed, "a committed result was forgotten"

    def excuse(self, keeper: Identity, kind: str, units: set[int]) -> None:
        """A keeper says that these are settled, or all of them."""
        held = self.scene.held
        if kind in ("settle", "drop"):
            self.promised -= units
        elif kind == "ended":
            everything = keeper is SUBMITTER
            self.promised -= {unit for unit in held if everything or held[unit][2] == keeper.peer_id}

    def news(self, kind: str, units: set[int]) -> dict[str, object]:
        named = [(unit, epoch) for unit, (epoch, _, _) in self.scene.held.items() if unit in units]
        if kind == "reveal":
            return {"reveal": [m.UnitEpoch(*one) for one in named]}
        if kind == "settle":
            return {"settled": [m.Settled(*one, accepted=True) for one in named]}
        if kind == "drop":
            return {"drop": [m.UnitEpoch(*one) for one in named]}
        return {"ended": True} if kind == "ended" else {}

    def answer(self, keeper: Identity, kind: str, units: set[int]) -> None:
        scene = self.scene
        for send in scene.sends(keeper, m.Report)[:1]:
            if kind == "silence":
                return
            scene.effects.remove(send)
            if kind == "lost":
                scene.tell(fx.SendFailed(send.tag, keeper.peer_id, "lost"))
            elif kind in ("busy", "unknown_job", "protocol"):
                if kind != "busy":
                    self.refusing.add(keeper)
                scene.refuse(keeper, send.tag, kind)
                if scene.job not in scene.agent.jobs:
                    assert self.refusing >= {SUBMITTER, B}, "given up before everybody refused"
                    self.promised.clear()
            else:
                self.refusing.discard(keeper)
                news = self.news(kind, units)
                self.excuse(keeper, kind, units)
                scene.hear(keeper, send.tag, **news)

    def tell(self, keeper: Identity, kind: str, units: set[int]) -> None:
        scene, news = self.scene, self.news(kind, units)
        known = scene.agent.jobs.get(scene.job)
        if known is not None and (known.is_keeper(keeper.peer_id) or keeper is A):
            self.excuse(keeper, kind, units)
        scene.notice(keeper, **news)

    def carry(self, keeper: Identity, units: set[int]) -> None:
        scene = self.scene
        scene.views = [scene.set_of([B, C], f.VIEWS_PER_GENERATION)]
        lease = scene.lease(keeper, *sorted(units), epoch=NEXT)
        scene.notice(keeper, views=[scene.views[0].raw], leases=[lease.raw])

    def give(self, keeper: Identity, units: set[int]) -> None:
        scene = self.scene
        scene.offer(keeper)
        for send in scene.sends(keeper, m.LeaseRequest)[-1:]:
            assert isinstance(send.message, m.LeaseRequest)
            epoch = NEXT if self.moved_on and keeper is not A else 0
            scene.give(keeper, *sorted(units)[: send.message.want], epoch=epoch)

    def compute(self, place: int) -> None:
        running = [held.run for held in self.scene.agent.held.values() if held.state == "running"]
        for run in running[place : place + 1]:
            assert run is not None
            self.scene.compute(run[1], run[2], result=b"result of %d" % run[1])

    def restart(self) -> None:
        if self.scene.disk.facts.get(self.scene.spec.id) is not None:
            self.scene.restart()
            self.refusing.clear()

    def do(self, step: tuple[object, ...]) -> None:
        name, *rest = step
        if name == "wait":
            self.scene.wait(*rest)  # type: ignore[arg-type]
        elif name in ("up", "down"):
            getattr(self.scene, str(name))(*rest)
        else:
            getattr(self, str(name))(*rest)
        self.look()


@settings(max_examples=300)
@given(st.lists(steps, max_size=40))
def test_a_worker_keeps_its_promises(todo: list[tuple[object, ...]]) -> None:
    watcher = Watcher()
    watcher.scene.up(SUBMITTER, A, B, C)
    watcher.give(SUBMITTER, {0, 1})
    for step in todo:
        watcher.do(step)


@settings(max_examples=100)
@given(st.lists(steps, max_size=30))
def test_once_all_keepers_answer_everything_is_settled(todo: list[tuple[object, ...]]) -> None:
    watcher = Watcher()
    watcher.scene.up(SUBMITTER, A, B, C)
    watcher.give(SUBMITTER, {0, 1})
    for step in todo:
        watcher.do(step)
    scene = watcher.scene
    scene.up(SUBMITTER, A, B, C)
    for _ in range(200):
        if not scene.agent.held and scene.agent.drained:
            break
        for _ in range(2):
            watcher.compute(0)
        for keeper in KEEPERS:
            for _ in scene.sends(keeper, m.Report):
                watcher.answer(keeper, "settle", set(range(UNITS)))
        for send in [e for e in scene.effects if isinstance(e, fx.Send) and not isinstance(e.message, m.Report)]:
            scene.effects.remove(send)
            scene.tell(fx.SendFailed(send.tag, send.peer, "nothing here"))
        scene.wait(5)
    assert not scene.agent.held
    assert scene.agent.drained
    assert not scene.disk.commits
    assert not scene.disk.leases()
