"""What was signed in a run, in a form in which two runs can be compared.

Facts of the same run on the shell and in the simulator are the same bytes where nothing but the script decides them.
The others hold what chance or the timing of messages decides: nonces, hence commitments; who was given which unit
first; which statements share one signature. What is compared of these is what they say.

==================  ============================  ================================================================
fact                compared                      left out, and why
==================  ============================  ================================================================
JobSpec             byte for byte                 nothing
KeeperSet           view, threshold, keepers,     the order of the keepers (that in which they took the spec); of a
                    what it follows               later view, who signed it: whoever noticed first
Reset, Cancel       byte for byte                 nothing
Failures            of each unit: code, text,     which failures share a signature
                    device (and worker, where
                    each has to fail)
Commits, Reveals    unit, epoch, result's hash,   nonces and so commitments (random); how they are batched; who, but
                    and by whom where all         for those wrong, unless every worker has to compute every unit
                    workers must agree
Verdicts, Seals     of each unit: the epoch in    which keepers spoke first and in which batches; how many more than
Endorsements        which it is final, the hash,  the threshold did so before they heard that it was reached
                    that its view's threshold
                    stands by it
Leases              nothing                       times, counters and turns
==================  ============================  ================================================================
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparkle_protocol.facts import (
    Cancel,
    Commits,
    Fact,
    FactCodec,
    Failures,
    JobSpec,
    KeeperSet,
    Reset,
    Reveals,
    Signer,
)
from sparkle_protocol.ids import JobId, ResultHash, hash_result, peer_id_from_key
from sparkle_protocol.work.state import JobState
from sparkle_sim.world import NET
from tests.sim.twins.script import Script


@dataclass(slots=True)
class Left:
    """What a run left.

    Args:
        facts: all that any node ever made durable, as signed, by node.
        results: what each node keeps in the end, by job and hash.
        jobs: the ids of jobs by their names.
        outcomes: how each ended, as its submitter says: done, failed, cancelled or nothing.
        dead: its units that nobody could compute, and why, as its submitter says.
    """

    facts: dict[int, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    results: dict[int, dict[tuple[JobId, ResultHash], bytes]] = field(default_factory=lambda: defaultdict(dict))
    jobs: dict[str, JobId] = field(default_factory=dict)
    outcomes: dict[str, str] = field(default_factory=dict)
    dead: dict[str, dict[int, str]] = field(default_factory=dict)


def said(script: Script, signers: Sequence[Signer], left: Left) -> dict[str, dict[str, Any]]:
    """Of each job by name, all that must be equal, as plain values."""
    numbers = {signer.peer_id: number for number, signer in enumerate(signers)}
    facts = _opened(left)
    return {name: _job(script, name, numbers, facts[job], left) for name, job in left.jobs.items()}


def _opened(left: Left) -> dict[JobId, list[Fact]]:
    """Every fact that any node ever had on disk, once, with its signature checked."""
    codec = FactCodec(NET)
    found: dict[JobId, dict[bytes, Fact]] = defaultdict(dict)
    for raw in sorted({raw for node in left.facts.values() for raw in node}):
        fact = codec.open(raw)
        found[fact.job][fact.id] = fact
    return {job: list(facts.values()) for job, facts in found.items()}


def _job(script: Script, name: str, numbers: Mapping[str, int], facts: list[Fact], left: Left) -> dict[str, Any]:
    spec = next(fact for fact in facts if isinstance(fact.payload, JobSpec))
    state = JobState(spec, NET)
    state.merge(facts)
    submitter = numbers[spec.author]
    return {
        "spec": spec.raw.hex(),
        "outcome": left.outcomes[name],
        "dead": left.dead[name],
        "orders": sorted(fact.raw.hex() for fact in facts if isinstance(fact.payload, Reset | Cancel)),
        "keepers": _keepers(facts, numbers),
        "units": [_unit(state, unit, left.results[submitter]) for unit in range(state.spec.units)],
        "failures": _failures(script, facts, numbers),
        "rejected": sorted(
            {numbers[peer] for unit in range(state.spec.units) for peer in state.rejected_workers(unit)}
        ),
        "work": _work(facts, numbers) if script.everybody else _results(state, facts),
    }


def _keepers(facts: Iterable[Fact], numbers: Mapping[str, int]) -> list[tuple[Any, ...]]:
    """Each view: its number, its keepers, how many decide, whether it follows another."""
    sets = [fact.payload for fact in facts if isinstance(fact.payload, KeeperSet)]
    return sorted(
        (one.view, sorted(numbers[peer_id_from_key(key)] for key in one.keys), one.threshold, bool(one.previous))
        for one in sets
    )


def _unit(state: JobState, unit: int, results: Mapping[tuple[JobId, ResultHash], bytes]) -> dict[str, Any]:
    """In which epoch a unit is final, with what, by how many, and whether its submitter has the bytes."""
    final = state.final(unit)
    if final is None:
        return {"epoch": state.epoch(unit), "final": None}
    stored = results.get((state.id, final))
    return {
        "epoch": state.epoch(unit),
        "final": final.hex(),
        "result": stored.hex() if stored is not None and hash_result(stored) == final else None,
        "enough": len(state.accepted_workers(unit)) >= state.spec.policy.quorum,
        "disputed": sum(1 for _ in state.support(unit, state.epoch(unit))) > 1,
    }


def _failures(script: Script, facts: Iterable[Fact], numbers: Mapping[str, int]) -> list[tuple[Any, ...]]:
    found = {
        (item.unit, item.epoch, item.code, item.text, item.device, numbers[fact.author] if script.everybody else -1)
        for fact in facts
        if isinstance(fact.payload, Failures)
        for item in fact.payload.items
    }
    return sorted(found)


def _work(facts: Iterable[Fact], numbers: Mapping[str, int]) -> list[tuple[Any, ...]]:
    """Who committed to and who showed what."""
    found: set[tuple[Any, ...]] = set()
    for fact in facts:
        if isinstance(fact.payload, Commits):
            found |= {("commit", item.unit, item.epoch, numbers[fact.author], "") for item in fact.payload.items}
        elif isinstance(fact.payload, Reveals):
            found |= {
                ("reveal", item.unit, item.epoch, numbers[fact.author], item.result_hash.hex())
                for item in fact.payload.items
            }
    return sorted(found)


def _results(state: JobState, facts: Iterable[Fact]) -> list[tuple[Any, ...]]:
    """Of which unit and epoch the result that is final was shown, by whomsoever; the others are ``rejected``."""
    shown = (item for fact in facts if isinstance(fact.payload, Reveals) for item in fact.payload.items)
    return sorted({(item.unit, item.epoch) for item in shown if item.result_hash == state.final(item.unit)})
