"""Frames between an executor and its process."""

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkle_protocol.errors import LocalProtocolError
from sparkle_worker import frames

LIMIT = 4096
MESSAGES = st.lists(
    st.tuples(st.text(max_size=8), st.integers(-(2**63), 2**64 - 1), st.binary(max_size=300)).map(list),
    max_size=5,
)


@settings(deadline=None)
@given(MESSAGES, st.integers(1, 50))
def test_messages_survive_however_the_pipe_cuts_them(messages, step):
    stream = b"".join(frames.encode(message, LIMIT) for message in messages)
    buffer = frames.FrameBuffer(LIMIT)
    seen = [m for at in range(0, len(stream), step) for m in buffer.feed(stream[at : at + step])]
    assert seen == messages


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_messages_or_refused(data):
    buffer = frames.FrameBuffer(LIMIT)
    try:
        messages = buffer.feed(frames.HEADER.pack(len(data)) + data)
    except LocalProtocolError:
        return
    assert all(isinstance(message[0], str) for message in messages)


def test_too_long_frames_are_refused_from_their_length_alone():
    with pytest.raises(LocalProtocolError, match="exceeds"):
        frames.FrameBuffer(LIMIT).feed(frames.HEADER.pack(LIMIT + 1))
    with pytest.raises(LocalProtocolError, match="exceeds"):
        frames.encode(["result", 1, bytes(LIMIT)], LIMIT)


@pytest.mark.parametrize("value", [object(), 2**64, {1, 2}])
def test_what_cannot_be_encoded_is_refused(value):
    with pytest.raises(LocalProtocolError, match="cannot be encoded"):
        frames.encode(["run", value], LIMIT)


@pytest.mark.parametrize("body", [b"", b"\xc0", b"\x90", msgpack.packb([1]), b"\xc1", b"\x91" * 2000 + b"\xc0"])
def test_bodies_that_are_no_message_are_refused(body):
    with pytest.raises(LocalProtocolError):
        frames.decode(body, LIMIT)
