"""A product is put together by writing rows of its blocks, and is what mapping the file would have made it."""

import os
from pathlib import Path

import numpy as np
import pytest

from sparkle_p2p.blobs.files import write_gathered
from sparkle_protocol.errors import VerificationError
from sparkle_worker.kernels.arrays import Gathering
from sparkle_worker.kernels.registry import get_array_kernel

START = 128


@pytest.mark.parametrize(
    ("m", "n", "units"), [(7, 5, 6), (9, 1, 3), (1, 9, 3), (40, 50, 1), (3, 70000, 2), (90, 80, 56)]
)
def test_gathered_blocks_are_the_assembled_product(tmp_path: Path, m: int, n: int, units: int) -> None:
    kernel = get_array_kernel("gemm")
    assert isinstance(kernel, Gathering)
    params = kernel.validate({"m": m, "k": 3, "n": n, "dtype": "float32"})
    draw = np.random.default_rng(1)
    blocks = []
    for index in range(units):
        shape = kernel.result_type(kernel.unit(params, units, index)).shape
        blocks.append(draw.standard_normal(shape, dtype=np.float32))
    whole = kernel.output_type(params).empty()
    kernel.assemble(params, units, blocks, whole)
    path = tmp_path / "result"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        write_gathered(descriptor, kernel.gather(params, units, iter(blocks)), START)
    finally:
        os.close(descriptor)
    assert path.read_bytes()[START:] == whole.tobytes()
    with pytest.raises(VerificationError):
        list(kernel.gather(params, units, blocks[:-1]))


def test_what_is_written_only_in_part_is_written_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        os, "pwritev", lambda descriptor, pieces, offset: os.pwrite(descriptor, pieces[0][:2], offset)
    )
    path = tmp_path / "result"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        write_gathered(descriptor, (memoryview(bytes([number]) * 3) for number in range(5)), 0)
    finally:
        os.close(descriptor)
    assert path.read_bytes() == bytes([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4])
