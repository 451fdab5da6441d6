"""Blobs of a simulated network: what they are called, how large they are, and which of them a node has on its disk.

Nobody looks into a blob here, so that it is its name and size. A job's spec says how many inputs there are and how
large; the unit n needs the input n modulo their number. The result of a unit of such a job may be a blob, too: then
what the worker commits to is the blob's name, by which a right result differs from a wrong one.
"""

from collections.abc import Collection

from sparkle_protocol.blobs.bitmap import Bitmap
from sparkle_protocol.blobs.tree import BlobId, Outline, chunk_count
from sparkle_protocol.errors import StorageError
from sparkle_protocol.facts import JobSpec
from sparkle_protocol.ids import HASH_BYTES, JobId, digest
from sparkle_protocol.work.blob_sizes import BlobSizes

MB = 1_000_000
MIB = 1 << 20


def input_blob(nonce: bytes, number: int) -> BlobId:
    """The name of a job's input."""
    return BlobId(digest(b"input/", nonce, number.to_bytes(4, "big")))


def input_bytes(spec: JobSpec) -> int:
    """The size of each input of a job."""
    return int(spec.params.get("input_bytes", 0))


def result_blob_bytes(spec: JobSpec) -> int:
    """The size of the blob that each result of a job names; 0: results are no names of blobs."""
    return int(spec.params.get("result_blob_bytes", 0))


def has_blobs(spec: JobSpec) -> bool:
    """Whether units of the job need blobs, or make some."""
    return bool(spec.inputs) or bool(result_blob_bytes(spec))


def unit_inputs(spec: JobSpec, unit: int) -> tuple[BlobId, ...]:
    """The inputs that a unit needs."""
    return (BlobId(spec.inputs[unit % len(spec.inputs)]),) if spec.inputs else ()


SIZES = BlobSizes(
    lambda spec: (input_bytes(spec),) * len(spec.inputs),
    lambda spec, _unit: result_blob_bytes(spec),
)


def outline_of(size: int) -> Outline:
    """What such a blob consists of, but for its hashes."""
    return Outline(size, bytes(HASH_BYTES * chunk_count(size)))


class BlobFiles:
    """The blobs on a disk: whole ones, and parts of those that are on their way.

    What nobody has pinned goes when something else needs its space, first what was not needed for longest.

    Args:
        quota_bytes: what they may take together; a part counts in full.
    """

    __slots__ = ("_parts", "_whole", "complete", "quota_bytes", "used_bytes")

    def __init__(self, quota_bytes: int) -> None:
        self.quota_bytes = quota_bytes
        self.used_bytes = 0
        self.complete: dict[JobId, None] = {}  # jobs whose results were all collected and put into one file
        self._whole: dict[BlobId, int] = {}  # sizes; what was needed last is the last
        self._parts: dict[BlobId, tuple[int, Bitmap]] = {}

    def __contains__(self, blob: BlobId) -> bool:
        return blob in self._whole

    def size(self, blob: BlobId) -> int | None:
        """Of a blob that is here; None: it is not."""
        return self._whole.get(blob)

    def use(self, blob: BlobId) -> int | None:
        """The same, and it is needed now."""
        size = self._whole.pop(blob, None)
        if size is not None:
            self._whole[blob] = size
        return size

    def part(self, blob: BlobId) -> tuple[int, Bitmap] | None:
        """Size and chunks of a blob that is here in part."""
        return self._parts.get(blob)

    def add(self, blob: BlobId, size: int, pinned: Collection[BlobId]) -> None:
        """A blob that was made here. Raises StorageError."""
        if blob not in self._whole:
            self._make_room(size, pinned)
            self._whole[blob] = size

    def begin(self, blob: BlobId, size: int, pinned: Collection[BlobId]) -> Bitmap:
        """Take a blob chunk by chunk, from where that was left off. Raises StorageError."""
        if blob not in self._parts:
            self._make_room(size, pinned)
            self._parts[blob] = size, Bitmap(chunk_count(size))
        return self._parts[blob][1]

    def finish(self, blob: BlobId) -> None:
        """All chunks of it are here."""
        size, _ = self._parts.pop(blob)
        self._whole[blob] = size

    def _make_room(self, size: int, pinned: Collection[BlobId]) -> None:
        for blob in [*self._parts, *self._whole]:
            if self.used_bytes + size <= self.quota_bytes:
                break
            if blob not in pinned:
                self._drop(blob)
        if self.used_bytes + size > self.quota_bytes:
            raise StorageError(f"{size} bytes more do not fit into the space for blobs")
        self.used_bytes += size

    def _drop(self, blob: BlobId) -> None:
        part = self._parts.pop(blob, None)
        self.used_bytes -= part[0] if part is not None else self._whole.pop(blob)
