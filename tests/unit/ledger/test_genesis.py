"""Genesis records: one digest for one agreement, whoever writes it down, and another for any other."""

from typing import Any

import msgpack
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sparkle_ledger.economy import MICRO, Economy
from sparkle_ledger.entries import account_of
from sparkle_ledger.genesis import GenesisRecord, decode_genesis
from sparkle_protocol.errors import RemoteProtocolError
from tests.unit.ledger.ledgers import person

PEERS = [person(n).peer_id for n in range(1, 5)]
some_peers = st.lists(st.sampled_from(PEERS), max_size=6).map(tuple)
records = st.builds(
    GenesisRecord,
    network=st.sampled_from(["main", "swarm"]),
    limit_max_micro=st.integers(0, 1 << 53),
    starter_micro=st.integers(0, 1 << 53),
    lambda_percent=st.integers(0, 1000),
    payer_share=st.integers(1, 64),
    trusted=some_peers,
    unlimited=some_peers,
)


def test_the_digest_is_that_of_the_page() -> None:
    """As ``ledger/README.md`` has it, with other libraries."""
    first, second = sorted(PEERS[:2])
    record = GenesisRecord("swarm", 7, 8, 90, 3, trusted=(second, first), unlimited=(second,))
    packed = msgpack.packb(["swarm", 7, 8, 90, 3, [first, second], [second]])
    assert record.raw() == packed
    assert record.digest == blake3(b"sparkle/genesis/1\0" + packed).hexdigest()
    assert record.digest.startswith(record.fingerprint)


def test_the_default_record_has_the_default_economy_and_differs_from_network_to_network() -> None:
    assert GenesisRecord("main").economy == Economy()
    assert GenesisRecord("main").economy.limit(()) == 10 * MICRO
    assert GenesisRecord("main").digest != GenesisRecord("other").digest


def test_a_founder_is_unlimited_in_this_network_only() -> None:
    record = GenesisRecord("swarm", unlimited=(PEERS[0],))
    key = person(1).public_key
    assert record.economy.unlimited == {account_of("swarm", key)}
    assert account_of("main", key) not in record.economy.unlimited


@given(records)
def test_what_is_stored_comes_back(record: GenesisRecord) -> None:
    found = decode_genesis(record.raw())
    assert (found.raw(), found.digest, found.economy) == (record.raw(), record.digest, record.economy)


@given(records, st.randoms(use_true_random=False))
def test_the_order_of_founders_makes_no_difference(record: GenesisRecord, random: Any) -> None:
    trusted, unlimited = list(record.trusted), list(record.unlimited)
    random.shuffle(trusted)
    random.shuffle(unlimited)
    other = replace(record, trusted=(*trusted, *trusted), unlimited=tuple(unlimited))
    assert other.digest == record.digest


@given(records, records)
def test_two_records_with_one_digest_agree_in_everything(one: GenesisRecord, other: GenesisRecord) -> None:
    same = one.digest == other.digest
    assert same == (
        (one.economy, set(one.trusted), one.network) == (other.economy, set(other.trusted), other.network)
    )


ROWS: list[tuple[str, list[Any]]] = [
    ("no network", ["", 1, 1, 1, 1, [], []]),
    ("a negative limit", ["x", -1, 1, 1, 1, [], []]),
    ("more than amounts may be", ["x", 1 << 54, 1, 1, 1, [], []]),
    ("too large a share of what was given", ["x", 1, 1, 1001, 1, [], []]),
    ("no payers", ["x", 1, 1, 1, 0, [], []]),
    ("a fraction", ["x", 1.5, 1, 1, 1, [], []]),
    ("no peer", ["x", 1, 1, 1, 1, ["somebody"], []]),
    ("out of order", ["x", 1, 1, 1, 1, sorted(PEERS, reverse=True), []]),
    ("named twice", ["x", 1, 1, 1, 1, [], [PEERS[0], PEERS[0]]]),
    ("too many", ["x", 1, 1, 1, 1, [PEERS[0]] * 1025, []]),
    ("left out", ["x", 1, 1, 1, 1, []]),
    ("one more", ["x", 1, 1, 1, 1, [], [], 0]),
]


@pytest.mark.parametrize(("what", "fields"), ROWS, ids=[what for what, _ in ROWS])
def test_other_bytes_are_no_record(what: str, fields: list[Any]) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_genesis(msgpack.packb(fields))


@given(st.binary(max_size=80))
def test_damaged_bytes_are_refused_and_nothing_else_is_raised(raw: bytes) -> None:
    try:
        assert decode_genesis(raw).raw() == raw
    except RemoteProtocolError:
        return
