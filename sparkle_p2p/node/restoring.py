"""What an earlier run left in the store, sorted by job and checked against what the database says it is."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

from sparkle_protocol.effects import StoreCommit
from sparkle_protocol.errors import SparkleError
from sparkle_protocol.facts import Fact, FactCodec, JobSpec, KeeperSet
from sparkle_protocol.ids import JobId

log = logging.getLogger("sparkle.node")


@dataclass(slots=True)
class StoredJob:
    """Facts and unsettled commits of one job."""

    facts: list[Fact] = field(default_factory=list)
    commits: list[StoreCommit] = field(default_factory=list)

    @property
    def spec(self) -> Fact | None:
        """Its spec, if that is whole."""
        return next((fact for fact in self.facts if isinstance(fact.payload, JobSpec)), None)

    @property
    def keepers(self) -> Fact | None:
        """Who keeps it."""
        return next((fact for fact in self.facts if isinstance(fact.payload, KeeperSet)), None)


def sort_stored(
    network: str, facts: Iterable[tuple[bytes, bytes]], commits: Iterable[StoreCommit]
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
    for commit in commits:
        jobs.setdefault(commit.job, StoredJob()).commits.append(commit)
    return jobs


def _verified_before(_key: bytes, _signature: bytes, _message: bytes) -> None:
    """Accepts: see ``sort_stored``."""
