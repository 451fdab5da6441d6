"""What the trust policy says of a unit, as plain values: read from the records of its job, like ``reading.py``."""

from dataclasses import dataclass
from typing import Literal

from sparkle_p2p.node.forecast import SECOND_NS
from sparkle_p2p.node.standings import HOUR_FLOPS
from sparkle_protocol.ids import PeerId, ResultHash
from sparkle_protocol.trust.credibility import group_credibilities
from sparkle_protocol.trust.judges import OwnJudgement
from sparkle_protocol.work.kept_job import KeptJob

Whose = Literal["own", "named", "known", "vouched", "newcomer"]


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a worker's answers are worth in a job of ours, and why."""

    worker: PeerId
    whose: Whose
    passes: int
    capital_h: float  # hours of the reference worker
    audit_rate: float  # of a unit of this job

    @property
    def counts(self) -> bool:
        """Its answers count by what it is, not for want of others."""
        return self.whose != "newcomer"


@dataclass(frozen=True, slots=True)
class OpenAudit:
    """A second answer that is wanted."""

    worker: PeerId  # whose result is audited
    rate: float  # how probable that was
    since_s: float
    auditors: tuple[PeerId, ...] | None  # who may give it now; None: everybody who counts
    drawn: int  # how many were drawn for it, whose turn comes one after another


@dataclass(frozen=True, slots=True)
class Group:
    """Workers who gave the same result, and how probable it is that they are right."""

    result: ResultHash
    workers: tuple[PeerId, ...]
    counting: int
    credibility: float


@dataclass(frozen=True, slots=True)
class Trial:
    """Where a unit that is not final stands under the policy."""

    known: int  # peers that count
    enough: int  # that must be known before newcomers' agreement stops being enough
    voting: bool  # plain voting, as fewer are known or there
    relaxed: bool  # everybody counts
    relaxes_in_s: float | None  # until everybody counts, if nobody who does takes it
    counting: int  # answers that count so far, not shown ones included
    wanted: int  # of them, in all
    audit: OpenAudit | None
    spared: PeerId | None  # whose result was not drawn for an audit
    held_by: tuple[int, ...]  # units whose audits this one waits for
    groups: tuple[Group, ...]  # the most credible first; more than one: a dispute
    theta: float  # credibility that settles it


def is_weighed(job: KeptJob) -> bool:
    """The job is under the trust policy."""
    return job.trust is not None


def is_voting(job: KeptJob) -> bool:
    """Distinct workers must agree, whoever they are."""
    return job.trust is None or job.trust.bootstrap


def opinion(job: KeptJob, worker: PeerId) -> Opinion | None:
    """What the policy knows of a worker of the job; None where all count the same."""
    if job.trust is None or not isinstance(judges := job.trust.judges, OwnJudgement):
        return None
    book, key = judges.book, judges.key(worker)
    whose: Whose = "own" if worker == job.me else book.source(key)
    standing = book.of(key)
    return Opinion(worker, whose, standing.passes, standing.capital / HOUR_FLOPS, judges.audit_rate(worker))


def trial(job: KeptJob, unit: int, now_ns: int) -> Trial | None:
    """Where a unit stands; None where all count the same."""
    trust = job.trust
    if trust is None:
        return None
    answered, decision = job.participants(unit), job._decision(unit)
    stuck_ns = trust.stuck_since_ns(unit)
    patience_ns = int(trust.rules.patience_s * SECOND_NS)
    relaxed, groups = trust.is_relaxed(unit), _groups(job, unit)
    spared, held_by = _spared(job, unit)
    judges = trust.judges
    known, enough = judges.known_and_needed() if isinstance(judges, OwnJudgement) else (0, 0)
    return Trial(
        known=known,
        enough=enough,
        voting=trust.bootstrap,
        relaxed=relaxed,
        relaxes_in_s=max(0.0, (stuck_ns + patience_ns - now_ns) / SECOND_NS) if stuck_ns is not None else None,
        counting=trust.counting(unit, answered),
        wanted=decision.wanted,
        audit=_audit(job, unit, now_ns),
        spared=spared,
        held_by=held_by,
        groups=groups,
        theta=trust.rules.theta_of_few if relaxed else trust.rules.theta,
    )


def _audit(job: KeptJob, unit: int, now_ns: int) -> OpenAudit | None:
    trust = job.trust
    audit = trust.audits.of(unit) if trust is not None else None
    if trust is None or audit is None:
        return None
    turn, now = trust.turns.of(unit), trust.named_now(unit)
    since_s = (now_ns - turn.since_ns) / SECOND_NS if turn is not None else 0.0
    drawn = len(turn.order) if turn is not None else 0
    return OpenAudit(audit.worker, audit.rate, since_s, tuple(now) if now is not None else None, drawn)


def _spared(job: KeptJob, unit: int) -> tuple[PeerId | None, tuple[int, ...]]:
    """Whose result of the unit need not be compared, and by which audits of that worker it is held up."""
    audits = job.trust.audits if job.trust is not None else None
    worker = next((one for one in sorted(job.participants(unit)) if audits and audits.is_spared(unit, one)), None)
    if audits is None or worker is None:
        return None, ()
    found = ((other, audits.of(other)) for other in audits.units())
    return worker, tuple(sorted(other for other, audit in found if audit is not None and worker in audit.held))


def _groups(job: KeptJob, unit: int) -> tuple[Group, ...]:
    trust = job.trust
    if trust is None:
        return ()
    groups: dict[ResultHash, list[PeerId]] = {}
    for worker, given in sorted(job._counted_votes(unit).items()):
        if not trust.counts(unit, worker):
            continue  # it decides nothing
        groups.setdefault(given, []).append(worker)
    sure = group_credibilities({given: [trust.judges.credibility(w) for w in ws] for given, ws in groups.items()})
    found = [Group(given, tuple(ws), trust.counting(unit, ws), sure[given]) for given, ws in groups.items()]
    return tuple(sorted(found, key=lambda group: (-group.credibility, group.result)))
