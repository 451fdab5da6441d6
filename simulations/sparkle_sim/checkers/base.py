"""What a checker is, and what it finds."""

from dataclasses import dataclass
from typing import ClassVar

from sparkle_protocol.effects import Notify, Record, Reply, Send, Violation
from sparkle_protocol.ids import JobId
from sparkle_sim.checkers.evidence import Evidence
from sparkle_sim.kernel import SECOND
from sparkle_sim.peer import Peer
from sparkle_sim.scenario import Scenario
from sparkle_sim.world import World

KEEPERS = 8  # of a view, of which so many may be lost, or lie
MAX_FINDINGS = 16  # of one checker; what follows from the first ones is seldom of interest


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be.

    Args:
        checker: who found it.
        at_s: when, in virtual seconds.
        peer: where; None: nowhere in particular.
        text: what, with the evidence.
    """

    checker: str
    at_s: float
    peer: int | None
    text: str

    def __str__(self) -> str:
        where = "" if self.peer is None else f" at peer {self.peer}"
        return f"{self.at_s:.3f} s{where}: {self.text} ({self.checker})"


class Checker:
    """Is told what happens and finds what must not be. It changes nothing.

    Subclasses say in ``name`` what a scenario calls them, and in ``listens`` whether they must be told of every
    message and record.
    """

    name: ClassVar[str]
    listens: ClassVar[bool] = False

    def __init__(self, world: World, scenario: Scenario, evidence: Evidence) -> None:
        self.world = world
        self.scenario = scenario
        self.evidence = evidence
        self.findings: list[Finding] = []

    @classmethod
    def applies(cls, scenario: Scenario) -> bool:
        """There is something in the scenario for it to watch."""
        return True

    def heard(self, peer: Peer, effect: Notify) -> None:
        """A peer told its owner something."""

    def violated(self, peer: Peer, effect: Violation) -> None:
        """A peer found that another one broke a rule."""

    def said(self, peer: Peer, effect: Send | Reply) -> None:
        """A peer sends something, or answers."""

    def wrote(self, peer: Peer, record: Record) -> None:
        """A record is on a peer's disk."""

    def scan(self) -> None:
        """Look at everything, now and then."""

    def finish(self) -> None:
        """Look at everything once more: the run is over."""
        self.scan()

    def report(self) -> dict[str, object]:
        """What it saw, beside its findings."""
        return {}

    def is_honest(self, peer: Peer) -> bool:
        """It keeps to the rules: what others say or hold proves nothing."""
        return peer.number not in self.world.adversaries

    def keeps_honestly(self, peer: Peer) -> bool:
        """As a keeper it does what a keeper should, whatever it does else."""
        adversary = self.world.adversaries.get(peer.number)
        return adversary is None or adversary.keeps

    @property
    def now_s(self) -> float:
        """Virtual seconds that have passed."""
        return self.world.kernel.now / SECOND

    def found(self, peer: int | None, text: str) -> None:
        """Something must not be; at an adversary nothing is as it should."""
        if peer in self.world.adversaries:
            return
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(self.name, self.now_s, peer, text))


def job_of(effect: Notify) -> JobId:
    """The job that an event speaks of."""
    return JobId(bytes.fromhex(str(effect.fields["job"])))


def unit_of(effect: Notify) -> int:
    """The unit that an event speaks of."""
    return int(str(effect.fields["unit"]))


def named(job: JobId, unit: int | None = None) -> str:
    """A job, or a unit of it, in words."""
    return job.hex()[:12] if unit is None else f"{job.hex()[:12]}/{unit}"
