"""Files as arrays: what is kept mapped, and what is not."""

import mmap
from pathlib import Path

import numpy as np
import pytest

from sparkle_protocol.errors import ComputeError
from sparkle_worker.files import KEPT_BYTES, KEPT_FILES, MEMORY_BYTES, MappedFiles, WrongSize
from sparkle_worker.kernels.arrays import ArrayType

NUMBERS = ArrayType("float64", (1000,))


@pytest.fixture
def files():
    return MappedFiles(2**32)


def written(path, value):
    path.write_bytes(np.full(1000, float(value)).tobytes())
    return bytes(path)


def mapped(folder):
    """How many files of a folder are mapped into this process."""
    return sum(f"{folder}/" in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_a_file_is_mapped_once_and_for_all_units(files, tmp_path):
    path = written(tmp_path / "tile", 1)
    first = files.tile(path, NUMBERS)
    assert files.tile(path, NUMBERS) is first
    assert not first.flags.writeable
    assert mapped(tmp_path) == 1
    files.release()
    assert set(first) == {1.0}  # it is in use
    del first
    assert mapped(tmp_path) == 0


def test_another_type_or_length_is_mapped_anew(files, tmp_path):
    path = written(tmp_path / "tile", 1)
    files.tile(path, NUMBERS)
    assert files.tile(path, ArrayType("float64", (10, 100))).shape == (10, 100)
    with pytest.raises(WrongSize, match="has 8000 bytes, but float64 5 has 40"):
        files.tile(path, ArrayType("float64", (5,)))
    with (tmp_path / "tile").open("r+b") as file:
        file.truncate(40)
    with pytest.raises(WrongSize):
        files.tile(path, NUMBERS)
    assert files.tile(path, ArrayType("float64", (5,))).shape == (5,)
    files.make_room(1, 0)
    assert mapped(tmp_path) == 1


def test_no_more_files_are_kept_than_there_is_room_for(files, tmp_path):
    for number in range(3 * KEPT_FILES):
        files.make_room(2, 0)
        assert set(files.tile(written(tmp_path / str(number), number), NUMBERS)) == {float(number)}
        assert set(files.tile(bytes(tmp_path / "0"), NUMBERS)) == {0.0}
    assert mapped(tmp_path) in (KEPT_FILES - 1, KEPT_FILES)
    files.make_room(2, 2**32)  # a unit that needs all the memory
    assert mapped(tmp_path) == 0


def test_large_files_of_other_units_are_let_go_of(files, tmp_path):
    half = ArrayType("uint8", (KEPT_BYTES // 2,))
    for number in range(4):
        path = tmp_path / str(number)
        with path.open("wb") as file:
            file.truncate(half.nbytes)
        files.make_room(1, half.nbytes)
        files.tile(bytes(path), half)
    assert mapped(tmp_path) == 3  # two that are kept, and the one of this unit


def test_a_result_gets_its_blocks_before_it_is_written(files, tmp_path):
    path = tmp_path / "result"
    path.touch()
    pages = ArrayType("uint8", (64 * mmap.PAGESIZE,))
    files.result(bytes(path), pages)
    assert path.stat().st_size == pages.nbytes
    assert path.stat().st_blocks * 512 >= pages.nbytes
    with path.open("r+b") as file:  # somebody took the blocks away
        file.truncate(0)
        file.truncate(pages.nbytes)
    files.result(bytes(path), pages)[:] = 7
    assert path.stat().st_blocks * 512 >= pages.nbytes
    assert set(path.read_bytes()) == {7}


def test_a_result_in_a_new_file_is_made_in_memory_and_then_written(files, tmp_path):
    path = tmp_path / "result"
    path.touch()
    pages = ArrayType("uint8", (64 * mmap.PAGESIZE + 1,))
    for number in (7, 8):  # the second one finds the memory of the first
        path.unlink()
        path.touch()
        with files.new_result(bytes(path), pages) as new:
            assert path.stat().st_blocks * 512 >= pages.nbytes  # a full disk is noticed before anything is computed
            new.array[:] = number
            path.rename(tmp_path / "moved")  # its owner may, or remove it
            new.write()
        (tmp_path / "moved").rename(path)
        assert path.read_bytes() == bytes([number]) * pages.nbytes
    assert mapped(tmp_path) == 0
    assert files
    files.release()
    assert not files


def test_a_file_that_was_used_before_and_a_very_large_result_are_mapped(files, tmp_path):
    path = written(tmp_path / "used", 1)
    assert files.new_result(path, NUMBERS) is None
    (tmp_path / "large").touch()
    assert files.new_result(bytes(tmp_path / "large"), ArrayType("uint8", (MEMORY_BYTES + 1,))) is None


def test_tiles_and_results_of_one_file_are_two_maps(files, tmp_path):
    path = written(tmp_path / "both", 1)
    tile, result = files.tile(path, NUMBERS), files.result(path, NUMBERS)
    result[:] = 2
    assert set(tile) == {2.0}
    assert not tile.flags.writeable


@pytest.mark.parametrize(("name", "words"), [("nowhere", "there is no such file"), (".", "no ordinary file")])
def test_what_cannot_be_mapped_is_said(files, tmp_path, name, words):
    with pytest.raises(ComputeError, match=words):
        files.tile(bytes(tmp_path / name), NUMBERS)
    with pytest.raises(ComputeError):
        files.result(bytes(tmp_path / name), NUMBERS)
    with pytest.raises(ComputeError):
        files.new_result(bytes(tmp_path / name), NUMBERS)
    files.release()
    assert not files
