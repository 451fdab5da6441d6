"""What a worker's report may say: judged from the facts alone, before anything changes."""

from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.facts import (
    CommitItem,
    Commits,
    Endorsements,
    Fact,
    FailureItem,
    Failures,
    JobSpec,
    KeeperSet,
    Leases,
    Reset,
    RevealItem,
    Reveals,
    Seals,
    Verdicts,
    is_reported,
)
from sparkle_protocol.ids import PeerId, ResultHash, hash_result
from sparkle_protocol.messages import Report
from sparkle_protocol.work.state import JobState

# Sets and endorsements share a place: a set is believed once the one before it counts, in the order they were told.
_STEPS: tuple[tuple[type, ...], ...] = (
    (JobSpec,), (KeeperSet, Endorsements), (Reset,), (Leases,), (Commits,), (Failures,), (Reveals,), (Verdicts,),
    (Seals,),
)  # fmt: skip
LEARNING_ORDER = {kind: place for place, kinds in enumerate(_STEPS) for kind in kinds}
WorkItem = CommitItem | RevealItem | FailureItem


def check_report(
    state: JobState, worker: PeerId, message: Report, facts: list[Fact]
) -> list[tuple[RevealItem, bytes]]:
    """The revealed items, each with its result, of a report that breaks no rule.

    Raises:
        RemoteProtocolError: it does.
    """
    reveals: list[RevealItem] = []
    for fact in facts:
        payload = fact.payload
        if fact.author != worker:
            raise RemoteProtocolError("a report carries facts of somebody else")
        if fact.job != state.id:
            raise RemoteProtocolError("a report carries facts of another job")
        if not is_reported(payload):
            raise RemoteProtocolError(f"a worker does not report {type(payload).__name__}")
        items: list[WorkItem] = [*payload.items]
        for item in items:
            if item.unit not in state.sealed and not state.was_leased(item.unit, item.epoch, worker):
                raise RemoteProtocolError("a fact about a unit that was never leased to its author")
        if type(payload) is Reveals:
            _check_openings(state, worker, payload)
            reveals += payload.items
    units = [beat.unit for beat in message.running] + [back.unit for back in message.returned]
    if any(unit >= state.spec.units for unit in units):
        raise RemoteProtocolError("a report names a unit that the job does not have")
    if len(message.results) != len(reveals):
        raise RemoteProtocolError("a report has another number of results than of reveals")
    for opened, result in zip(reveals, message.results, strict=True):
        if hash_result(result) != opened.result_hash:
            raise RemoteProtocolError("a result does not have the revealed hash")
    return list(zip(reveals, message.results, strict=True))


def _check_openings(state: JobState, worker: PeerId, reveals: Reveals) -> None:
    for item in reveals.items:
        commit = state.committed(item.unit).get(worker)
        if item.epoch != state.epoch(item.unit) or commit is None or item.unit in state.sealed:
            continue  # of an earlier epoch, or void, not committed before, or too late: counts for nothing
        if not state.opens(item.unit, worker, commit, ResultHash(item.result_hash), item.nonce):
            raise RemoteProtocolError("a reveal does not open its commit")


def new_items(state: JobState, fact: Fact) -> list[WorkItem]:
    """What a fact adds to what is known. One that adds nothing is not stored: no worker can fill the store.

    A second, different commit is kept as proof of cheating; a third proves nothing more.
    """
    payload, author = fact.payload, fact.author
    if not is_reported(payload):
        return []
    found: dict[int, WorkItem] = {}
    for item in payload.items:
        if item.epoch != state.epoch(item.unit) or item.unit in state.sealed:
            continue
        if type(item) is FailureItem:
            new = author not in state.failures(item.unit)
        elif type(item) is CommitItem:
            known = state.committed(item.unit).get(author)
            new = known != item.commit and author not in state.equivocators(item.unit)
        else:
            new = author in state.committed(item.unit) and author not in state.votes(item.unit)
        if new:
            found[item.unit] = item
    return list(found.values())


def named_results(fact: Fact) -> list[ResultHash]:
    """The results that a fact speaks of and that whoever acts on it needs."""
    payload = fact.payload
    if type(payload) is Verdicts or type(payload) is Reveals:
        return [ResultHash(item.result_hash) for item in payload.items]
    return []
