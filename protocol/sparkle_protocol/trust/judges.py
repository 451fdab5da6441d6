"""Whose standings count in a job: those of the submitter, who judges for itself or has stated them."""

from collections.abc import Callable, Set
from math import ceil

from sparkle_protocol.facts import MAX_BATCH, JobSpec, StandingItem
from sparkle_protocol.ids import PeerId, key_from_peer_id
from sparkle_protocol.trust.standing import Key, TrustBook
from sparkle_protocol.trust.stated import StatedStandings

NEAR_CERTAIN = 1.0 - 1e-6  # our own machine may be faulty
PERMILLE = 1000
STEP = 50
ALWAYS_PERMILLE = 500  # whoever is stated to be audited as often as this is always: no keeper need call for it
DeviceOf = Callable[[PeerId], str]


class OwnJudgement:
    """Our own job: our book counts, and learns from the job."""

    def __init__(
        self, book: TrustBook, me: PeerId, verification: str, unit_flops: float, floor: float, device_of: DeviceOf
    ) -> None:
        self.book = book
        self._me = me
        self._verification = verification
        self._unit_flops = unit_flops
        self._floor = floor
        self._device_of = device_of
        self._counted: tuple[int, int, int] | None = None  # version of the book; how many it knew, how many it takes

    def key(self, worker: PeerId) -> Key:
        """Under what the book keeps a worker of this job."""
        return Key(worker, self._device_of(worker), self._verification)

    def counts(self, worker: PeerId) -> bool:
        """The worker's answers count."""
        return self.book.counts(self.key(worker))

    def audit_rate(self, worker: PeerId) -> float:
        """The probability with which a result of the worker is compared."""
        return self.book.audit_rate(self.key(worker), self._unit_flops, self._floor)

    def credibility(self, worker: PeerId) -> float:
        """The probability that its next result is right."""
        return NEAR_CERTAIN if worker == self._me else self.book.credibility(self.key(worker))

    def knows_enough(self) -> bool:
        """So many peers' answers count that nobody else's need."""
        known, needed = self.known_and_needed()
        return known >= needed

    def known(self) -> int:
        """How many peers' answers count, here or away."""
        return self.known_and_needed()[0]

    def known_and_needed(self) -> tuple[int, int]:
        """How many peers' answers count, and how many would have to."""
        if self._counted is None or self._counted[0] != self.book.version:
            self._counted = (self.book.version, *self.book.known_and_needed(self._verification))
        return self._counted[1:]

    def turn(self, worker: PeerId) -> tuple[int, int]:
        """Newcomers for whom this is less come first."""
        standing = self.book.of(self.key(worker))
        return -standing.passes, standing.failures

    def vetting_share(self) -> float:
        """How many newcomers' answers are wanted for each unit of known workers."""
        return self.book.vetting_share()

    def passed(self, worker: PeerId, others: Set[PeerId], rate: float) -> None:
        """A result of the worker was compared and found right."""
        if not self.counts(worker):
            self.book.vetted(right=True)
        self.book.passed(self.key(worker), self._unit_flops, rate)

    def failed(self, worker: PeerId) -> None:
        """The worker was proven wrong."""
        if not self.counts(worker):
            self.book.vetted(right=False)
        self.book.failed(self.key(worker))


def statement(book: TrustBook, spec: JobSpec) -> list[StandingItem]:
    """Whose answers count in a job of ours while we are away, by key; rates in steps of a twentieth.

    The steps keep it from changing with every result, and the rates above those that we ourselves would take.
    """
    if not book.knows_enough(spec.verification):
        return []  # plain voting goes on
    rates = book.counting(spec.verification, spec.resources.flops, spec.policy.audit_permille / PERMILLE)
    chosen = list(rates.items())[:MAX_BATCH]
    items = [
        StandingItem(key_from_peer_id(peer), min(PERMILLE, STEP * ceil(rate * PERMILLE / STEP)))
        for peer, rate in chosen
    ]
    return sorted(items, key=lambda item: item.worker)


class StatedJudgement:
    """Somebody else's job, which we keep: what the submitter stated about workers counts.

    Our own book learns as well, as far as a result was confirmed by somebody who counts here: this submitter and its
    workers may be one person. For the same reason nobody loses its standing here for what such a job says of it.
    """

    def __init__(self, own: OwnJudgement, submitter: PeerId, stated: StatedStandings, unit_flops: float) -> None:
        self._own = own
        self._submitter = submitter
        self._stated = stated
        self._unit_flops = unit_flops

    def counts(self, worker: PeerId) -> bool:
        """The submitter stated that the worker's answers count, or it is its own node."""
        return worker == self._submitter or self._stated.permille(worker) is not None

    def audit_rate(self, worker: PeerId) -> float:
        """As stated; the submitter trusts its own node."""
        if worker == self._submitter:
            return 0.0
        permille = self._stated.permille(worker)
        return 1.0 if permille is None or permille >= ALWAYS_PERMILLE else permille / PERMILLE

    def credibility(self, worker: PeerId) -> float:
        """What whoever counts has at least, so that all keepers say the same."""
        book = self._own.book
        return book.credibility_after(book.rules.passes_to_count if self.counts(worker) else 0)

    def knows_enough(self) -> bool:
        """The submitter stated some."""
        return len(self._stated) >= self._own.book.rules.enough_known

    def known(self) -> int:
        """How many workers the submitter stated; itself it is away, or it would decide."""
        return len(self._stated)

    def turn(self, worker: PeerId) -> tuple[int, int]:
        """Newcomers for whom this is less come first, as far as we know them."""
        return self._own.turn(worker)

    def vetting_share(self) -> float:
        """How many newcomers' answers are wanted for each unit of known workers."""
        return self._own.vetting_share()

    def passed(self, worker: PeerId, others: Set[PeerId], rate: float) -> None:
        """A result of the worker was found equal to that of others."""
        if any(self._own.counts(other) for other in others):
            self._own.book.passed(self._own.key(worker), self._unit_flops, 1.0, self._submitter)

    def failed(self, worker: PeerId) -> None:
        """The worker was proven wrong."""
