"""Messages between an executor and its worker process: length-prefixed msgpack on two pipes.

=========  =============================================  ==================================================
direction  message                                        meaning
=========  =============================================  ==================================================
to child   ``["run", run, kernel, version, unit]``        compute one unit; answered in this order
to child   ``["arrays", run, kernel, version, unit,       compute a unit of arrays from files to a file; these
           inputs, result, checkpoint]``                  three are paths as bytes, the last may be nil
to child   ``["check", run, kernel, version, unit,        say whether the array in the file ``result`` is right
           inputs, result, seed]``
to parent  ``["ready", FORMAT, missing]``                 imports are done; protections this system lacks
to parent  ``["progress", run, share]``                   share of the unit done, 0..1, every few seconds
to parent  ``["resumed", run, share]``                    the unit goes on from its checkpoint, which has that share
to parent  ``["result", run, bytes]``                     the unit's result; of ``arrays`` nothing; of ``check``
                                                          a sentence on what is wrong, or nothing
to parent  ``["error", run, sentence, traceback]``        the unit could not be computed; the child lives on
=========  =============================================  ==================================================

No bytes of arrays pass the pipes. A frame is a big-endian 32-bit length and that many bytes of msgpack. Both ends are
ours, so a frame that breaks these rules is a ``LocalProtocolError``; its sender is not read from again.
"""

import struct
from typing import Any

import msgpack

from sparkle_protocol.errors import LocalProtocolError

FORMAT = 3
REQUEST_LIMIT = 2**20  # a unit's parameters; a whole job's are at most 64 kB
REPLY_LIMIT = 2**23
RESULT_LIMIT = REPLY_LIMIT - 2**10  # what one result may have; kernels of the network keep to 64 kB
TEXT_LIMIT = 8000  # characters of a traceback

HEADER = struct.Struct(">I")


def encode(message: list[Any], limit: int) -> bytes:
    """One frame.

    Raises:
        LocalProtocolError: the message holds what msgpack cannot encode, or is longer than ``limit``.
    """
    try:
        body: bytes = msgpack.packb(message)
    except (TypeError, ValueError, OverflowError) as error:
        raise LocalProtocolError(f"a {message[0]} message cannot be encoded: {error}") from error
    if len(body) > limit:
        raise LocalProtocolError(f"a {message[0]} message of {len(body)} bytes exceeds {limit}")
    return HEADER.pack(len(body)) + body


def decode(body: bytes, limit: int) -> list[Any]:
    """The message of one frame's body: a list that starts with its kind.

    Raises:
        LocalProtocolError: it is not such a message.
    """
    try:
        message = msgpack.unpackb(
            body, max_bin_len=limit, max_str_len=limit, max_array_len=1024, max_map_len=1024, max_ext_len=0
        )
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise LocalProtocolError("a message of the worker process cannot be decoded") from error
    if not isinstance(message, list) or not message or not isinstance(message[0], str):
        raise LocalProtocolError("a message of the worker process has no kind")
    return message


class FrameBuffer:
    """Cuts a byte stream into frames of at most ``limit`` bytes; holds at most one frame and a read."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()

    def feed(self, data: bytes) -> list[list[Any]]:
        """The messages that ``data`` completes, in order.

        Raises:
            LocalProtocolError: a frame is too long or malformed.
        """
        self._data += data
        messages = []
        while len(self._data) >= HEADER.size:
            (length,) = HEADER.unpack_from(self._data)
            if length > self._limit:
                raise LocalProtocolError(f"a frame of {length} bytes exceeds {self._limit}")
            end = HEADER.size + length
            if len(self._data) < end:
                break
            messages.append(decode(bytes(self._data[HEADER.size : end]), self._limit))
            del self._data[:end]
        return messages
