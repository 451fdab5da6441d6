"""zstd where it helps: decided by a sample, and never unpacked to more than was asked for."""

import sys

from sparkle_protocol.blobs.tree import Buffer
from sparkle_protocol.errors import RemoteProtocolError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LEVEL = 1  # faster than the links it is used on
HELPS_BELOW = 0.85  # of the size: less is not worth the time
_SAMPLES = 4
_SAMPLE_BYTES = 4 << 10
_MAX_WINDOW_LOG = 21  # 2 MiB of memory to unpack; level 1 needs less


def looks_compressible(data: Buffer) -> bool:
    """Whether a sample of 16 KiB shrinks: so little that it may be asked on the event loop."""
    step = max(len(data) // _SAMPLES, 1)
    sample = b"".join(data[start : start + _SAMPLE_BYTES] for start in range(0, step * _SAMPLES, step))
    return len(zstd.compress(sample, LEVEL)) <= HELPS_BELOW * len(sample)


def compressed(data: Buffer) -> bytes | None:
    """The data as one zstd frame, or None if that is hardly smaller."""
    packed = zstd.compress(data, LEVEL)
    return packed if len(packed) <= HELPS_BELOW * len(data) else None


def decompressed(pieces: list[Buffer], size: int) -> bytes:
    """The ``size`` bytes of one zstd frame, given as pieces in a row. Raises RemoteProtocolError."""
    unpacker = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG})
    try:
        data = unpacker.decompress(b"".join(pieces), max_length=size + 1)
    except zstd.ZstdError as error:
        raise RemoteProtocolError("compressed data is damaged") from error
    if len(data) != size or not unpacker.eof or unpacker.unused_data:
        raise RemoteProtocolError("compressed data has another size than it should")
    return data
