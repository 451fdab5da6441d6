"""Proofs on the wire: what a stranger needs to see for itself who is to be paid."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from typing import Annotated

from msgspec import Meta

from sparkle_ledger.evidence import JobRecord
from sparkle_protocol.codec import MAX_MESSAGE_BYTES, Wire, decode, encode
from sparkle_protocol.errors import LocalProtocolError, RemoteProtocolError
from sparkle_protocol.facts import MAX_FACT_BYTES, Fact, FactCodec, JobSpec
from sparkle_protocol.ledger_messages import MAX_HAVE, PREFIX_BYTES
from sparkle_protocol.messages import MAX_SEAL_BYTES
from sparkle_protocol.work.sealed import SealedRange

MAX_PROOF_FACTS = 4096
MAX_PROOF_SEALS = 64

RawFact = Annotated[bytes, Meta(max_length=MAX_FACT_BYTES + 256)]
RawSeal = Annotated[bytes, Meta(max_length=MAX_SEAL_BYTES)]


class Proof(Wire, frozen=True):
    """Signed facts, the spec first, and records of sealed ranges."""

    facts: Annotated[list[RawFact], Meta(min_length=1, max_length=MAX_PROOF_FACTS)]
    sealed: Annotated[list[RawSeal], Meta(max_length=MAX_PROOF_SEALS)] = []  # noqa: RUF012  (msgspec copies defaults)


def encode_proof(record: JobRecord, ranges: Collection[int], have: Collection[bytes] = ()) -> bytes:
    """What a record shows about some ranges, without what somebody has: see ``prefixes``.

    Raises:
        LocalProtocolError: it is too large for a message; ask for fewer ranges.
    """
    wanted = set(ranges)
    facts = [record.spec_fact.raw]
    facts += [fact.raw for fact in _shown(record, wanted) if fact.id[:PREFIX_BYTES] not in have]
    sealed = [one.encode() for one in record.sealed(wanted) if one.root[:PREFIX_BYTES] not in have]
    if len(facts) > MAX_PROOF_FACTS or len(sealed) > MAX_PROOF_SEALS:
        raise LocalProtocolError(f"a proof of {len(facts)} facts and {len(sealed)} records is too large: show less")
    return encode(Proof(facts, sealed))


def prefixes(record: JobRecord, ranges: Collection[int]) -> bytes:
    """How the ids of facts and records begin that prove something about these ranges: ``ProofRequest.have``."""
    wanted = set(ranges)
    ids = [bytes(fact.id) for fact in _shown(record, wanted)]
    ids += [one.root for one in record.sealed(wanted)]
    return b"".join(id_[:PREFIX_BYTES] for id_ in ids[:MAX_HAVE])


def _shown(record: JobRecord, wanted: set[int]) -> Iterator[Fact]:
    """What proves something about these ranges, beside the spec."""
    facts = (fact for fact in record.counting(wanted) if fact is not record.spec_fact)
    return (fact for fact in facts if not fact.ranges or fact.ranges & wanted)


class ProofReading:
    """A proof on the wire, judged a little at a time: the largest has thousands of signatures.

    ``known``: facts that were not shown as they are known here; what is shown may rest on them.

    Raises:
        RemoteProtocolError: it is no proof.
    """

    def __init__(self, raw: bytes, codec: FactCodec, known: Iterable[Fact] = ()) -> None:
        proof = decode(raw, Proof, max_bytes=MAX_MESSAGE_BYTES)
        self._codec = codec
        self._known = known
        self._facts = deque(proof.facts)
        self._sealed = deque(proof.sealed)
        self._record: JobRecord | None = None

    def step(self, signatures: int) -> JobRecord | None:
        """Verify so many signatures, or records of ranges; returns what all of it proves once none is left.

        Raises:
            RemoteProtocolError: it is malformed or forged, or of another network.
        """
        for _ in range(signatures):
            if self._record is None:
                fact = self._codec.open(self._facts.popleft())
                if type(fact.payload) is not JobSpec:
                    raise RemoteProtocolError("a proof begins with the job's spec")
                self._record = JobRecord(fact, self._codec.network)
                self._record.add_all(self._known)
            elif self._facts:
                self._record.add(self._codec.open(self._facts.popleft()))
            elif self._sealed:
                self._record.add_sealed(SealedRange.decode(self._sealed.popleft()))
        return None if self._facts or self._sealed else self._record
