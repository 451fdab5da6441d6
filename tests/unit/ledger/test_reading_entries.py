"""Entries are read fast where their bytes are the usual ones, and strictly in any case."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkle_ledger.entries import DOMAIN, EntryCodec, Genesis, Settled, Work
from sparkle_protocol.errors import RemoteProtocolError
from sparkle_protocol.ids import digest
from tests.unit.ledger.feeds import CODEC, NET, PEOPLE, feed, job

WORK = Work(job(1), b"p" * 32, b"h" * 32, PEOPLE[0].public_key, 40, [Settled(unit, 4096) for unit in range(4)])
ENTRY = feed(PEOPLE[0], [Genesis(), WORK])[1]
FIELDS = msgpack.unpackb(msgpack.unpackb(ENTRY.raw)[0])
PAYLOAD = msgpack.unpackb(FIELDS[-1])


def signed(body: bytes) -> bytes:
    return bytes(msgpack.packb([body, PEOPLE[0].sign(DOMAIN + body)]))


def with_payload(payload: bytes) -> bytes:
    return signed(bytes(msgpack.packb([*FIELDS[:-1], payload])))


def nested(depth: int) -> list[object]:
    value: list[object] = []
    for _ in range(depth):
        value = [value]
    return value


def test_an_entry_of_other_but_valid_bytes_reads_the_same() -> None:
    """Whoever encodes integers in more bytes than they need signs something else, but says the same."""
    long_form = bytes(msgpack.packb(PAYLOAD)).replace(b"\x28", b"\xcd\x00\x28", 1)
    raw = with_payload(long_form)
    assert CODEC.open(raw).payload == ENTRY.payload
    assert CODEC.open_known(raw).id == digest(msgpack.unpackb(raw)[0]) != ENTRY.id


def test_a_field_that_a_later_version_appends_is_ignored() -> None:
    assert CODEC.open(with_payload(bytes(msgpack.packb([*PAYLOAD, "later"])))).payload == ENTRY.payload


@pytest.mark.parametrize(
    "appended", [nested(20), nested(600), {str(n): n for n in range(65)}, "x" * 5000, msgpack.ExtType(5, b"x")]
)
def test_what_the_strict_reader_refuses_is_refused_wherever_it_hides(appended: object) -> None:
    """Both ways to open an entry agree on what is one: else two copies of the ledger would differ for good."""
    for raw in (with_payload(bytes(msgpack.packb([*PAYLOAD, appended]))), signed(msgpack.packb([*FIELDS, appended]))):
        with pytest.raises(RemoteProtocolError):
            CODEC.open(raw)
        with pytest.raises(RemoteProtocolError):
            CODEC.open_known(raw)


@given(place=st.integers(0, len(ENTRY.raw) - 1), value=st.integers(0, 255))
def test_bytes_that_changed_are_another_entry_or_none(place: int, value: int) -> None:
    raw = ENTRY.raw[:place] + bytes([value]) + ENTRY.raw[place + 1 :]
    try:
        opened = CODEC.open_known(raw)
    except RemoteProtocolError:
        return
    body = msgpack.unpackb(ENTRY.raw)[0]
    assert opened.id != ENTRY.id or msgpack.unpackb(raw)[0] == body


def test_an_entry_of_another_network_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="network"):
        EntryCodec("other").open_known(ENTRY.raw)
    assert CODEC.network == NET
