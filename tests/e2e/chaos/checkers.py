"""What must hold after a chaos run, looked up in every node's database and in what the nodes showed.

The checkers read signed facts, those too that a node has deleted since, and judge them with ``JobState``: by the
union of all nodes' facts, and node by node. Each returns the violations it found as sentences.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparkle_protocol.errors import SparkleError
from sparkle_protocol.facts import Commits, Fact, FactCodec, JobSpec, KeeperSet, Verdicts, view_of
from sparkle_protocol.ids import JobId, PeerId, ResultHash, hash_result, key_from_peer_id, peer_id_from_key
from sparkle_protocol.work.placement import holders_needed
from sparkle_protocol.work.state import JobState

Event = dict[str, Any]
Slot = tuple[JobId, int, int]  # job, unit, epoch
States = dict[JobId, JobState]
KEEP_DELETED = """
CREATE TABLE deleted_facts AS SELECT * FROM facts WHERE 0;
CREATE TRIGGER keep_facts BEFORE DELETE ON facts
    BEGIN INSERT INTO deleted_facts SELECT old.job, old.lot, old.id, old.raw; END;
"""


def keep_deleted(database: Path) -> None:
    """From now on the database keeps what its node deletes, for ``NodeEvidence.read``."""
    with closing(sqlite3.connect(database, timeout=10)) as db:
        db.executescript(KEEP_DELETED)


@dataclass(slots=True)
class NodeEvidence:
    """What one node left: its database and all that it said in all its lives."""

    name: str
    peer_id: str
    facts: list[tuple[bytes, bytes]] = field(default_factory=list)  # id, raw
    deleted: list[tuple[bytes, bytes]] = field(default_factory=list)  # what it has deleted of that in its lives
    results: dict[tuple[bytes, bytes], bytes] = field(default_factory=dict)  # by job and hash
    events: list[Event] = field(default_factory=list)

    def read(self, database: Path) -> None:
        """Take facts and results out of the node's database."""
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
            self.facts = db.execute("SELECT id, raw FROM facts").fetchall()
            self.deleted = db.execute("SELECT id, raw FROM deleted_facts EXCEPT SELECT id, raw FROM facts").fetchall()
            self.results = {(job, name): result for job, name, result in db.execute("SELECT * FROM results")}


@dataclass(frozen=True, slots=True)
class JobEvidence:
    """A job that ended, as its submitter shows it."""

    node: str
    document: dict[str, Any]
    answer: Any


def violations(net: str, nodes: Iterable[NodeEvidence], jobs: Iterable[JobEvidence]) -> list[str]:
    """Everything that is wrong. All nodes are taken to be honest."""
    nodes, jobs = list(nodes), list(jobs)
    opened = {node.name: list(_opened(net, node, [*node.facts, *node.deleted])) for node in nodes}
    facts = {name: [fact for fact in found if isinstance(fact, Fact)] for name, found in opened.items()}
    there = {node.name: {fact_id for fact_id, _ in node.facts} for node in nodes}
    by_name = {node.name: node for node in nodes}
    wrong: list[str] = [fault for found in opened.values() for fault in found if isinstance(fault, str)]
    union = _states(net, "the union", [fact for found in facts.values() for fact in found], wrong)
    states = {node.peer_id: _states(net, node.name, facts[node.name], wrong) for node in nodes}
    # Of its own jobs a node has to have on disk now what it once had: only keepers forget, when a job is over.
    own = {
        node.peer_id: _states(net, node.name, [fact for fact in facts[node.name] if fact.id in there[node.name]], [])
        for node in nodes
    }
    return [
        *wrong,
        *_conflicts(union),
        *_two_commitments(facts),
        *_accusations(nodes, facts),
        *(fault for job in jobs for fault in _job_faults(job, by_name[job.node], own, states)),
        *(fault for node in nodes for fault in _taken_back(node, own[node.peer_id], states[node.peer_id])),
    ]


def _opened(net: str, node: NodeEvidence, stored: list[tuple[bytes, bytes]]) -> Iterator[Fact | str]:
    """Every stored fact is signed by its author and is what it is stored as."""
    codec = FactCodec(net)
    for fact_id, raw in stored:
        try:
            fact = codec.open(raw)
        except SparkleError as error:
            yield f"{node.name} stores what is no signed fact: {error}"
            continue
        if fact.id == fact_id:
            yield fact
        else:
            yield f"{node.name} stores a fact under a wrong id: {type(fact.payload).__name__}"


def _states(net: str, name: str, facts: list[Fact], wrong: list[str]) -> States:
    """What facts say of each job whose spec is among them."""
    states = {fact.job: JobState(fact, net) for fact in facts if isinstance(fact.payload, JobSpec)}
    for fact in facts:
        if fact.job in states:
            try:
                states[fact.job].add(fact)
            except SparkleError as error:
                wrong.append(f"{name} stores a fact that says what its author may not: {error}")
    return states


def _verdict_slots(state: JobState) -> set[tuple[int, int]]:
    """Units and epochs about which a verdict was stated."""
    facts = (fact.payload for fact in state.facts())
    return {(item.unit, item.epoch) for one in facts if isinstance(one, Verdicts) for item in one.items}


def _conflicts(union: States) -> Iterator[str]:
    """One final result per unit and epoch, and nobody who stands by two, of all nodes together."""
    for state in union.values():
        for unit, epoch in sorted(_verdict_slots(state)):
            view, support = state.views.get(view_of(epoch)), state.support(unit, epoch)
            if view is None:
                continue
            final = [result for result, peers in support.items() if view.suffices(peers, state.submitter)]
            if len(final) > 1:
                yield f"{len(final)} different final results of {_words((state.id, unit, epoch))}"
        for peer, (unit, epoch) in state.two_faced.items():
            yield f"{peer} stands by two results of {_words((state.id, unit, epoch))}"


def _two_commitments(facts: dict[str, list[Fact]]) -> Iterator[str]:
    """One commitment per worker, unit and epoch, of all nodes together."""
    commitments: dict[tuple[str, Slot], set[bytes]] = defaultdict(set)
    for fact in (fact for found in facts.values() for fact in found):
        for commit in fact.payload.items if isinstance(fact.payload, Commits) else ():
            commitments[fact.author, (fact.job, commit.unit, commit.epoch)].add(commit.commit)
    for (author, slot), commits in commitments.items():
        if len(commits) > 1:
            yield f"{author} signed {len(commits)} different commitments for {_words(slot)}"


def _accusations(nodes: list[NodeEvidence], facts: dict[str, list[Fact]]) -> Iterator[str]:
    """No honest node is recorded as one that did wrong."""
    names = {node.peer_id: node.name for node in nodes}
    keys = {key_from_peer_id(PeerId(node.peer_id)): node.name for node in nodes}
    for node in nodes:
        for event in node.events:
            if event["event"] in ("violation", "worker_rejected", "peer_banned", "result_rejected"):
                accused = names.get(event.get("peer", ""), "itself" if event["event"] == "result_rejected" else "?")
                yield f"{node.name} accuses {accused}: {event}"
        for fact in facts[node.name]:
            for verdict in fact.payload.items if isinstance(fact.payload, Verdicts) else ():
                for key in verdict.rejected:
                    slot = (fact.job, verdict.unit, verdict.epoch)
                    yield f"{node.name} signed that {keys.get(key, '?')} was wrong in {_words(slot)}"


def _job_faults(
    job: JobEvidence, node: NodeEvidence, own: dict[str, States], states: dict[str, States]
) -> Iterator[str]:
    """A job is done, its answer is right, its submitter's database proves every unit of it, and who held it."""
    document = job.document
    name = f"job {document['job'][:8]} of {node.name}"
    if document["state"] != "done":
        yield f"{name} is {document['state']}: {document['units']} {document['error'] or ''}"
        return
    if document["result"] != job.answer:
        yield f"{name} has the answer {document['result']}, which should be {job.answer}"
    job_id = JobId(bytes.fromhex(document["job"]))
    state = own[node.peer_id].get(job_id)
    if state is None or state.submitter != node.peer_id:
        yield f"{name} has no spec of its own on disk"
        return
    yield from (f"{name}, {fault}" for unit in range(state.spec.units) for fault in _unit_faults(state, unit, node))
    if any(event["event"] == "job_published" and event["job"] == document["job"] for event in node.events):
        yield from (f"{name}, {fault}" for fault in _too_few_keepers(state, states))


def _unit_faults(state: JobState, unit: int, node: NodeEvidence) -> Iterator[str]:
    """A unit is final by whom it must be, with the votes and the bytes for it."""
    result, votes, workers = state.final(unit), state.votes(unit), state.accepted_workers(unit)
    if result is None:
        yield f"unit {unit}: not final on disk"
        return
    if any(votes.get(worker) != result for worker in workers):
        yield f"unit {unit}: final without the signed votes for it"
    policy = state.spec.policy
    fewest = 1 if policy.audit_permille else policy.quorum  # where known workers are believed, one of them is enough
    if len(workers) < fewest and state.submitter not in workers:
        yield f"unit {unit}: final with {len(workers)} workers"
    stored = node.results.get((state.id, result))
    if stored is None or hash_result(stored) != ResultHash(result):
        yield f"unit {unit}: the accepted result is not on disk"


def _too_few_keepers(state: JobState, states: dict[str, States]) -> Iterator[str]:
    """Some keeper set of a published job was held by five eighths of its keepers."""
    held: list[str] = []
    for fact in state.facts():
        if isinstance(fact.payload, KeeperSet):
            keepers = [str(peer_id_from_key(key)) for key in fact.payload.keys]
            holding = sum(state.id in states[peer] and fact.id in states[peer][state.id] for peer in keepers)
            if holding >= holders_needed(len(keepers)):
                return
            held.append(f"{holding} of {len(keepers)}")
    yield f"its keeper sets were held by too few: {', '.join(held) or 'none was signed'}"


def _taken_back(node: NodeEvidence, own: States, ever: States) -> Iterator[str]:
    """What a node has shown as final, in any of its lives, is final by the facts on its own disk.

    A keeper may have deleted those facts since, when the job was over.
    """
    shown = {(event["job"], event["unit"]) for event in node.events if event["event"] == "unit_final"}
    for job, unit in sorted(shown):
        job_id = JobId(bytes.fromhex(job))
        state = ever.get(job_id)
        if state is not None and state.submitter == node.peer_id:
            state = own.get(job_id)
        if state is None or state.final(unit) is None:
            yield f"{node.name} showed unit {unit} of job {job[:8]} as final, and its disk knows nothing of it"


def _words(slot: Slot) -> str:
    job, unit, epoch = slot
    return f"unit {unit} of job {job.hex()[:8]}, epoch {epoch}"
