"""Sealed blobs: what was changed, moved, left out or taken from elsewhere does not open."""

import threading
from pathlib import Path

import numpy as np
import pytest

from sparkle_p2p.blobs.arrays import pieces_of
from sparkle_p2p.blobs.sealing import PIECE_BYTES, TAG_BYTES, JobCipher, input_label, result_label, sealed_bytes
from sparkle_p2p.network_key import NetworkKey
from sparkle_p2p.node.array_inputs import cut_job
from sparkle_p2p.node.array_jobs import write_result
from sparkle_p2p.node.array_units import array_unit
from sparkle_p2p.node.memory import UnitMemory
from sparkle_p2p.node.plain_files import new_result, plain_result, plain_tiles
from sparkle_p2p.view import SubmitRequest
from sparkle_protocol.blobs.tree import CHUNK_BYTES
from sparkle_protocol.errors import ConfigError, LocalProtocolError, RemoteProtocolError
from tests.unit.node.blob_bench import MB, BlobBench, product_spec

KEY = NetworkKey(bytes(range(32)))
SALT = b"salt of this job"
LABEL = input_label(3)
CIPHER = JobCipher(KEY, SALT)
PIECE = PIECE_BYTES + TAG_BYTES


def seal(plain: bytes, cipher: JobCipher = CIPHER, label: bytes = LABEL) -> bytes:
    return b"".join(cipher.seal(label, len(plain), [plain]))


def opened(sealed: bytes, size: int, cipher: JobCipher = CIPHER, label: bytes = LABEL) -> bytes:
    return b"".join(cipher.open(label, size, len(sealed), lambda at, count: sealed[at : at + count]))


def text(size: int) -> bytes:
    return np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8).tobytes()


@pytest.mark.parametrize("size", [0, 1, 15, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
def test_what_was_sealed_opens_and_has_the_size_that_is_known_in_advance(size: int) -> None:
    plain = text(size)
    sealed = seal(plain)
    assert len(sealed) == sealed_bytes(size)
    assert opened(sealed, size) == plain
    assert size < 64 or plain[:64] not in sealed


def test_a_piece_is_a_chunk() -> None:
    assert PIECE == CHUNK_BYTES


def test_equal_content_at_an_equal_place_gives_equal_blobs_and_nowhere_else() -> None:
    """Results of honest workers stay comparable; equal tiles of a job, or of two jobs, do not show as such."""
    plain = text(1000)
    assert seal(plain) == seal(plain, JobCipher(NetworkKey(KEY.secret), SALT))
    others = [
        seal(plain, label=input_label(4)),
        seal(plain, label=result_label(3)),
        seal(plain, JobCipher(KEY, b"another salt")),
        seal(plain, JobCipher(NetworkKey(bytes(32)), SALT)),
    ]
    assert len({seal(plain), *others}) == 5


def test_nothing_that_was_touched_opens() -> None:
    plain = text(2 * PIECE_BYTES + 100)
    size, sealed = len(plain), seal(plain)
    one, two, rest = sealed[:PIECE], sealed[PIECE : 2 * PIECE], sealed[2 * PIECE :]
    foreign = seal(plain, label=input_label(9))
    flipped = bytearray(sealed)
    flipped[PIECE + 20] ^= 1
    wrong = {
        "changed": bytes(flipped),
        "swapped": two + one + rest,
        "repeated": one + one + rest,
        "truncated": sealed[:-1],
        "without the last": one + two,
        "without the first": two + rest,
        "longer": sealed + b"\0",
        "a piece of another blob of this job": one + foreign[PIECE : 2 * PIECE] + rest,
        "plain": plain + bytes(len(sealed) - size),
        "empty": b"",
    }
    for blob in wrong.values():
        with pytest.raises(RemoteProtocolError):
            opened(blob, size)
    # A shorter blob of the same beginning is not that blob, although its first pieces are alike in all else.
    shorter = seal(plain[: 2 * PIECE_BYTES])
    with pytest.raises(RemoteProtocolError):
        opened(shorter[:PIECE] + two + rest, size)
    assert opened(sealed, size) == plain


def test_another_key_job_label_or_size_does_not_open() -> None:
    plain = text(5000)
    sealed = seal(plain)
    for cipher, label in (
        (JobCipher(NetworkKey.generate(), SALT), LABEL),
        (JobCipher(KEY, b"another job"), LABEL),
        (CIPHER, input_label(2)),
        (CIPHER, result_label(3)),
    ):
        with pytest.raises(RemoteProtocolError, match="does not open"):
            opened(sealed, len(plain), cipher, label)
    with pytest.raises(RemoteProtocolError):
        opened(sealed, len(plain) - 1)
    with pytest.raises(RemoteProtocolError):
        opened(seal(b"\0"), 0)  # one byte is not no byte
    with pytest.raises(RemoteProtocolError):
        opened(seal(b""), 1)


def test_fewer_or_more_bytes_than_announced_are_a_fault_of_ours() -> None:
    for size in (9, 11):
        with pytest.raises(LocalProtocolError):
            list(CIPHER.seal(LABEL, size, [text(10)]))


def test_the_format_stays_as_it_is() -> None:
    """Other versions and implementations must open what this one seals."""
    assert seal(b"sparkle").hex() == FROZEN


FROZEN = "ecc2903f92b4aa5aa9125764e5d4390bd3c626d5e5ada8"


# --- in a node ----------------------------------------------------------------------------------------------------


@pytest.fixture
def bench(tmp_path: Path) -> BlobBench:
    return BlobBench(tmp_path, network_key=KEY)


def cut(bench: BlobBench, folder: Path, units: int = 2) -> tuple[object, np.ndarray, np.ndarray]:
    a, b = (np.random.default_rng(seed).standard_normal((64, 64), dtype=np.float32) for seed in (1, 2))
    inputs = {}
    for name, array in (("a", a), ("b", b)):
        np.save(folder / f"{name}.npy", array)
        inputs[name] = str(folder / f"{name}.npy")
    request = SubmitRequest("gemm", {}, units, inputs=inputs, sealed=True)
    return cut_job(request, bench.store, UnitMemory(64 * MB, 64 * MB), threading.Event(), lambda *_: None, KEY), a, b


async def test_a_node_computes_with_plain_files_and_keeps_only_sealed_blobs(bench: BlobBench, tmp_path: Path) -> None:
    made, a, b = cut(bench, tmp_path)
    spec = product_spec(made.inputs, 2, 64, made.salt)  # type: ignore[attr-defined]
    blobs = []
    for index in range(2):
        unit = array_unit(spec, index)
        assert [size for _, size in unit.tiles] == [bench.store.size(blob) for blob in unit.blobs]
        async with plain_tiles(bench.plane, spec, unit) as paths, new_result(bench.plane, spec, unit) as result:
            left, right = (
                np.fromfile(path, np.float32).reshape(type_.shape)
                for path, type_ in zip(paths, unit.types, strict=True)
            )
            assert all(path.stat().st_mode & 0o077 == 0 for path in (*paths, result.path))
            (left @ right).tofile(result.path)
            blobs.append(await result.publish())
            scratch = [*paths, result.path]
        assert not any(path.exists() for path in scratch)
        assert bench.store.size(blobs[-1]) == unit.result_bytes
        async with plain_result(bench.plane, spec, unit, blobs[-1]) as path:
            assert path.read_bytes() == (left @ right).tobytes()
        assert not path.exists()
    write_result(spec, blobs, bench.store, tmp_path / "results" / "c.npy", JobCipher(KEY, spec.blob_salt))
    np.testing.assert_allclose(np.load(tmp_path / "results" / "c.npy"), a @ b, rtol=1e-4, atol=1e-4)
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["c.npy"]
    stored = b"".join(path.read_bytes() for path in (tmp_path / "blobs").iterdir())
    for array in (a, b, np.load(tmp_path / "results" / "c.npy")):
        rows = {bytes(piece) for piece in pieces_of(array)} | {row.tobytes()[:32] for row in array}
        assert not any(row in stored for row in rows)


async def test_a_node_without_the_key_says_so_and_with_another_opens_nothing(
    bench: BlobBench, tmp_path: Path
) -> None:
    made, _, _ = cut(bench, tmp_path, 1)
    spec = product_spec(made.inputs, 1, 64, made.salt)  # type: ignore[attr-defined]
    unit = array_unit(spec, 0)
    bench.plane.network_key = None
    with pytest.raises(ConfigError, match="no network key"):
        async with plain_tiles(bench.plane, spec, unit):
            pass
    bench.plane.network_key = NetworkKey.generate()
    with pytest.raises(RemoteProtocolError, match="does not open"):
        async with plain_tiles(bench.plane, spec, unit):
            pass
    assert not list((tmp_path / "blobs").glob(".new-*"))
