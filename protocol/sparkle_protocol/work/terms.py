"""What keepers prove to a worker: which jobs there are, who keeps them, and which units are its own."""

from collections.abc import Iterable

from sparkle_protocol import messages
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.facts import Endorsements, Fact, FactCodec, JobSpec, KeeperSet, LeaseItem, Leases, view_of
from sparkle_protocol.ids import JobId, PeerId
from sparkle_protocol.work.outbox import MAX_LEASE_BYTES
from sparkle_protocol.work.state import JobState

MAX_FACTS_OF_JOB = 2 * messages.MAX_VIEW_FACTS  # a worker needs the spec, and what shows who keeps the job now


def learn_job(codec: FactCodec, jobs: dict[JobId, JobState], shown: messages.JobFacts) -> JobState:
    """The job with what a keeper shows of it. Raises RemoteProtocolError."""
    spec = codec.open(shown.spec)
    if type(spec.payload) is not JobSpec:
        raise RemoteProtocolError("a lease came without a job spec")
    state = jobs.get(spec.job) or JobState(spec, codec.network)
    return follow(state, [codec.open(raw) for raw in shown.views])


def follow(state: JobState, views: Iterable[Fact]) -> JobState:
    """The job with these facts about who keeps it: the same state, or a smaller copy when it became too large.

    Raises:
        RemoteProtocolError: they are something else, or more than one job can have.
    """
    new = [fact for fact in views if fact.id not in state]
    if not all(isinstance(fact.payload, KeeperSet | Endorsements) for fact in new):
        raise RemoteProtocolError("a fact that is not about who keeps a job")
    if len(state) + len(new) > MAX_FACTS_OF_JOB:
        smaller = JobState(state.spec_fact, state.network)
        smaller.merge(state.view_facts())
        state = smaller
        if len(state) + len(new) > MAX_FACTS_OF_JOB:
            raise RemoteProtocolError("a job whose keepers change without end")
    state.merge(new)
    return state


def check_lease(state: JobState, fact: Fact, worker: bytes) -> Leases:
    """The leases in a fact, all of units of this job and all for ``worker``. Raises RemoteProtocolError."""
    leases = fact.payload
    if type(leases) is not Leases or fact.job != state.id:
        raise RemoteProtocolError("something else where a lease belongs")
    if len(fact.raw) > MAX_LEASE_BYTES:
        raise RemoteProtocolError(f"leases of {len(fact.raw)} bytes, more than {MAX_LEASE_BYTES}")
    if any(item.unit >= state.spec.units for item in leases.items):
        raise RemoteProtocolError("a lease for a unit that does not exist")
    if any(item.worker != worker for item in leases.items):
        raise RemoteProtocolError("a lease for somebody else")
    return leases


def check_giver(state: JobState, peer: PeerId, item: LeaseItem) -> bool:
    """Whether we can tell that ``peer`` may give this unit; False in a view that we have not heard of.

    Raises:
        RemoteProtocolError: it may not.
    """
    if state.may_keep(peer, item.epoch):
        return True
    if state.views.get(view_of(item.epoch)) is None:
        return False
    raise RemoteProtocolError("a lease that is not by a keeper of its job")
