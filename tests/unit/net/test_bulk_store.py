"""Blobs on disk: what is there stays, what is wrong never gets there, space is made by need."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sparkle_p2p.blobs.layout import PART
from sparkle_p2p.blobs.store import BlobStore
from sparkle_protocol.blobs.tree import CHUNK_BYTES, BlobId, Outline, hash_pieces
from sparkle_protocol.errors import (
    ConfigError,
    LocalProtocolError,
    NotFound,
    RemoteProtocolError,
    StorageError,
)

MB = 1 << 20
SIZE = 2 * MB + 7


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs", 64 * MB)


def content(seed: int, size: int = SIZE) -> bytes:
    return np.random.default_rng(seed).bytes(size)


def outline_of(data: bytes) -> Outline:
    chunks = [data[start : start + CHUNK_BYTES] for start in range(0, len(data), CHUNK_BYTES)]
    return Outline(len(data), b"".join(hash_pieces([chunk]) for chunk in chunks))


def chunk_of(data: bytes, chunk: int) -> bytes:
    return data[chunk * CHUNK_BYTES : (chunk + 1) * CHUNK_BYTES]


def receive(store: BlobStore, data: bytes, chunks: Iterator[int] | range | list[int]) -> None:
    with store.begin(outline_of(data)) as partial:
        for chunk in chunks:
            partial.write(chunk, [chunk_of(data, chunk)])


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, SIZE])
def test_what_is_put_in_comes_out_under_its_id(store: BlobStore, tmp_path: Path, size: int) -> None:
    data = content(1, size)
    (tmp_path / "file").write_bytes(data)
    blob = store.put_file(tmp_path / "file")
    assert blob == outline_of(data).id == store.put_bytes(data)
    assert blob == store.put_pieces(data[start : start + 1000] for start in range(0, size, 1000))
    assert store.size(blob) == size
    with store.open(blob) as reader:
        assert reader.view() == data
        assert reader.view().readonly
        for chunk in range(reader.outline.chunks):
            assert reader.chunk(chunk) == chunk_of(data, chunk)
    again = BlobStore(tmp_path / "blobs", 64 * MB)
    assert again.ids() == [blob]
    assert again.outline(blob) == outline_of(data)
    assert again.used_bytes == store.used_bytes


def test_files_are_for_their_owner_only(store: BlobStore) -> None:
    blob = store.put_bytes(b"private")
    assert store.path(blob).stat().st_mode & 0o777 == 0o600
    assert store.path(blob).parent.stat().st_mode & 0o777 == 0o700


def test_chunks_come_in_any_order_and_survive_a_restart(store: BlobStore, tmp_path: Path) -> None:
    data = content(2)
    receive(store, data, [2, 0])
    again = BlobStore(tmp_path / "blobs", 64 * MB)
    assert outline_of(data).id not in again
    assert again.outline(outline_of(data).id) == outline_of(data)
    with again.begin(outline_of(data)) as partial:
        assert list(partial.have) == [0, 2]
        with pytest.raises(LocalProtocolError):
            partial.finish()
        partial.write(1, [chunk_of(data, 1)[:5], chunk_of(data, 1)[5:]])
        partial.finish()
    with again.open(outline_of(data).id) as reader:
        assert reader.view() == data
    assert not list((tmp_path / "blobs").glob(f"*{PART}"))


def test_wrong_bytes_never_reach_the_disk(store: BlobStore) -> None:
    data = content(3)
    with store.begin(outline_of(data)) as partial:
        for wrong in (bytes(CHUNK_BYTES), chunk_of(data, 1), chunk_of(data, 0)[:-1], chunk_of(data, 0) + b"x", b""):
            with pytest.raises(RemoteProtocolError, match="chunk 0"):
                partial.write(0, [wrong])
        assert partial.have.count == 0


def test_after_the_machine_went_down_only_what_is_right_is_believed(tmp_path: Path) -> None:
    """A chunk whose bit reached the disk and whose bytes did not is fetched again."""
    data, folder = content(4), tmp_path / "blobs"
    receive(BlobStore(folder, 64 * MB, boot=b"1" * 16), data, [0, 1])
    part = folder / (outline_of(data).id.hex() + PART)
    with part.open("r+b") as file:
        file.seek(CHUNK_BYTES)
        file.write(bytes(4096))
    with BlobStore(folder, 64 * MB, boot=b"1" * 16).begin(outline_of(data)) as partial:
        assert list(partial.have) == [0, 1]  # in the same boot nothing can be torn: it costs no reading
    with BlobStore(folder, 64 * MB, boot=b"2" * 16).begin(outline_of(data)) as partial:
        assert list(partial.have) == [0]
    with BlobStore(folder, 64 * MB, boot=bytes(16)).begin(outline_of(data)) as partial:
        assert list(partial.have) == [0]  # where boots cannot be told apart, every time is the first


def test_a_blob_that_a_power_cut_harmed_before_it_was_synced_is_noticed(tmp_path: Path) -> None:
    data, folder = content(4), tmp_path / "blobs"
    blob = outline_of(data).id
    first = BlobStore(folder, 64 * MB, boot=b"1" * 16)
    with first.begin(outline_of(data)) as partial:
        for chunk in range(3):
            partial.write(chunk, [chunk_of(data, chunk)])
        partial.finish(durable=False)
    assert first.unsettled() == [blob]
    assert blob in BlobStore(folder, 64 * MB, boot=b"1" * 16)  # the process was killed, the machine was not
    with first.path(blob).open("r+b") as file:
        file.write(bytes(4096))
    again = BlobStore(folder, 64 * MB, boot=b"2" * 16)
    assert blob not in again
    with again.begin(outline_of(data)) as partial:
        assert list(partial.have) == [1, 2]
        partial.write(0, [chunk_of(data, 0)])
        partial.finish(durable=False)
    again.settle(blob)
    assert again.unsettled() == []
    assert blob in BlobStore(folder, 64 * MB, boot=b"3" * 16)
    with again.open(blob) as reader:
        assert reader.view() == data


def test_a_complete_blob_wins_over_what_is_left_of_its_transfer(store: BlobStore, tmp_path: Path) -> None:
    data = content(5)
    receive(store, data, [1])
    blob = store.put_bytes(data)
    assert not list((tmp_path / "blobs").glob(f"*{PART}"))
    (tmp_path / "blobs" / (blob.hex() + PART)).write_bytes(store.path(blob).read_bytes())
    again = BlobStore(tmp_path / "blobs", 64 * MB)
    assert again.ids() == [blob]
    assert again.unsettled() == []
    assert not list((tmp_path / "blobs").glob(f"*{PART}"))


@pytest.mark.parametrize("damage", ["cut", "longer", "magic", "empty"])
def test_a_damaged_file_is_no_blob(store: BlobStore, tmp_path: Path, damage: str) -> None:
    data = content(5)
    path = store.path(store.put_bytes(data))
    raw = path.read_bytes()
    damaged = {"cut": raw[:-1], "longer": raw + b"x", "magic": raw[:-32] + bytes(32), "empty": b""}[damage]
    path.write_bytes(damaged)
    again = BlobStore(tmp_path / "blobs", 64 * MB)
    assert again.ids() == []
    assert not path.exists()
    receive(again, data, range(3))


def test_what_a_killed_process_left_without_a_name_is_removed(store: BlobStore, tmp_path: Path) -> None:
    (tmp_path / "blobs" / ".new-0123").write_bytes(b"x" * 1000)
    (tmp_path / "blobs" / "notes.txt").write_text("not ours")
    again = BlobStore(tmp_path / "blobs", 64 * MB)
    assert again.used_bytes == 0
    assert [path.name for path in (tmp_path / "blobs").iterdir()] == ["notes.txt"]


# --- space -----------------------------------------------------------------------------------------------------


def test_the_least_recently_needed_is_evicted_and_a_pinned_one_never(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs", 13 * MB)
    blobs = [store.put_bytes(content(seed, 4 * MB)) for seed in range(3)]
    store.pin(blobs[0])
    store.open(blobs[1]).close()
    newest = store.put_bytes(content(9, 4 * MB))
    assert set(store.ids()) == {blobs[0], blobs[1], newest}
    assert store.used_bytes <= 13 * MB
    receive(store, content(10, 4 * MB), range(4))
    assert blobs[0] in store
    assert blobs[1] not in store
    with pytest.raises(NotFound):
        store.open(blobs[1])


def test_need_is_remembered_over_a_restart(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs", 9 * MB)
    blobs = [store.put_bytes(content(seed, 4 * MB)) for seed in range(2)]
    os.utime(store.path(blobs[1]), (1, 1))
    again = BlobStore(tmp_path / "blobs", 9 * MB)
    again.put_bytes(content(9, 4 * MB))
    assert blobs[0] in again
    assert blobs[1] not in again


def test_what_cannot_fit_is_refused_and_evicts_nothing(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs", 9 * MB)
    small, pinned = store.put_bytes(content(1, MB)), store.put_bytes(content(2, 4 * MB))
    store.pin(pinned)
    for put in (
        lambda: store.put_bytes(content(3, 6 * MB)),
        lambda: store.begin(outline_of(content(3, 6 * MB))),
    ):
        with pytest.raises(StorageError, match="raise the quota or end jobs"):
            put()
    assert set(store.ids()) == {small, pinned}
    with pytest.raises(StorageError):  # of a size that shows only as it comes
        store.put_pieces(content(seed, MB) for seed in range(10, 20))
    assert store.used_bytes < 6 * MB
    store.unpin(pinned)
    store.put_bytes(content(3, 6 * MB))


def test_a_blob_being_read_survives_its_eviction(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs", 5 * MB)
    data = content(1, 4 * MB)
    array = store.open_array(store.put_bytes(data), "<u1", (4 * MB,))
    store.put_bytes(content(2, 4 * MB))
    assert array.tobytes() == data


def test_a_blob_that_arrives_is_not_evicted_and_received_once(tmp_path: Path) -> None:
    store = BlobStore(tmp_path / "blobs", 5 * MB)
    data = content(1, 4 * MB)
    with store.begin(outline_of(data)):
        with pytest.raises(LocalProtocolError, match="already being received"):
            store.begin(outline_of(data))
        with pytest.raises(StorageError):
            store.put_bytes(content(2, 4 * MB))
    store.put_bytes(content(2, 4 * MB))  # nobody goes on with it now: it has to give way


FILLS = """
import resource, signal, sys
from pathlib import Path
from sparkle_p2p.blobs.store import BlobStore
from tests.unit.net.test_bulk_store import CHUNK_BYTES, chunk_of, content, outline_of
from sparkle_protocol.errors import StorageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
data = content(1, 5 * CHUNK_BYTES)
store = BlobStore(Path(sys.argv[1]), 1 << 30)
other = store.put_bytes(b"other")
partial = store.begin(outline_of(data))
partial.write(0, [chunk_of(data, 0)])
partial.write(1, [chunk_of(data, 1)])
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
for chunk in (2, 3):
    try:
        partial.write(chunk, [chunk_of(data, chunk)])
    except StorageError as error:
        print(error)
print(list(partial.have))
partial.close()
with store.open(other) as reader:
    print(bytes(reader.view()))
"""


def test_a_disk_that_takes_nothing_more(tmp_path: Path) -> None:
    """One sentence; what was there stays, in this process and the next; nothing else is harmed."""
    folder = tmp_path / "blobs"
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", FILLS, str(folder)], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    first, second, have, other = done.stdout.strip().splitlines()
    assert "the transfer goes on from there" in first
    assert first == second
    assert (have, other) == ("[0, 1]", "b'other'")
    data = content(1, 5 * CHUNK_BYTES)
    with BlobStore(folder, 1 << 30).begin(outline_of(data)) as partial:
        assert list(partial.have) == [0, 1]
        for chunk in (2, 3, 4):
            partial.write(chunk, [chunk_of(data, chunk)])
        partial.finish()


def test_a_full_disk_is_named(store: BlobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    data = content(1)
    with store.begin(outline_of(data)) as partial:

        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            with pytest.raises(StorageError, match="the disk is full; free some space"):
                partial.write(0, [chunk_of(data, 0)])
        assert partial.have.count == 0


def test_after_closing_nothing_is_written(store: BlobStore) -> None:
    data = content(1)
    partial = store.begin(outline_of(data))
    partial.close()
    partial.close()
    with pytest.raises(StorageError, match="has ended"):
        partial.write(0, [chunk_of(data, 0)])


# --- arrays ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "uint64", "bool", "complex64", "float16"])
def test_an_array_is_the_file(store: BlobStore, dtype: str) -> None:
    array = (np.arange(600).reshape(20, 30) % 2).astype(dtype)
    blob = store.put_array(array)
    view = store.open_array(blob, dtype, (20, 30))
    assert np.array_equal(view, array)
    assert not view.flags.writeable
    assert not view.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 1


@pytest.mark.parametrize(
    "array",
    [
        np.arange(4000.0)[::-1],
        np.arange(400_000.0).reshape(500, 800).T,
        np.arange(300, dtype=">f8").reshape(3, 100),
        np.arange(4000.0)[::3],
        np.broadcast_to(np.float32(7), (300, 1000)),
        np.zeros((0, 5)),
        np.array(3.5),
        np.array([np.nan, np.inf, -np.inf, -0.0]),
    ],
    ids=["reversed", "transposed", "big-endian", "strided", "broadcast", "empty", "scalar", "nan"],
)
def test_arrays_of_any_layout_arrive_in_c_order_and_little_endian(store: BlobStore, array: np.ndarray) -> None:
    plain = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"))
    blob = store.put_array(array)
    assert blob == store.put_bytes(plain.tobytes())
    view = store.open_array(blob, plain.dtype.str, array.shape)
    assert view.shape == array.shape
    assert view.tobytes() == plain.tobytes()


def test_what_is_no_array_of_numbers_is_refused(store: BlobStore) -> None:
    for array in (np.array([object()]), np.array(["text"]), np.array(["2026-01-01"], "datetime64[D]")):
        with pytest.raises(ConfigError, match="do not travel"):
            store.put_array(array)
    blob = store.put_bytes(bytes(64))
    for dtype, shape in [
        ("f4", (15,)),
        ("f4", (-4, -4)),
        ("f4", (4, 5)),
        ("O", (8,)),
        ("U4", (4,)),
        ("no such", (1,)),
    ]:
        with pytest.raises(ConfigError):
            store.open_array(blob, dtype, shape)


MEASURE = """
import resource, sys
from pathlib import Path
from sparkle_p2p.blobs.store import BlobStore
store = BlobStore(Path(sys.argv[1]), 1 << 30)
store.put_bytes(bytes(1 << 20))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def pieces():
    piece = bytearray(3 << 20)
    for number in range(64):
        piece[:8] = number.to_bytes(8, "big")
        yield piece
store.put_pieces(pieces())
store.put_file(Path(sys.argv[2]))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_stays_flat_while_much_is_put_in(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(128 * MB))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path / "blobs"), str(tmp_path / "file")],
        capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    assert int(done.stdout) < 24 << 10  # KiB, for 320 MiB


def test_unknown_blobs(store: BlobStore) -> None:
    unknown = BlobId(bytes(32))
    assert unknown not in store
    assert store.outline(unknown) is None
    store.remove(unknown)
    with pytest.raises(NotFound, match="is not on this node"):
        store.size(unknown)
