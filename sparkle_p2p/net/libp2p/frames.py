"""The bytes on a request stream, protocol id ``/sparkle/rpc/1``.

Whoever wants to ask a peer opens a stream to it and keeps it: one stream per direction and pair of peers.
The side that opened the stream is the *asker*, the other the *answerer*. All integers are unsigned and
big-endian. A stream is a sequence of frames::

    frame  = length:u32  id:u64  kind:u8  payload:bytes[length - 9]

``length`` counts id, kind and payload: at least 9, at most 9 + 1048576.

=====  =======  ========  ============================================================================
kind   name     sent by   meaning
=====  =======  ========  ============================================================================
0      hello    both      first frame of either side, id 0; the answerer sends its own after it read the
                          asker's. Payload: msgpack ``[version, net, agent, addresses, genesis]``: integer 2;
                          network name (1 to 64 characters); name and version of the software (up to 64); at
                          most 16 multiaddrs ending in /p2p/<sender> under which others can dial the sender;
                          digest of the network's genesis record in hexadecimal (64 characters)
1      request  asker     ``id`` is chosen by the asker: 1 for the first frame on the stream that carries
                          one, then one more each time. Payload: opaque
2      reply    answerer  answers the request with that id. Payload: opaque
3      error    answerer  the request was not served. Payload: code:u8, then UTF-8 text (up to 512 bytes).
                          Codes: 1 refused (it breaks a rule), 2 failed (not the asker's fault), 3 busy
4      ping     asker     ``id`` as for a request; empty payload
5      pong     answerer  answers the ping with that id; empty payload
=====  =======  ========  ============================================================================

Rules. Replies come in any order. An answerer serves at most 64 requests of a peer at a time and answers more
with *busy*. A reply to an id that was given up is ignored; one to an id never used is a violation. A hello
that names another network, genesis record or version ends the connection; of another version only the first
four fields are read. Any other breach of this table (a frame too long or too short, an unknown kind, a kind sent
by the wrong side, an end of stream inside a frame) is a violation: the stream is reset and the peer reported.
Half-sent frames are waited for at most 20 s, the hello 5 s and room for our bytes 4.5 s; after that the stream is
reset, but being slow or silent is no violation.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

import msgpack

from sparkle_p2p.net.overlay import MAX_REQUEST_BYTES
from sparkle_p2p.net.serving import ErrorCode, error_for
from sparkle_protocol.errors import RemoteProtocolError, SparkleError

PROTOCOL_ID = "/sparkle/rpc/1"
PROTOCOL_VERSION = 2

MAX_NAME_CHARS = 64
MAX_ADDRESSES = 16
MAX_ADDRESS_CHARS = 256
MAX_ERROR_BYTES = 512

PREFIX_BYTES = 4
_HEADER = struct.Struct(">IQB")
_BODY_HEADER_BYTES = _HEADER.size - PREFIX_BYTES
_MAX_HELLO_BYTES = 8192
_ERROR_CODES = {bytes([code]) for code in ErrorCode}


class Kind(IntEnum):
    """What a frame is; see the table above."""

    HELLO = 0
    REQUEST = 1
    REPLY = 2
    ERROR = 3
    PING = 4
    PONG = 5


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded frame."""

    id: int
    kind: Kind
    payload: bytes


@dataclass(frozen=True, slots=True)
class Hello:
    """What either side says first."""

    net: str
    agent: str
    addresses: tuple[str, ...]
    genesis: str = ""  # digest of its network's genesis record
    version: int = PROTOCOL_VERSION


def encode(frame_id: int, kind: Kind, payload: bytes = b"") -> bytes:
    """The bytes of one frame; the caller keeps to the size limits."""
    return _HEADER.pack(_BODY_HEADER_BYTES + len(payload), frame_id, kind) + payload


def body_length(prefix: bytes) -> int:
    """Length of the body that follows a frame's first four bytes.

    Raises:
        RemoteProtocolError: shorter than a header or longer than the largest request.
    """
    length = int.from_bytes(prefix, "big")
    if length < _BODY_HEADER_BYTES:
        raise RemoteProtocolError(f"a frame of {length} bytes is too short for its header")
    if length > _BODY_HEADER_BYTES + MAX_REQUEST_BYTES:
        raise RemoteProtocolError(f"a frame of {length} bytes is larger than the limit")
    return length


def decode_body(body: bytes) -> Frame:
    """The frame whose body this is.

    Raises:
        RemoteProtocolError: unknown kind.
    """
    kind = body[8]
    if kind >= len(Kind):
        raise RemoteProtocolError(f"a frame of unknown kind {kind}")
    return Frame(int.from_bytes(body[:8], "big"), Kind(kind), body[_BODY_HEADER_BYTES:])


def encode_hello(hello: Hello) -> bytes:
    """Frame that opens either direction of a stream."""
    agent, addresses = hello.agent[:MAX_NAME_CHARS], list(hello.addresses[:MAX_ADDRESSES])
    payload = msgpack.packb([hello.version, hello.net, agent, addresses, hello.genesis])
    return encode(0, Kind.HELLO, payload)


def decode_hello(frame: Frame) -> Hello:
    """The greeting in a stream's first frame.

    Raises:
        RemoteProtocolError: it is none, or malformed.
    """
    if frame.kind is not Kind.HELLO or frame.id != 0:
        raise RemoteProtocolError("the first frame of a stream is not a hello")
    if len(frame.payload) > _MAX_HELLO_BYTES:
        raise RemoteProtocolError("a hello is larger than the limit")
    try:
        fields = msgpack.unpackb(
            frame.payload,
            max_str_len=MAX_ADDRESS_CHARS,
            max_array_len=MAX_ADDRESSES,
            max_map_len=0,
            max_bin_len=0,
        )
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise RemoteProtocolError("a hello is not well-formed msgpack") from error
    match fields:
        case [int(version), str(net), str(agent), list(addresses), *more] if all(
            isinstance(address, str) for address in addresses
        ):
            if not 1 <= len(net) <= MAX_NAME_CHARS or len(agent) > MAX_NAME_CHARS:
                raise RemoteProtocolError("a name in a hello is too long or missing")
            if version != PROTOCOL_VERSION:
                return Hello(net, agent, tuple(addresses), version=version)
            if more and isinstance(more[0], str):
                return Hello(net, agent, tuple(addresses), more[0])
    raise RemoteProtocolError("a hello has the wrong fields")


def encode_error(frame_id: int, code: ErrorCode, text: str) -> bytes:
    """Frame that answers a request with an error."""
    cut = text.encode()[:MAX_ERROR_BYTES]
    return encode(frame_id, Kind.ERROR, bytes([code]) + cut.decode(errors="ignore").encode())


def decode_error(payload: bytes) -> SparkleError:
    """The exception that an error frame stands for (also when it is itself malformed)."""
    code = ErrorCode(payload[0]) if payload[:1] in _ERROR_CODES else ErrorCode.REFUSED
    return error_for(code, payload[1 : 1 + MAX_ERROR_BYTES].decode(errors="replace"))
