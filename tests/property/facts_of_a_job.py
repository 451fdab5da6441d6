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
NEXT_VIEW = f.VIEWS_PER_GENERATION  # the submitter's own word, like view 0
epochs = st.sampled_from([f.epoch_of(view, resets) for view in (0, 1, NEXT_VIEW) for resets in (0, 1)])
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


KEYS = [person.public_key for person in PEOPLE]
FIRST_SETS = [CODEC.seal(SUBMITTER, f.KeeperSet(JOB, 0, keys, need)) for keys, need in ((KEYS, 3), (KEYS[:1], 1))]
SETS = [
    *FIRST_SETS,
    *(
        CODEC.seal(person, f.KeeperSet(JOB, 1, keys, 3, bytes(first.id)))
        for person in PEOPLE[:2]
        for first in FIRST_SETS
        for keys in (KEYS, KEYS[::-1])
    ),
    *(CODEC.seal(person, f.KeeperSet(JOB, NEXT_VIEW, KEYS[1:], 1)) for person in PEOPLE[:2]),
]
VERDICTS = [
    CODEC.seal(person, f.Verdicts(JOB, [f.VerdictItem(0, epoch, f.digest(result), [person.public_key], [])]))
    for person in PEOPLE[:3]
    for epoch in (0, f.epoch_of(1, 0), f.epoch_of(NEXT_VIEW, 1))
    for result in RESULTS
]


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
                f.Reset(JOB, draw(units), draw(st.integers(1, 2)), "again"),
                f.Cancel(JOB, draw(st.sampled_from(["a", "b"])), draw(st.booleans()), draw(st.integers(0, 2))),
            ]
        )
    )
    return SUBMITTER, payload


@st.composite
def words_of_keepers(draw: st.DrawFn) -> tuple[Identity, f.Payload]:
    """What keepers say of each other's verdicts and sets."""
    named = draw(st.lists(st.sampled_from([*SETS, *VERDICTS]), min_size=1, max_size=4, unique_by=lambda one: one.id))
    verdict = f.VerdictItem(draw(units), draw(epochs), draw(hashes), [draw(people).public_key], [])
    return draw(people), draw(
        st.sampled_from(
            [
                f.Endorsements(JOB, [bytes(one.id) for one in named], draw(st.sampled_from([0, f.NO_RANGE]))),
                f.Verdicts(JOB, [verdict]),
            ]
        )
    )


facts = st.one_of(
    st.one_of(work(), rulings(), words_of_keepers()).map(lambda stated: CODEC.seal(*stated)),
    st.sampled_from([*SETS, *VERDICTS]),
)
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
