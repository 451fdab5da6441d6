"""A node's data plane without a network: what it fetches is there or not as the test says."""

from collections.abc import Sequence
from pathlib import Path

from sparkle_p2p.blobs.store import BlobStore
from sparkle_p2p.network_key import NetworkKey
from sparkle_p2p.node.array_inputs import CutJob
from sparkle_p2p.node.data_plane import DataPlane
from sparkle_p2p.node.results import make_array_spec
from sparkle_p2p.view import SubmitRequest
from sparkle_protocol.blobs.tree import BlobId
from sparkle_protocol.errors import RemoteProtocolError, TransportError
from sparkle_protocol.facts import JobSpec
from sparkle_protocol.identity import Identity
from sparkle_protocol.ids import PeerId
from sparkle_worker.kernels.arrays import ArrayType
from sparkle_worker.kernels.registry import get_array_kernel

ME = Identity.generate()
MB = 1 << 20


class FakeBulk:
    """Gives what is in the store, and what ``others`` have; ``failures`` come first."""

    def __init__(self, store: BlobStore) -> None:
        self.store = store
        self.others: dict[bytes, bytes] = {}
        self.failures: dict[bytes, list[Exception]] = {}
        self.durable: set[bytes] = set()

    async def fetch(
        self, blob: BlobId, _peers: Sequence[PeerId], *, spare: Sequence[PeerId], size: int | None, durable: bool
    ) -> None:
        if self.failures.get(blob):
            raise self.failures[blob].pop(0)
        if blob in self.others:
            self.store.put_bytes(self.others[blob])
        if blob not in self.store:
            raise TransportError("nobody has it")
        if size is not None and self.store.size(blob) != size:
            raise RemoteProtocolError(f"it has {self.store.size(blob)} bytes")
        if durable:
            self.durable.add(blob)


class BlobBench:
    """A store of ``quota_mb`` and what is kept in it."""

    def __init__(self, folder: Path, quota_mb: int = 64, network_key: NetworkKey | None = None) -> None:
        self.store = BlobStore(folder / "blobs", quota_mb * MB)
        self.bulk = FakeBulk(self.store)
        self.plane = DataPlane(self.store, self.bulk, ME.peer_id, network_key)  # type: ignore[arg-type]
        self.plane.open.set()

    def evict(self) -> None:
        """Fill the quota, so that only what is kept stays."""
        self.store.remove(self.store.put_bytes(bytes(self.store.quota_bytes - self._kept_bytes() - MB)))

    def _kept_bytes(self) -> int:
        kept = {blob for blobs in self.plane._kept.values() for blob in blobs}
        return sum(self.store.size(blob) for blob in kept if blob in self.store)


def product_spec(inputs: Sequence[bytes], units: int = 1, n: int = 8, salt: bytes = b"") -> JobSpec:
    """A job that multiplies two matrices of n rows and columns."""
    kernel = get_array_kernel("gemm")
    params = kernel.with_arrays({}, {name: ArrayType("float32", (n, n)) for name in ("a", "b")})
    cut = CutJob(kernel, params, units, tuple(map(BlobId, inputs)), salt)
    return make_array_spec(SubmitRequest("gemm", {}), cut, ME)
