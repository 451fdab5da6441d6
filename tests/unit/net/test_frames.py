"""The request stream's format: what is written can be read, whatever else raises RemoteProtocolError only."""

import re

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkle_p2p.net.libp2p import frames
from sparkle_p2p.net.libp2p.frames import (
    Frame,
    Hello,
    Kind,
    body_length,
    decode_body,
    decode_error,
    decode_hello,
    encode,
    encode_error,
    encode_hello,
)
from sparkle_p2p.net.overlay import MAX_REQUEST_BYTES
from sparkle_p2p.net.serving import ErrorCode
from sparkle_protocol.errors import PeerFailed, PeerUnreachable, RemoteProtocolError, SparkleError

names = st.text(min_size=1, max_size=64)


def decode(data: bytes) -> Frame:
    length = body_length(data[:4])
    assert len(data) == 4 + length
    return decode_body(data[4:])


@given(st.integers(0, 2**64 - 1), st.sampled_from(Kind), st.binary(max_size=300))
def test_frames_survive_the_wire(frame_id, kind, payload):
    assert decode(encode(frame_id, kind, payload)) == Frame(frame_id, kind, payload)


def test_the_bytes_are_those_of_the_specification():
    assert encode(7, Kind.REQUEST, b"abc") == bytes.fromhex("0000000c 0000000000000007 01 616263")
    hello = encode_hello(Hello("main", "sparkle/0.1", ("/ip4/192.0.2.1/tcp/1/p2p/x",), "d1"))
    assert hello[4:13] == bytes(9)
    assert msgpack.unpackb(hello[13:]) == [2, "main", "sparkle/0.1", ["/ip4/192.0.2.1/tcp/1/p2p/x"], "d1"]
    assert encode_error(7, ErrorCode.REFUSED, "no") == bytes.fromhex("0000000c 0000000000000007 03 01 6e6f")


def test_the_specification_names_every_kind():
    table = re.findall(r"^(\d) +(\w+) +(?:both|asker|answerer)\b", frames.__doc__, re.MULTILINE)
    assert table == [(str(kind.value), kind.name.lower()) for kind in Kind]
    codes = re.findall(r"(\d) (\w+)", re.search(r"Codes: (.*)\n", frames.__doc__)[1])
    assert codes == [(str(code.value), code.name.lower()) for code in ErrorCode]


@given(names, st.text(max_size=64), st.lists(st.text(max_size=100), max_size=16), st.text(max_size=64))
def test_hellos_survive_the_wire(net, agent, addresses, genesis):
    hello = Hello(net, agent, tuple(addresses), genesis)
    try:
        assert decode_hello(decode(encode_hello(hello))) == hello
    except RemoteProtocolError:
        assert any(len(text.encode()) > 255 for text in (net, agent, genesis, *addresses))


def test_a_later_version_may_append_fields_to_its_hello():
    payload = msgpack.packb([2, "main", "next/3", [], "d1", "appended"])
    assert decode_hello(Frame(0, Kind.HELLO, payload)) == Hello("main", "next/3", (), "d1")


@pytest.mark.parametrize("more", [[], ["d1"], [7, b""]])
def test_of_another_version_only_what_all_versions_say_is_read(more):
    """So that both ends can say which version the other speaks."""
    for version in (1, 3):
        payload = msgpack.packb([version, "main", "other", [], *more[:1]])
        assert decode_hello(Frame(0, Kind.HELLO, payload)) == Hello("main", "other", (), version=version)


@pytest.mark.parametrize("more", [[], [7], [None], ["d" * 300], [["d1"]]])
def test_a_hello_without_a_genesis_record_is_refused(more):
    payload = msgpack.packb([2, "main", "next/2", [], *more])
    with pytest.raises(RemoteProtocolError):
        decode_hello(Frame(0, Kind.HELLO, payload))


@given(st.binary(max_size=200))
def test_hostile_hellos_only_ever_raise_remote_protocol_error(payload):
    try:
        decode_hello(Frame(0, Kind.HELLO, payload))
    except RemoteProtocolError:
        return


@given(st.binary(min_size=9, max_size=200))
def test_hostile_bodies_only_ever_raise_remote_protocol_error(body):
    try:
        assert encode(decode_body(body).id, decode_body(body).kind, decode_body(body).payload)[4:] == body
    except RemoteProtocolError:
        assert body[8] >= len(Kind)


@pytest.mark.parametrize("length", [0, 8, 10 + MAX_REQUEST_BYTES, 2**32 - 1])
def test_impossible_lengths_are_refused_before_anything_is_read(length):
    with pytest.raises(RemoteProtocolError):
        body_length(length.to_bytes(4, "big"))


@given(st.binary(max_size=600))
def test_any_error_payload_becomes_a_deliberate_error(payload):
    assert isinstance(decode_error(payload), SparkleError)


def test_errors_tell_refused_failed_and_busy_apart():
    refused = decode_error(decode(encode_error(1, ErrorCode.REFUSED, "the job is unknown")).payload)
    assert isinstance(refused, RemoteProtocolError)
    assert "the job is unknown" in str(refused)
    assert isinstance(decode_error(bytes([ErrorCode.FAILED])), PeerFailed)
    assert isinstance(decode_error(bytes([ErrorCode.BUSY])), PeerUnreachable)
    assert len(decode(encode_error(1, ErrorCode.REFUSED, "ü" * 5000)).payload) <= 513
