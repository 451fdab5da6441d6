"""A trace on disk: all that happened in a run, written while it runs.

One zstd stream of msgpack values: first a map that says what run it is of (``format``, ``version``, ``seed``,
``scenario``), then for each entry an array ``[at_ns, peer, what, detail]``, in the order in which things happened. A
run that was killed leaves a stream without an end; all but its last mebibyte can be read.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import msgpack
import msgspec

from sparkle_protocol.errors import ConfigError, StorageError
from sparkle_sim.trace import Entry

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FILE = "trace.mpk.zst"
FORMAT, VERSION = "sparkle-sim trace", 1
LEVEL = 1  # it must keep up with the run
WAITING_BYTES = 1 << 20  # what is kept before it is compressed and written
_READ_BYTES = 1 << 18
_MAX_ENTRY_BYTES = 1 << 20


class TraceWriter:
    """Takes entries: ``Trace(writer.write)``. Use as context manager; what was taken is on disk afterwards.

    Args:
        path: a new file.
        about: what run it is of; plain values.

    Raises:
        StorageError: the disk does not take it.
    """

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self._path = path
        self._encoder = msgspec.msgpack.Encoder()
        self._waiting = bytearray(self._encoder.encode({"format": FORMAT, "version": VERSION, **about}))
        self._compressor = zstd.ZstdCompressor(level=LEVEL)
        try:
            self._file = path.open("xb")
        except OSError as error:
            raise _refused(path, error) from error

    def __enter__(self) -> "TraceWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, entry: Entry) -> None:
        """One more."""
        waiting = self._waiting
        self._encoder.encode_into((entry.at_ns, entry.peer, entry.what, entry.detail), waiting, len(waiting))
        if len(waiting) >= WAITING_BYTES:
            self._pass_on(self._compressor.FLUSH_BLOCK)

    def close(self) -> None:
        """Write what waits, and the end of the stream."""
        if not self._file.closed:
            try:
                self._pass_on(self._compressor.FLUSH_FRAME)
            finally:
                self._file.close()

    def _pass_on(self, mode: Literal[1, 2]) -> None:
        packed = self._compressor.compress(bytes(self._waiting), mode)
        self._waiting.clear()
        try:
            self._file.write(packed)
            self._file.flush()
        except OSError as error:
            raise _refused(self._path, error) from error


class TraceReader:
    """The entries of a file, one after the other; its memory does not grow with the file.

    Args:
        path: the file, or the run's folder.

    Raises:
        ConfigError: there is none, or it is something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path / FILE if path.is_dir() else path
        self.complete = False  # after the last entry: whether the file has its end
        self._values = self._unpacked()
        self.about = self._about()

    def _about(self) -> dict[str, Any]:
        """What run it is of."""
        about = next(self._values, None)
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            raise ConfigError(f"{self._path} is no trace of sparkle-sim; 'sparkle-sim run --trace' writes one")
        if about.get("version") != VERSION:
            raise ConfigError(f"{self._path} was written by another version of sparkle-sim; make it anew")
        return about

    def __iter__(self) -> Iterator[Entry]:
        """What is left of the entries."""
        for value in self._values:
            yield Entry(*value)

    def _unpacked(self) -> Iterator[Any]:
        unpacker = msgpack.Unpacker(max_buffer_size=0, max_str_len=_MAX_ENTRY_BYTES)
        for piece in self._pieces():
            unpacker.feed(piece)
            try:
                yield from unpacker
            except (ValueError, msgpack.UnpackException) as error:
                raise ConfigError(f"{self._path} is damaged: {error}") from error

    def _pieces(self) -> Iterator[bytes]:
        decompressor = zstd.ZstdDecompressor()
        try:
            with self._path.open("rb") as file:
                while raw := file.read(_READ_BYTES):
                    while True:
                        yield decompressor.decompress(raw, _READ_BYTES * 4)
                        raw = b""
                        if decompressor.eof or decompressor.needs_input:
                            break
                    if decompressor.eof:
                        self.complete = True
                        return
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            raise ConfigError(f"{self._path} cannot be read: {why}; 'sparkle-sim run --trace' writes one") from error
        except zstd.ZstdError as error:
            raise ConfigError(f"{self._path} is no trace of sparkle-sim, or damaged: {error}") from error


def _refused(path: Path, error: OSError) -> StorageError:
    return StorageError(f"cannot write {path}: {(error.strerror or str(error)).lower()}")
