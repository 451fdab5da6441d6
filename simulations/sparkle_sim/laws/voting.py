"""First-to-m voting, as the production cores do it: wrong results that become final."""

from collections.abc import Callable, Iterator
from math import comb

from sparkle_protocol.effects import Notify, Violation
from sparkle_protocol.facts import Deadlines, JobSpec, Policy, Resources
from sparkle_protocol.ids import JobId, digest, hash_result
from sparkle_sim.computing import RESULT_BYTES, Behaviour, true_result
from sparkle_sim.draws import draws
from sparkle_sim.kernel import SECOND
from sparkle_sim.laws.intervals import share_of
from sparkle_sim.laws.law import Axes, Law, Point, at_most, exactly
from sparkle_sim.laws.parties import seed_of
from sparkle_sim.network import Conditions, Place
from sparkle_sim.peer import Machine
from sparkle_sim.world import KERNEL, World

WORKERS = 60
UNIT_S = 4.0
FLOPS_PER_S = 2e9
MOST_REPLICAS = 16
AT_ONCE = 4  # jobs
CASES = ((2, 0.1, 800), (2, 0.2, 800), (2, 0.35, 500), (3, 0.2, 800), (3, 0.35, 500))  # m, f, units
QUICK_CASES = ((2, 0.35, 150), (3, 0.35, 120))
LIARS = 0.2
LONG_UNITS, QUICK_LONG_UNITS = 600, 300
LIMIT_S = 24 * 3600
ENDED = ("job_done", "job_failed", "job_cancelled")


def error_rate(m: int, f: float) -> float:
    """Share of wrong results among accepted ones, if each result is wrong with probability f, and always alike."""
    asked = 2 * m - 1
    return sum(comb(asked, wrong) * f**wrong * (1.0 - f) ** (asked - wrong) for wrong in range(m, asked + 1))


class Erring:
    """Is wrong with some probability; all who are wrong about a unit say the same."""

    def __init__(self, seed: int, peer: int, rate: float) -> None:
        self._seed = seed
        self._peer = peer
        self._rate = rate

    def result(self, spec: JobSpec, job: JobId, unit: int) -> bytes:
        """The right one, or the wrong one."""
        if draws(self._seed, self._peer, "errs", job.hex(), unit).random() >= self._rate:
            return true_result(job, unit)
        return digest(b"wrong", job, unit.to_bytes(4, "big"))[:RESULT_BYTES]


class Polls:
    """A world whose first peer submits jobs and does not compute, and whose others compute.

    Args:
        seed: decides everything.
        quorum: m.
        behaviour: of a worker, by its number.
    """

    def __init__(self, seed: int, quorum: int, behaviour: Callable[[int], Behaviour]) -> None:
        self.world = World(seed, [Place()] * (WORKERS + 1), Conditions())
        self.wrong = self.right = self.open = 0
        self._quorum = quorum
        self._planned: list[int] = []  # units of jobs to be submitted, the next one last
        self._running: dict[JobId, int] = {}
        self._count = 0
        self.world.watchers.append(self)
        random = draws(seed, "arrivals")
        for number in range(WORKERS + 1):
            machine = Machine(flops_per_s=FLOPS_PER_S)
            peer = self.world.add(machine, works=number > 0, behaviour=behaviour(number) if number else None)
            known = [self.world.addresses[random.below(number)][0] for _ in range(min(number, 3))]
            self.world.kernel.at(number * SECOND // 20, peer.start, known)

    def run(self, units: int, per_job: int, at_once: int) -> None:
        """Have so many units computed, in jobs of some, of which a few run at once."""
        full, rest = divmod(units, per_job)
        self._planned = [rest] * (rest > 0) + [per_job] * full
        for _ in range(min(at_once, len(self._planned))):
            self.world.kernel.after(20 * SECOND, self._submit)
        self.world.kernel.run(self.world.kernel.now + LIMIT_S * SECOND)

    def _submit(self) -> None:
        if not self._planned:
            return
        submitter, units = self.world.peers[0], self._planned.pop()
        self._count += 1
        spec = JobSpec(
            KERNEL, 1, {}, units, "exact", Policy(quorum=self._quorum, max_replicas=MOST_REPLICAS),
            Resources(flops=UNIT_S * FLOPS_PER_S), Deadlines(total_s=LIMIT_S), bytes(32),
            digest(f"{self.world.seed}/poll/{self._count}".encode())[:16], self.world.epoch_ms,
        )  # fmt: skip
        job, effects = submitter.submitter.submit(spec, submitter.now())
        self._running[job] = units
        submitter.command(lambda _submitter, _now: effects)

    def heard(self, peer: object, effect: Notify) -> None:
        """A job of ours ends."""
        if effect.event in ENDED:
            job = JobId(bytes.fromhex(str(effect.fields["job"])))
            if peer is self.world.peers[0] and job in self._running:
                self._tally(job, self._running.pop(job))

    def violated(self, peer: object, effect: Violation) -> None:
        """Nothing follows from it here."""

    def _tally(self, job: JobId, units: int) -> None:
        state = self.world.peers[0].submitter.jobs[job].state
        for unit in range(units):
            final = state.final(unit)
            if final is None:
                self.open += 1
            elif final == hash_result(true_result(job, unit)):
                self.right += 1
            else:
                self.wrong += 1
        if self._planned:
            self.world.kernel.after(SECOND, self._submit)
        elif not self._running:
            self.world.kernel.stop()


def independent(seed: int, m: int, f: float, units: int) -> Polls:
    """Every result is wrong with probability f: so many units, in jobs to which a worker gives a result or two.

    A worker whose result loses gives no further ones in this job. So as the law has it, each result is to come from
    somebody about whom nothing is known, and jobs must be small.
    """
    polls = Polls(seed, m, lambda number: Erring(seed, number, f))
    polls.run(units, WORKERS // (m + 1), AT_ONCE)
    return polls


def persistent(seed: int, m: int, f: float, units: int) -> Polls:
    """A share f of the workers is always wrong, in one long job."""
    polls = Polls(seed, m, lambda number: Erring(seed, number, float(number <= WORKERS * f)))
    polls.run(units, units, 1)
    return polls


def measure(seed: int, quick: bool, *, law: Callable[[int, float], float] = error_rate) -> Iterator[Point]:
    """The share of wrong results that became final."""
    for m, f, units in QUICK_CASES if quick else CASES:
        polls = independent(seed_of(seed, "voting", m, str(f)), m, f, units)
        ours = share_of(polls.wrong, polls.wrong + polls.right)
        yield exactly(f"m = {m}", f"m = {m}, f = {f:g}", f, law(m, f), ours, wide=0.9 if quick else 0.5)
    polls = persistent(seed_of(seed, "liars"), 2, LIARS, QUICK_LONG_UNITS if quick else LONG_UNITS)
    ours = share_of(polls.wrong, polls.wrong + polls.right)
    yield at_most("m = 2, one long job", f"m = 2, {LIARS:.0%} always lie, one job", LIARS, law(2, LIARS), ours)


LAW = Law(
    "voting",
    "First-to-m voting",
    "ε = Σ_{j=m}^{2m-1} C(2m-1, j) fʲ (1-f)^{2m-1-j}",
    "L. F. G. Sarmenta, Sabotage-tolerance mechanisms for volunteer computing systems, CCGrid 2001",
    f"A World of {WORKERS} workers and a submitter that does not compute, with the production cores: each result is "
    "wrong with probability f, and all wrong ones of a unit agree.",
    "ε is in our interval for every m and f while jobs are small; in one long job, whose losers get no more units, "
    "the share of wrong results does not exceed it.",
    Axes("share of wrong results given f", "share of wrong results accepted", log_y=True),
    measure,
)
