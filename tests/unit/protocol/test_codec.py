"""What the codec takes and refuses."""

import msgpack
import pytest

from sparkle_protocol import codec
from sparkle_protocol.errors import LocalProtocolError, RemoteProtocolError
from sparkle_protocol.facts import Resources
from sparkle_protocol.messages import (
    Heartbeat,
    LeaseRequest,
    Ok,
    Report,
    decode_reply,
    decode_request,
    encode_message,
)


def nested(levels: int) -> bytes:
    return b"\x91" * levels + b"\x90"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "malformed"),
        (b"\x93\x0a\x01", "malformed"),  # ends too early
        (codec.encode(Ok()) + b"\x00", "malformed"),  # goes on too long
        (b"\xc1", "malformed"),  # the one byte that msgpack never uses
        (nested(1500), "malformed"),
        (nested(20), "nests deeper"),
        (b"\xc7\x00\x05", "unexpected"),  # extension types are not spoken
        (b"\x82\xa1a\x01\xa1a\x02", "names a key twice"),
        (b"\x81\x01\x02", "malformed"),  # keys are strings
        (msgpack.packb("x" * (codec.MAX_STRING_BYTES + 1)), "malformed"),
        (msgpack.packb([0] * (codec.MAX_ARRAY_ITEMS + 1)), "malformed"),
        (msgpack.packb({str(n): n for n in range(codec.MAX_MAP_ITEMS + 1)}), "malformed"),
        (msgpack.packb([99]), "unexpected"),  # an unknown kind
        (msgpack.packb([10, 0, []]), "unexpected"),  # wants no units
        (msgpack.packb([10, "1", []]), "unexpected"),
        (msgpack.packb([10, 1]), "unexpected"),  # a field is missing
        (msgpack.packb([10, 1, ["\ud800"]], unicode_errors="surrogatepass"), "malformed"),
    ],
)
def test_nonsense_is_refused_in_one_sentence(data: bytes, reason: str) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        decode_request(data)


def test_a_message_has_a_largest_size() -> None:
    largest = Report(b"j" * 32, [], [b"x" * 65_536] * 12, [])
    assert decode_request(encode_message(largest)) == largest
    with pytest.raises(RemoteProtocolError, match="exceeds the limit"):
        decode_request(b"\xc4" * (codec.MAX_MESSAGE_BYTES + 1))
    with pytest.raises(LocalProtocolError):
        encode_message(Report(b"j" * 32, [], [b"x" * 100_000] * 12, []))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -0.1, 1.1, True, "0.5"])
def test_progress_is_a_number_from_zero_to_one(bad: object) -> None:
    with pytest.raises(RemoteProtocolError):
        codec.decode(msgpack.packb([0, 0, bad]), Heartbeat)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_amounts_are_finite(bad: float) -> None:
    with pytest.raises(RemoteProtocolError):
        codec.decode(msgpack.packb([bad, 0.0, 0]), Resources)


def test_an_old_reader_ignores_new_fields_and_a_new_one_fills_in_old_ones() -> None:
    new = [*msgpack.unpackb(encode_message(LeaseRequest(2, ["square@1"]))), "a field of the future"]
    assert decode_request(msgpack.packb(new)) == LeaseRequest(2, ["square@1"])
    assert decode_request(msgpack.packb([10, 2, ["square@1"]])) == LeaseRequest(2, ["square@1"], [])


def test_a_request_is_no_reply() -> None:
    with pytest.raises(RemoteProtocolError):
        decode_reply(encode_message(LeaseRequest(1, [])))
