"""Strategies for real signed facts about one job, true and false ones, and for whole messages."""

from random import Random

from hypothesis import strategies as st

from sparkle_protocol import facts as f
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import ResultHash

NET = "test"
UNITS = 3
PEOPLE = [Identity.from_private_bytes(bytes([n]) * 32) for n in range(1, 5)]
SUBMITTER, *WORKERS = PEOPLE
CODEC = f.FactCodec(NET)
SPEC = CODEC.seal(
    SUBMITTER,
    f.JobSpec(
        "square", 1, {"n": 1}, UNITS, "exact", f.Policy(), f.Resources(), f.Deadlines(), b"\0" * 32, b"\0" * 16, 0
    ),
)
JOB = SPEC.job
RESULTS = [b"one", b"two"]
units = st.integers(0, UNITS - 1)
epochs = st.integers(0, 1)
hashes = st.sampled_from([f.digest(result) for result in RESULTS])
people = st.sampled_from(PEOPLE)
nonces = st.sampled_from([b"\1" * 16, b"\2" * 16])


def commit_of(worker: Identity, unit: int, epoch: int, result_hash: bytes, nonce: bytes) -> bytes:
    return f.commitment(NET, JOB, unit, epoch, worker.public_key, ResultHash(result_hash), nonce)


@st.composite
def work(draw: st.DrawFn) -> tuple[Identity, f.Payload]:
    worker, unit, epoch = draw(people), draw(units), draw(epochs)
    result_hash, nonce = draw(hashes), draw(nonces)
    payload: f.Payload = draw(
        st.sampled_from(
            [
                f.Commits(JOB, [f.CommitItem(unit, epoch, commit_of(worker, unit, epoch, result_hash, nonce))]),
                f.Reveals(JOB, [f.RevealItem(unit, epoch, result_hash, nonce)]),
                f.Failures(JOB, [f.FailureItem(unit, epoch, draw(st.sampled_from(["kernel", "crash"])), "")]),
                f.Leases(JOB, [f.LeaseItem(draw(units), unit, epoch, worker.public_key, 9)]),
            ]
        )
    )
    return draw(people) if isinstance(payload, f.Leases) else worker, payload


@st.composite
def rulings(draw: st.DrawFn) -> tuple[Identity, f.Payload]:
    key = draw(people).public_key
    verdict = f.VerdictItem(draw(units), draw(epochs), draw(hashes), [key], draw(st.sampled_from([[], [key]])))
    other = f.VerdictItem(verdict.unit, verdict.epoch, draw(hashes), [key], [])
    payload: f.Payload = draw(
        st.sampled_from(
            [
                f.Verdicts(JOB, [verdict]),
                f.Verdicts(JOB, [verdict, other]),
                f.Reset(JOB, draw(units), draw(epochs), "again"),
                f.KeeperSet(JOB, draw(st.integers(0, 2)), [key], 1),
                f.Cancel(JOB, draw(st.sampled_from(["a", "b"])), draw(st.booleans()), draw(st.integers(0, 2))),
            ]
        )
    )
    return SUBMITTER, payload


facts = st.one_of(work(), rulings()).map(lambda stated: CODEC.seal(*stated))
junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.binary(max_size=40),
    st.text(max_size=10),
)


def shuffled(items: list[f.Fact], seed: int) -> list[f.Fact]:
    copy = list(items)
    Random(seed).shuffle(copy)
    return copy
