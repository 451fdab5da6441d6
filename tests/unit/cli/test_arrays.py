"""``sparkle`` with arrays, against a node that takes them: files in, files out, and what is refused before."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sparkle_p2p.api.pictures import png_of
from sparkle_p2p.cli.main import main
from sparkle_protocol.errors import ConfigError
from tests.unit.api.array_node import ArrayNode, serving

A = np.arange(6, dtype=np.float32).reshape(2, 3)
Sparkle = Callable[..., tuple[int, str, str]]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ArrayNode]:
    """A node in this process."""
    with serving(tmp_path / "home") as running:
        yield running


@pytest.fixture
def sparkle(
    node: ArrayNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Sparkle:
    """Runs a command in this process, in a folder with some files; its code, output and errors."""
    monkeypatch.setenv("SPARKLE_HOME", str(node.home))
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", A)
    np.save("b.npy", A.T)
    np.save("grey.npy", np.array([[-5.0, 0.4], [99.5, 300.0]]))
    np.save("nan.npy", np.array([[1.0, np.nan]]))

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


GEMM = ("submit", "gemm", "--input", "a=a.npy", "--input", "b=b.npy")


def test_a_product_goes_from_files_to_a_file(sparkle: Sparkle, node: ArrayNode, tmp_path: Path) -> None:
    code, out, err = sparkle(*GEMM, "--wait", "-o", "c.npy")
    assert (code, out) == (0, "")
    assert "wrote c.npy (144 B)" in err
    assert np.array_equal(np.load("c.npy"), A @ A.T)
    assert node.submitted[0].inputs == {"a": str(tmp_path / "a.npy"), "b": str(tmp_path / "b.npy")}


def test_a_result_is_described_and_fetched_later(sparkle: Sparkle, node: ArrayNode) -> None:
    job = sparkle(*GEMM)[1].strip()
    assert sparkle("wait", job)[0] == 0
    path = node.home / "results" / f"{job[:16]}.npy"
    code, out, err = sparkle("result", job)
    assert (code, out) == (0, f"float32 2 x 2, in {path}\n")
    assert f"'sparkle result {job[:12]} -o result.npy' copies it" in err
    document = json.loads(sparkle("result", job, "--json")[1])
    assert document["value"] == {"dtype": "float32", "shape": [2, 2], "path": str(path)}
    assert (document["media_type"], document["size_bytes"], document["file"]) == ("application/x-npy", 144, None)
    assert sparkle("result", job, "-o", "later.npy")[0] == 0
    assert np.array_equal(np.load("later.npy"), A @ A.T)


def test_a_single_number_is_shown(sparkle: Sparkle, node: ArrayNode) -> None:
    job = sparkle(*GEMM)[1].strip()
    node.results[job] = np.array(16.5, dtype=np.float32)
    assert sparkle("wait", job)[0] == 0
    code, out, err = sparkle("result", job)
    assert (code, out) == (0, f"float32 16.5, in {node.home / 'results' / job[:16]}.npy\n")
    assert "picture" not in err
    node.keeps_results = False
    assert sparkle("result", job)[1].startswith("float32 scalar, in ")


def test_a_result_can_be_piped(sparkle: Sparkle, monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr("sys.stdout", stdout)
    assert sparkle(*GEMM, "--wait", "-o", "-")[0] == 0
    assert np.array_equal(np.load(io.BytesIO(stdout.buffer.getvalue())), A @ A.T)  # type: ignore[attr-defined]


def test_an_array_becomes_a_picture_if_it_is_one(sparkle: Sparkle) -> None:
    assert sparkle("submit", "softmax", "--input", "x=grey.npy", "--wait", "-o", "out.png")[0] == 0
    with Image.open("out.png") as picture:
        assert np.asarray(picture).tolist() == [[0, 0], [100, 255]]
    code, _, err = sparkle("submit", "softmax", "--input", "x=nan.npy", "--wait", "-o", "out.png")
    assert (code, "holds NaN" in err) == (2, True)


@pytest.mark.parametrize(
    ("shape", "mode"), [((2, 3), "L"), ((2, 3, 1), "L"), ((2, 3, 2), "LA"), ((2, 3, 3), "RGB"), ((2, 3, 4), "RGBA")]
)
def test_pictures_have_one_to_four_channels(shape: tuple[int, ...], mode: str) -> None:
    levels = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    with Image.open(io.BytesIO(png_of(levels))) as picture:
        assert (picture.mode, picture.size) == (mode, (3, 2))
        assert np.array_equal(np.asarray(picture).reshape(shape), levels)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 5), (1, 2, 3, 3)])
def test_other_arrays_are_no_pictures(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="is no picture"):
        png_of(np.zeros(shape))


def test_kernels_show_their_arrays_and_how_far_off_results_may_be(sparkle: Sparkle) -> None:
    _, out, _ = sparkle("kernels")
    assert "  --input a  m x k\n  --input b  k x n\n" in out
    assert "  error: at most k u / (1 - k u)\n" in out
    gemm: dict[str, Any] = json.loads(sparkle("kernels", "--json")[1])[1]
    assert (gemm["inputs"], gemm["error"]) == ({"a": "m x k", "b": "k x n"}, "k u / (1 - k u)")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--input", "a.npy"), "write it as --input name=file"),
        (("--input", "a=a.npy", "--input", "a=b.npy"), "the input 'a' is given twice"),
        (("--input", "a=missing.npy"), "there is no file"),
        (("--input", "a=a.npy", "--wait", "-o", "c.csv"), "written as .npy or .png, not as .csv"),
        (("--input", "a=a.npy", "--wait", "-o", "missing/c.npy"), "does not exist; make it first"),
    ],
)
def test_wrong_files_are_refused_before_the_job_is_submitted(
    sparkle: Sparkle, node: ArrayNode, arguments: tuple[str, ...], expected: str
) -> None:
    code, out, err = sparkle("submit", "gemm", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert expected in err
    assert not node.submitted


def test_a_result_whose_file_is_gone_is_one_sentence(sparkle: Sparkle, node: ArrayNode) -> None:
    job = sparkle(*GEMM)[1].strip()
    sparkle("wait", job)
    node.keeps_results = False
    code, _, err = sparkle("result", job, "-o", "c.npy")
    assert (code, err.count("\n")) == (1, 1)
    assert "cannot read the result" in err
    assert not Path("c.npy").exists()
