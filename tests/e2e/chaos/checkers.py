"""What must hold after a chaos run, looked up in every node's database and in what the nodes showed.

The checkers read signed facts and decide by themselves; they share no code with the cores that they check but the
codec. Each returns the violations it found as sentences.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparkle_protocol.errors import SparkleError
from sparkle_protocol.facts import Commits, Fact, FactCodec, JobSpec, Reset, Reveals, Verdicts
from sparkle_protocol.ids import JobId, PeerId, ResultHash, hash_result, key_from_peer_id

Event = dict[str, Any]
Slot = tuple[JobId, int, int]  # job, unit, epoch


@dataclass(slots=True)
class NodeEvidence:
    """What one node left: its database and all that it said in all its lives."""

    name: str
    peer_id: str
    facts: list[tuple[bytes, bytes]] = field(default_factory=list)  # id, raw
    results: dict[tuple[bytes, bytes], bytes] = field(default_factory=dict)  # by job and hash
    events: list[Event] = field(default_factory=list)

    def read(self, database: Path) -> None:
        """Take facts and results out of the node's database. The node must have ended."""
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
            self.facts = db.execute("SELECT id, raw FROM facts").fetchall()
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
    opened = {node.name: list(_opened(net, node)) for node in nodes}
    facts = {name: [fact for fact in found if isinstance(fact, Fact)] for name, found in opened.items()}
    by_name = {node.name: node for node in nodes}
    return [
        *(fault for found in opened.values() for fault in found if isinstance(fault, str)),
        *_conflicts(facts),
        *_accusations(nodes, facts),
        *(fault for job in jobs for fault in _job_faults(job, by_name[job.node], facts[job.node])),
        *(fault for node in nodes for fault in _taken_back(node, facts[node.name])),
    ]


def _opened(net: str, node: NodeEvidence) -> Iterator[Fact | str]:
    """Every stored fact is signed by its author and is what it is stored as."""
    codec = FactCodec(net)
    for fact_id, raw in node.facts:
        try:
            fact = codec.open(raw)
        except SparkleError as error:
            yield f"{node.name} stores what is no signed fact: {error}"
            continue
        if fact.id == fact_id:
            yield fact
        else:
            yield f"{node.name} stores a fact under a wrong id: {type(fact.payload).__name__}"


def _conflicts(facts: dict[str, list[Fact]]) -> Iterator[str]:
    """One final result per unit and epoch, one commitment per worker, unit and epoch: of all nodes together."""
    finals: dict[Slot, set[bytes]] = defaultdict(set)
    commitments: dict[tuple[str, Slot], set[bytes]] = defaultdict(set)
    for fact in (fact for found in facts.values() for fact in found):
        if isinstance(fact.payload, Verdicts):
            for verdict in fact.payload.items:
                finals[fact.job, verdict.unit, verdict.epoch].add(verdict.result_hash)
        elif isinstance(fact.payload, Commits):
            for commit in fact.payload.items:
                commitments[fact.author, (fact.job, commit.unit, commit.epoch)].add(commit.commit)
    for slot, hashes in finals.items():
        if len(hashes) > 1:
            yield f"{len(hashes)} different final results of {_words(slot)}"
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


def _job_faults(job: JobEvidence, node: NodeEvidence, facts: list[Fact]) -> Iterator[str]:
    """A job is done, its answer is right, and its submitter's database proves every unit of it."""
    document = job.document
    name = f"job {document['job'][:8]} of {node.name}"
    if document["state"] != "done":
        yield f"{name} is {document['state']}: {document['units']} {document['error'] or ''}"
        return
    if document["result"] != job.answer:
        yield f"{name} has the answer {document['result']}, which should be {job.answer}"
    job_id = JobId(bytes.fromhex(document["job"]))
    ours = [fact for fact in facts if fact.job == job_id]
    spec = next((fact for fact in ours if isinstance(fact.payload, JobSpec)), None)
    if spec is None or spec.author != node.peer_id:
        yield f"{name} has no spec of its own on disk"
        return
    yield from (f"{name}, {fault}" for fault in _unit_faults(spec, ours, node))


def _unit_faults(spec: Fact, facts: list[Fact], node: NodeEvidence) -> Iterator[str]:
    """Each unit has a signed verdict of its latest epoch, by whom it must be, with votes and result bytes."""
    assert isinstance(spec.payload, JobSpec)
    epochs, votes = _epochs(facts), _votes(facts)
    accepted: dict[tuple[int, int], set[bytes]] = defaultdict(set)  # late votes get a verdict of their own
    for fact in facts:
        for verdict in fact.payload.items if isinstance(fact.payload, Verdicts) else ():
            slot = (verdict.unit, verdict.epoch)
            accepted[slot].update(verdict.accepted)
            if fact.author != spec.author:
                yield f"unit {slot}: its verdict is signed by {fact.author}"
            if any(votes[slot].get(worker) != verdict.result_hash for worker in verdict.accepted):
                yield f"unit {slot}: final without the signed votes for it"
            result = node.results.get((spec.job, verdict.result_hash))
            if result is None or hash_result(result) != ResultHash(verdict.result_hash):
                yield f"unit {slot}: the accepted result is not on disk"
    for unit in range(spec.payload.units):
        workers = accepted.get((unit, epochs[unit]))
        if workers is None:
            yield f"unit {unit}: no verdict on disk"
        elif len(workers) < spec.payload.policy.quorum and key_from_peer_id(spec.author) not in workers:
            yield f"unit {unit}: final with {len(workers)} workers"


def _epochs(facts: list[Fact]) -> dict[int, int]:
    """The latest epoch of each unit."""
    epochs: dict[int, int] = defaultdict(int)
    for fact in facts:
        if isinstance(fact.payload, Reset):
            epochs[fact.payload.unit] = max(epochs[fact.payload.unit], fact.payload.epoch)
    return epochs


def _votes(facts: list[Fact]) -> dict[tuple[int, int], dict[bytes, bytes]]:
    """Revealed results by unit and epoch, and by the worker's key."""
    votes: dict[tuple[int, int], dict[bytes, bytes]] = defaultdict(dict)
    for fact in facts:
        for reveal in fact.payload.items if isinstance(fact.payload, Reveals) else ():
            votes[reveal.unit, reveal.epoch][key_from_peer_id(fact.author)] = reveal.result_hash
    return votes


def _taken_back(node: NodeEvidence, facts: list[Fact]) -> Iterator[str]:
    """What a node has shown as final, in any of its lives, is on its disk."""
    stored = {
        (fact.job.hex(), verdict.unit)
        for fact in facts
        if isinstance(fact.payload, Verdicts)
        for verdict in fact.payload.items
    }
    shown = {(event["job"], event["unit"]) for event in node.events if event["event"] == "unit_final"}
    for job, unit in sorted(shown - stored):
        yield f"{node.name} showed unit {unit} of job {job[:8]} as final, and its disk knows nothing of it"


def _words(slot: Slot) -> str:
    job, unit, epoch = slot
    return f"unit {unit} of job {job.hex()[:8]}, epoch {epoch}"
