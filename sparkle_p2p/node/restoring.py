"""What an earlier run left in the store: sorted by job, checked against its ids, and gone on with."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sparkle_p2p.node.store import StoreError
from sparkle_p2p.runtime.clock import boot_ns, wall_ms
from sparkle_protocol.effects import Notify, StoreCommit, StoreRejection
from sparkle_protocol.errors import SparkleError
from sparkle_protocol.facts import Fact, FactCodec, JobSpec, KeeperSet
from sparkle_protocol.ids import JobId
from sparkle_protocol.work.rejection import Rejection
from sparkle_protocol.work.sealed import SealedRange

if TYPE_CHECKING:
    from sparkle_p2p.node.node import Node

log = logging.getLogger("sparkle.node")


@dataclass(slots=True)
class StoredJob:
    """Facts, records of sealed ranges, unsettled commits and refused results of one job."""

    facts: list[Fact] = field(default_factory=list)
    commits: list[StoreCommit] = field(default_factory=list)
    sealed: list[SealedRange] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)

    @property
    def spec(self) -> Fact | None:
        """Its spec, if that is whole."""
        return next((fact for fact in self.facts if isinstance(fact.payload, JobSpec)), None)

    def names(self, key: bytes) -> bool:
        """A keeper set of it names this key."""
        return any(isinstance(fact.payload, KeeperSet) and key in fact.payload.keys for fact in self.facts)


def sort_stored(
    network: str,
    facts: Iterable[tuple[bytes, bytes]],
    commits: Iterable[StoreCommit],
    sealed: Iterable[tuple[JobId, bytes]] = (),
    rejections: Iterable[StoreRejection] = (),
) -> dict[JobId, StoredJob]:
    """Jobs by id. What is damaged or belongs to another network that this home was used for is left out.

    Signatures were verified before the facts were stored and are not verified again: with a hundred thousand facts
    that would take ten seconds. A fact's id is a hash of its body, so damage on disk is noticed all the same.
    """
    codec = FactCodec(network, verify=_verified_before)
    jobs: dict[JobId, StoredJob] = {}
    for fact_id, raw in facts:
        try:
            fact = codec.open(raw)
        except SparkleError as error:
            log.debug("a stored fact is skipped: %s", error)
            continue
        if fact.id != fact_id:
            log.warning("a stored fact of job %s is damaged and skipped", fact.job.hex()[:12])
            continue
        jobs.setdefault(fact.job, StoredJob()).facts.append(fact)
    for job, raw in sealed:
        try:
            record = SealedRange.decode(raw)
        except SparkleError as error:
            log.warning("a stored range of job %s is damaged and skipped: %s", job.hex()[:12], error)
            continue
        if job in jobs:
            jobs[job].sealed.append(record)
    for refused in rejections:
        try:
            rejection = Rejection.decode(refused)
        except SparkleError as error:
            log.warning("a stored rejection of job %s is damaged and skipped: %s", refused.job.hex()[:12], error)
            continue
        if refused.job in jobs:
            jobs[refused.job].rejections.append(rejection)
    for commit in commits:
        jobs.setdefault(commit.job, StoredJob()).commits.append(commit)
    return jobs


def _verified_before(_key: bytes, _signature: bytes, _message: bytes) -> None:
    """Accepts: see ``sort_stored``."""


async def restore_jobs(node: "Node") -> None:
    """Continue jobs and commits of an earlier run from stored facts; forget what concerns us no more.

    Raises:
        StoreError: the store cannot be read.
    """
    store = node.store
    stored = sort_stored(
        node.config.net, await store.facts(), await store.commits(), await store.sealed(), await store.rejections()
    )
    without_facts = await node.store.jobs_without_facts()
    ages = await node.store.ages()
    gone = []
    for job, left in stored.items():
        if left.spec is None:
            if left.facts or job in without_facts:  # else it is of another network
                gone.append(job)
            continue
        ours = left.spec.author == node.identity.peer_id
        others = [fact for fact in left.facts if fact is not left.spec]
        if ours or left.names(node.identity.public_key):
            names = await node.store.result_names(job)
            size = 0 if ours else await node.store.result_bytes(job)
            age_ns = ages.get(job, 0) * 1_000_000_000
            effects = node.submitter.restore(
                left.spec, others, boot_ns(), names, size, left.sealed, age_ns, left.rejections
            )
            # What ended before is no news.
            node.shell.perform(node.submitter, tuple(e for e in effects if not isinstance(e, Notify)))
        if ours:
            await node.journals.restored(node.submitter.jobs[job], node.totals.get("alive_ms", 0), wall_ms())
        if left.commits:  # showing what was computed needs no kernel
            open_ = [(commit.unit, commit.epoch, commit.nonce, commit.result) for commit in left.commits]
            node.shell.perform(node.worker, node.worker.restore(left.spec, others, open_, boot_ns()))
        elif job not in node.submitter.jobs and job not in node.submitter.kept:
            gone.append(job)
    if gone:
        try:
            await node.store.forget_jobs(gone)
        except StoreError as error:
            log.warning("could not remove jobs that are over: %s", error)
