"""A submitter whose job is kept by peers that a test speaks for: they take what they get and say so."""

from collections import Counter
from collections.abc import Callable, Iterable
from random import Random

from sparkle_protocol import effects as fx
from sparkle_protocol import facts as f
from sparkle_protocol import messages as m
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import PeerId
from sparkle_protocol.trust.standing import TrustBook
from sparkle_protocol.work.kept_job import KeptJob
from sparkle_protocol.work.lease import SECOND_NS
from sparkle_protocol.work.placement import threshold
from sparkle_protocol.work.submitter import Submitter
from tests.unit.protocol.kept_jobs import ME, peer
from tests.unit.protocol.test_keeping import CODEC, check_form, spec

KEEPERS = [peer(700 + n) for n in range(8)]
Answer = Callable[[PeerId, m.Request], m.Reply | None]


class Owner:
    """Our own job, and peers that are ``there`` until they leave."""

    def __init__(
        self, keepers: int, units: int = 64, job: f.JobSpec | None = None, known: TrustBook | None = None
    ) -> None:
        self.core = Submitter(ME, CODEC, Random(1), check_form)
        self.core.believe(known or TrustBook())
        self.now = 0
        self.there: dict[PeerId, Identity] = {}
        self.events: list[fx.Notify] = []
        self.facts: list[f.Fact] = []
        self.sent: Counter[tuple[PeerId, str]] = Counter()
        self.incomplete: set[PeerId] = set()  # they say that they lack something
        self.answers: dict[PeerId, Answer] = {}  # of those that do not answer like the others
        self.come(*KEEPERS[:keepers])
        self.id, effects = self.core.submit(job or spec(units), 0)
        self.perform(effects)
        if self.job.state.view is None:  # the nearest were looked up, in vain
            self.wait(4)
        self.wait(3)

    @property
    def job(self) -> KeptJob:
        return self.core.jobs[self.id]

    @property
    def view(self) -> int:
        view = self.job.state.view
        assert view is not None
        return view.number

    @property
    def sets(self) -> list[f.KeeperSet]:
        """All that were signed here."""
        return [fact.payload for fact in self.facts if isinstance(fact.payload, f.KeeperSet)]

    def come(self, *peers: Identity) -> None:
        for one in peers:
            self.there[one.peer_id] = one
            self.perform(self.core.handle(fx.PeerUp(one.peer_id, ()), self.now))

    def leave(self, *peers: Identity) -> None:
        for one in peers:
            del self.there[one.peer_id]
            self.perform(self.core.handle(fx.PeerDown(one.peer_id), self.now))

    def ask(self, one: Identity, message: m.Request) -> None:
        self.perform(self.core.handle(fx.Requested(1, one.peer_id, message), self.now))

    def push(self, one: Identity, *facts: f.Fact, results: Iterable[bytes] = ()) -> None:
        self.ask(one, m.Push(self.id, [fact.raw for fact in facts], [*results]))

    def wait(self, seconds: int) -> None:
        """Time passes; who is there says so."""
        for _ in range(seconds):
            self.now += SECOND_NS
            for one in list(self.there.values()):
                beat = m.JobBeat(self.id, self.job.state.tally.total(), one.peer_id not in self.incomplete)
                self.ask(one, m.Beat([beat]))
            self.perform(self.core.handle(fx.Tick(), self.now))

    def perform(self, effects: fx.Effects) -> None:
        queue = list(effects)
        for _ in range(1000):
            if not queue:
                return
            effect = queue.pop(0)
            if isinstance(effect, fx.Persist):
                self.facts += [one.fact for one in effect.records if isinstance(one, fx.StoreFact)]
            elif isinstance(effect, fx.Notify):
                self.events.append(effect)
            elif isinstance(effect, fx.FindPeers):
                queue += self.core.handle(fx.FoundPeers(effect.tag, tuple(self.there)), self.now)
            elif isinstance(effect, fx.Send):
                self.sent[effect.peer, type(effect.message).__name__] += 1
                queue += self.core.handle(self.outcome(effect), self.now)
        raise AssertionError("it never stops sending")

    def outcome(self, effect: fx.Send) -> object:
        answer = self.answers.get(effect.peer, self.answer)(effect.peer, effect.message)
        if effect.peer not in self.there or answer is None:
            return fx.SendFailed(effect.tag, effect.peer, "lost")
        return fx.Replied(effect.tag, effect.peer, answer)

    def answer(self, one: PeerId, message: m.Request) -> m.Reply | None:
        """What a peer says that takes everything."""
        if isinstance(message, m.Push):
            return m.PushReply(message.job, [])
        if isinstance(message, m.Compare):
            return m.CompareReply(message.job, b"", b"")
        if isinstance(message, m.Beat):
            whole = one not in self.incomplete
            return m.BeatReply([m.JobBeat(beat.job, beat.sum, whole) for beat in message.jobs])
        return m.Ok() if isinstance(message, m.Offer | m.Release) else None

    def successor(self, author: Identity, leaver: Identity, newcomer: Identity) -> f.Fact:
        """A set in which one is replaced."""
        view = self.job.state.view
        assert view is not None
        keys = [key for key in view.keys if key != leaver.public_key] + [newcomer.public_key]
        payload = f.KeeperSet(self.id, view.number + 1, keys, threshold(len(keys)), bytes(view.fact.id))
        return CODEC.seal(author, payload)

    def endorse(self, proposal: f.Fact, *keepers: Identity) -> None:
        for one in keepers:
            self.push(one, CODEC.seal(one, f.Endorsements(self.id, [bytes(proposal.id)])))

    def told(self, event: str) -> list[fx.Notify]:
        return [one for one in self.events if one.event == event]
