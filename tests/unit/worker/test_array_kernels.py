"""Array kernels against NumPy and plain loops, however they are cut, and what bad input gets."""

import math
from importlib.util import find_spec

import numpy as np
import pytest

from sparkle_protocol.errors import ConfigError, LocalProtocolError, NotFound, VerificationError
from sparkle_worker.checks.check import check
from sparkle_worker.kernels import conv2d_numpy, conv2d_onnx
from sparkle_worker.kernels.arrays import ArrayType, array_type
from sparkle_worker.kernels.conv2d import picture
from sparkle_worker.kernels.conv2d_shape import Shape
from sparkle_worker.kernels.registry import ARRAY_KERNELS, KERNELS, get_array_kernel
from tests.unit.worker.array_jobs import computed, cut_job, described, inputs_of, one_unit, quiet, random, run_job

GEMM, CONV, REDUCE = ARRAY_KERNELS["gemm"], ARRAY_KERNELS["conv2d"], ARRAY_KERNELS["reduce"]
SOFTMAX, LAYERNORM, NBODY = ARRAY_KERNELS["softmax"], ARRAY_KERNELS["layernorm"], ARRAY_KERNELS["nbody"]
SEED = bytes(range(32))


EXAMPLES = {
    "gemm": ({}, {"a": random(40, 30), "b": random(30, 50)}),
    "conv2d": ({}, {"image": random(30, 20, 3), "weights": random(3, 3, 3, 5)}),
    "reduce": ({"axis": 0}, {"x": random(30, 20)}),
    "softmax": ({}, {"x": random(30, 20)}),
    "layernorm": ({}, {"x": random(30, 20)}),
    "nbody": ({"steps": 20}, {"state": random(3, 5, 7, dtype="float64")}),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("units", [1, 2, 6, 35, 64])
def test_a_product_is_numpys_however_it_is_cut(units, dtype):
    a, b = random(70, 33, dtype=dtype), random(33, 64, dtype=dtype)
    c = run_job(GEMM, {}, {"a": a, "b": b}, units)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    assert c.dtype == dtype
    assert np.abs(c - exact).max() < 50 * np.finfo(dtype).eps * math.sqrt(33)


def test_grids_are_nearly_square_and_move_little():
    params = described(GEMM, {}, {"a": np.empty((4096, 4096), "f4"), "b": np.empty((4096, 4096), "f4")})
    units = GEMM.default_units(params)
    assert units == 16
    assert len({GEMM.unit_inputs(params, units, index) for index in range(units)}) == 16
    assert {place for index in range(units) for place in GEMM.unit_inputs(params, units, index)} == set(range(8))
    assert GEMM.unit(params, units, 0) == {"m": 1024, "k": 4096, "n": 1024, "dtype": "float32"}


def test_a_number_of_units_that_makes_no_grid_is_refused_with_one_that_does():
    params = described(GEMM, {}, {"a": random(6, 4), "b": random(4, 6)})
    with pytest.raises(ConfigError, match=r"6 x 6 cannot be cut into 35 units; 30 would do"):
        GEMM.unit(params, 35, 0)
    with pytest.raises(ConfigError, match="1 to 36 units"):
        GEMM.unit(params, 37, 0)


@pytest.mark.parametrize("name", ARRAY_KERNELS)
def test_units_fit_the_memory_that_is_asked_for_or_the_job_is_refused(name):
    kernel = ARRAY_KERNELS[name]
    big = {
        "gemm": {"a": ArrayType("float32", (20000, 20000)), "b": ArrayType("float32", (20000, 20000))},
        "conv2d": {"image": ArrayType("uint8", (20000, 20000, 3)), "weights": ArrayType("float64", (5, 5))},
        "reduce": {"x": ArrayType("float64", (20000, 20000))},
        "softmax": {"x": ArrayType("float32", (20000, 20000))},
        "layernorm": {"x": ArrayType("float32", (20000, 20000))},
        "nbody": {"state": ArrayType("float64", (900, 30000, 7))},
    }[name]
    params = kernel.with_arrays({}, big)
    for memory in (2**30, 2**28, 2**27):
        units = kernel.least_units(params, memory)
        for index in {0, 1 % units, units // 2, units - 1}:
            assert kernel.cost(kernel.unit(params, units, index)).memory_bytes <= memory
    assert kernel.cost(kernel.unit(params, kernel.default_units(params), 0)).memory_bytes < 2**30
    with pytest.raises(ConfigError, match=r"needs \d+ MB, but no worker allows more than 0 MB"):
        kernel.least_units(params, 1000)


def direct_convolution(image, weights, stride, pad, border="zeros"):
    """Loops, in float64: image N x H x W x C, weights h x w x C x F."""
    around = ((0, 0), (pad[0], pad[0]), (pad[1], pad[1]), (0, 0))
    image = np.pad(image.astype(np.float64), around, mode="edge" if border == "edge" else "constant")
    high, wide = weights.shape[:2]
    rows, columns = (image.shape[1] - high) // stride + 1, (image.shape[2] - wide) // stride + 1
    out = np.zeros((len(image), rows, columns, weights.shape[3]))
    for y in range(rows):
        for x in range(columns):
            window = image[:, y * stride : y * stride + high, x * stride : x * stride + wide]
            out[:, y, x] = np.einsum("nijc,ijcf->nf", window, weights.astype(np.float64))
    return out


@pytest.mark.parametrize(
    ("image", "weights", "stride", "padding", "units"),
    [
        ((1, 13, 11, 3), (3, 3, 3, 4), 1, "same", 5),
        ((1, 13, 11, 3), (3, 3, 3, 4), 2, "same", 7),
        ((3, 9, 8, 2), (1, 1, 2, 6), 1, "same", 3),
        ((3, 9, 8, 2), (2, 4, 2, 1), 1, 1, 6),
        ((2, 9, 8, 2), (4, 2, 2, 3), 3, "0", 2),
        ((1, 5, 5, 1), (5, 5, 1, 2), 1, "same", 5),
        ((1, 2, 2, 1), (5, 5, 1, 2), 1, 4, 6),
        ((4, 6, 6, 1), (3, 3, 1, 1), 1, 0, 16),
    ],
)
@pytest.mark.parametrize("border", ["zeros", "edge"])
def test_a_convolution_is_what_loops_give_however_it_is_cut(image, weights, stride, padding, units, border):
    x, w = random(*image), random(*weights, seed=2)
    pad = (weights[0] // 2, weights[1] // 2) if padding == "same" else (int(padding), int(padding))
    expected = direct_convolution(x, w, stride, pad, border)

    def right(unit, tiles, result):
        check(CONV, unit, tiles, result, SEED)

    params = {"stride": stride, "padding": padding, "border": border}
    for count in {1, units}:
        out = run_job(CONV, params, {"image": x, "weights": w}, count, right)
        assert out.shape == expected.shape
        assert np.abs(out - expected).max() < 1e-4


@pytest.mark.parametrize("shape", [(17, 13), (17, 13, 3), (2, 17, 13, 3)], ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_one_filter_goes_over_every_channel_of_a_picture(shape, dtype):
    image = (np.random.default_rng(3).random(shape) * 255).astype(dtype)
    blur = np.full((3, 3), 1 / 9)
    out = run_job(CONV, {}, {"image": image, "weights": blur}, 2, lambda *unit: check(CONV, *unit, SEED))
    assert out.shape == shape
    assert out.dtype == ("float64" if dtype == "float64" else "float32")
    whole = image.reshape(-1, 17, 13, 1) if len(shape) == 2 else np.atleast_3d(image).reshape(-1, 17, 13, 3)
    expected = np.concatenate(
        [direct_convolution(whole[..., c : c + 1], blur[..., None, None], 1, (1, 1)) for c in range(whole.shape[-1])],
        axis=-1,
    )
    assert np.abs(out.reshape(expected.shape) - expected).max() < 1e-3
    assert picture(out).dtype == np.uint8


BACKENDS = {"numpy": conv2d_numpy} | ({"onnxruntime": conv2d_onnx} if find_spec("onnxruntime") else {})


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("high", "wide", "stride", "padding"), [(3, 3, 1, "same"), (2, 5, 2, 1), (1, 1, 1, 0)])
@pytest.mark.parametrize("border", ["zeros", "edge"])
def test_every_backend_gives_the_same_convolution(backend, high, wide, stride, padding, border):
    image, weights = random(2, 15, 14, 8), random(high, wide, 8, 16, seed=2)
    for units in (1, 4):

        def right(unit, tiles, result):
            BACKENDS[backend].convolve(Shape.of(unit), *tiles, result, quiet)
            check(CONV, unit, tiles, result, SEED)
            wrong = result.copy()
            wrong[0, 1, 2, 3] += 0.01
            with pytest.raises(VerificationError, match=r"channel 3 of pixel \(1, 2\) of image 0"):
                check(CONV, unit, tiles, wrong, SEED)

        params = {"stride": stride, "padding": padding, "border": border}
        run_job(CONV, params, {"image": image, "weights": weights}, units, right)


def test_a_model_for_onnxruntime_is_the_protocol_buffer_that_it_should_be():
    unit, tiles, _ = one_unit(CONV, {}, image=random(2, 2, 1), weights=np.full((1, 1, 1, 1), 0.5))
    made = conv2d_onnx.model(Shape.of(unit), tiles[1])
    assert made[:3] == b"\x08\x08\x3a"  # ir_version 8, then the graph
    assert made.endswith(b"\x42\x04\x0a\x00\x10\x0d")  # the standard operators, version 13
    assert made.count(b"Transpose") == 2
    assert np.float32(0.5).tobytes() in made


def test_a_blurred_even_picture_is_the_same_up_to_its_edge():
    image, blur = np.full((20, 30, 3), 200, np.uint8), np.full((5, 5), 0.04)
    inputs = {"image": image, "weights": blur}
    assert (picture(run_job(CONV, {"border": "edge"}, inputs, 3)) == 200).all()
    assert picture(run_job(CONV, {}, inputs, 3))[0, 0, 0] == 72  # beside zeros it darkens


def test_a_picture_keeps_what_is_in_range_and_clips_the_rest():
    assert picture(np.array([-3.0, 0.4, 0.6, 254.6, 300.0, np.nan, np.inf])).tolist() == [0, 0, 1, 255, 255, 0, 255]


@pytest.mark.parametrize("op", ["sum", "mean", "max", "min"])
@pytest.mark.parametrize("axis", ["all", 0, 1, 2, -1])
@pytest.mark.parametrize("units", [1, 3, 7])
def test_a_reduction_is_numpys_however_it_is_cut(op, axis, units):
    x = random(7, 9, 8) + 3
    where = None if axis == "all" else axis
    out = run_job(REDUCE, {"op": op, "axis": axis}, {"x": x}, units, lambda *unit: check(REDUCE, *unit, SEED))
    expected = getattr(x.astype(np.float64), op)(axis=where)
    assert out.shape == expected.shape
    assert out.dtype == np.float32
    assert np.abs(out - expected).max() <= 2**-23 * np.abs(expected).max()


def test_everything_can_be_added_up_in_more_units_than_other_axes_have():
    x = random(100_000) + 1
    for units in (1, 64, 1000):
        out = run_job(REDUCE, {}, {"x": x}, units)
        assert out.shape == ()
        assert float(out) == np.float32(math.fsum(x.tolist()))


@pytest.mark.parametrize("shape", [(9,), (9, 4), (3, 4, 5), (40, 1)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax_and_layernorm_work_along_the_last_axis(shape, dtype):
    x = 5 * random(*shape, dtype=dtype)
    wide = x.astype(np.float64)
    shares = np.exp(wide - wide.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    normal = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 0.25)
    for kernel, params, expected in ((SOFTMAX, {}, shares), (LAYERNORM, {"epsilon": "0.25"}, normal)):
        rows = math.prod(shape[:-1])
        for units in {1, min(rows, 4)}:
            out = run_job(kernel, params, {"x": x}, units, lambda *u, kernel=kernel: check(kernel, *u, SEED))
            assert out.shape == shape
            assert out.dtype == dtype
            assert np.abs(out - expected).max() < 8 * np.finfo(dtype).eps


def plain_nbody(state, steps, dt, softening):
    """The rules of worker/README.md with Python's floats."""
    bodies = [list(map(float, body)) for body in state]
    count = len(bodies)

    def pull():
        total = [[0.0, 0.0, 0.0] for _ in range(count)]
        for j in range(count):
            for i in range(count):
                d = [bodies[j][a] - bodies[i][a] for a in (1, 2, 3)]
                r2 = (d[0] * d[0] + d[1] * d[1]) + (d[2] * d[2] + softening * softening)
                cube = r2 * math.sqrt(r2)
                weight = bodies[j][0] / cube if cube != 0 else 0.0
                for a in range(3):
                    total[i][a] = total[i][a] + d[a] * weight
        return total

    force, half = pull(), dt * 0.5
    for _ in range(steps):
        for i in range(count):
            for a in range(3):
                bodies[i][4 + a] += force[i][a] * half
                bodies[i][1 + a] += bodies[i][4 + a] * dt
        force = pull()
        for i in range(count):
            for a in range(3):
                bodies[i][4 + a] += force[i][a] * half
    return np.array(bodies)


@pytest.mark.parametrize(("bodies", "softening"), [(1, "0.05"), (2, "0"), (3, "0.05"), (40, "0.1")])
def test_bodies_move_to_the_bit_as_plain_floats_say(bodies, softening):
    params = {"bodies": bodies, "systems": 2, "steps": 7, "dt": "0.01", "softening": softening, "seed": 11}
    full, _, _ = cut_job(NBODY, {**params}, {}, 2)
    start = NBODY.result_type(NBODY.unit(full, 1, 0)).empty()
    whole = run_job(NBODY, params, {}, 1)
    apart = run_job(NBODY, params, {}, 2)
    from sparkle_worker.kernels.nbody import drawn_systems

    start = drawn_systems(NBODY.unit(full, 1, 0))
    expected = np.array([plain_nbody(system, 7, 0.01, float(softening)) for system in start])
    assert whole.tobytes() == apart.tobytes() == expected.tobytes()
    given = run_job(NBODY, {"steps": 7, "dt": "0.01", "softening": softening}, {"state": start}, 2)
    assert given.tobytes() == whole.tobytes()


def test_one_given_system_keeps_its_shape_and_the_energy_hardly_drifts():
    def energy(state):
        mass, position, velocity = state[:, 0], state[:, 1:4], state[:, 4:]
        apart = np.sqrt(((position[:, None] - position) ** 2).sum(axis=2) + 0.01)
        potential = -0.5 * (mass[:, None] * mass / apart)[~np.eye(len(mass), dtype=bool)].sum()
        return 0.5 * (mass * (velocity**2).sum(axis=1)).sum() + potential

    start = run_job(NBODY, {"bodies": 32, "systems": 1, "steps": 1, "softening": "0.1"}, {})[0]
    end = run_job(NBODY, {"steps": 2000, "softening": "0.1"}, {"state": start})
    assert end.shape == start.shape == (32, 7)
    assert abs(energy(end) - energy(start)) < 1e-5 * abs(energy(start))
    momentum = (end[:, :1] * end[:, 4:]).sum(axis=0) - (start[:, :1] * start[:, 4:]).sum(axis=0)
    assert np.abs(momentum).max() < 1e-15


def test_bodies_go_on_from_a_checkpoint_as_if_nothing_had_happened(monkeypatch):
    monkeypatch.setattr("sparkle_worker.kernels.nbody.CHECKPOINT_FLOPS", 23 * 8 * 8 * 10)  # every ten steps
    params = described(NBODY, {"bodies": 8, "systems": 3, "steps": 45, "seed": 5}, {})
    unit = NBODY.unit(params, 1, 0)
    out, saved, shares = NBODY.result_type(unit).empty(), [], []
    NBODY.resume_into(unit, (), out, shares.append, None, saved.append)
    assert len(saved) == 15
    assert shares == sorted(shares)
    for checkpoint in saved:
        again = NBODY.result_type(unit).empty()
        NBODY.resume_into(unit, (), again, quiet, checkpoint, lambda _: None)
        assert again.tobytes() == out.tobytes()
    for bad in (b"", saved[0][:-1], b"x" + saved[0][1:], saved[0][:8] + b"\xff" * 16 + saved[0][24:]):
        with pytest.raises(ConfigError, match="checkpoint"):
            NBODY.resume_into(unit, (), again, quiet, bad, lambda _: None)


@pytest.mark.parametrize("name", EXAMPLES)
def test_strange_layouts_and_byte_orders_make_the_same_tiles(name):
    kernel, (params, arrays) = ARRAY_KERNELS[name], EXAMPLES[name]
    plain = cut_job(kernel, params, arrays, 2)
    layouts = (
        lambda array: np.asfortranarray(array),
        lambda array: np.ascontiguousarray(array[::-1])[::-1],
        lambda array: np.ascontiguousarray(array[..., ::-1])[..., ::-1],
        lambda array: array.astype(array.dtype.newbyteorder(">")),
        lambda array: np.repeat(array, 2, axis=0)[::2],
    )
    for layout in layouts:
        assert cut_job(kernel, params, {key: layout(array) for key, array in arrays.items()}, 2) == plain


@pytest.mark.parametrize("name", EXAMPLES)
def test_inputs_may_be_files_and_results_go_into_files(name, tmp_path):
    kernel, (params, arrays) = ARRAY_KERNELS[name], EXAMPLES[name]
    mapped = {}
    for key, array in arrays.items():
        np.save(tmp_path / f"{key}.npy", array)
        mapped[key] = np.load(tmp_path / f"{key}.npy", mmap_mode="r")
    full, units, blobs = cut_job(kernel, params, mapped, 2)
    type_ = kernel.output_type(full)
    out = np.lib.format.open_memmap(tmp_path / "out.npy", "w+", type_.dtype, type_.shape)
    done = (computed(kernel, *inputs_of(kernel, full, units, index, blobs)) for index in range(units))
    kernel.assemble(full, units, done, out)
    out.flush()
    assert np.array_equal(np.load(tmp_path / "out.npy"), run_job(kernel, params, arrays, 2))


@pytest.mark.parametrize("name", EXAMPLES)
def test_tiles_are_made_one_at_a_time(name):
    kernel, (params, arrays) = ARRAY_KERNELS[name], EXAMPLES[name]
    full = described(kernel, params, arrays)
    tiles = kernel.tiles(full, 2, arrays)
    assert iter(tiles) is tiles
    first = next(tiles)
    assert first.flags.c_contiguous


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_result_that_is_missing_is_noticed(name):
    kernel, (params, arrays) = ARRAY_KERNELS[name], EXAMPLES[name]
    full, units, blobs = cut_job(kernel, params, arrays, 3 if name == "nbody" else 2)
    results = [computed(kernel, *inputs_of(kernel, full, units, index, blobs)) for index in range(units)]
    out = kernel.output_type(full).empty()
    with pytest.raises(VerificationError, match=f"the job has {units} units but {units - 1} results"):
        kernel.assemble(full, units, results[:-1], out)


@pytest.mark.parametrize("name", EXAMPLES)
def test_arrays_that_are_not_the_units_are_our_own_bug(name):
    kernel, (params, arrays) = ARRAY_KERNELS[name], EXAMPLES[name]
    unit, tiles, result = one_unit(kernel, params, **arrays)
    with pytest.raises(LocalProtocolError, match="tiles"):
        kernel.compute_into(unit, (*tiles, tiles[0]), result, quiet)
    with pytest.raises(LocalProtocolError, match="tile 0"):
        kernel.compute_into(unit, (tiles[0][:-1], *tiles[1:]), result, quiet)
    with pytest.raises(LocalProtocolError, match="result"):
        kernel.compute_into(unit, tiles, result.astype(np.complex128), quiet)
    with pytest.raises(ConfigError, match="bytes, not 3"):
        kernel.input_types(unit)[0].view(b"abc")


@pytest.mark.parametrize("name", EXAMPLES)
def test_progress_rises_to_one(name):
    kernel, (params, arrays) = ARRAY_KERNELS[name], EXAMPLES[name]
    unit, tiles, result = one_unit(kernel, params, **arrays)
    shares = []
    kernel.compute_into(unit, tiles, result, shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


BAD = {
    "object dtype": (np.array([[1, None]], dtype=object), "holds Python objects; convert it"),
    "zero size": (np.empty((3, 0), "f4"), r"is empty \(its shape is 3 x 0\)"),
    "2^31 elements": (np.broadcast_to(np.float32(1), (2**16, 2**15)), r"2147483648 elements; .* at most 2\^31 - 1"),
    "integers": (np.ones((4, 4), "i8"), r"is int64; convert it, for example with .astype\('float64'\)"),
    "half": (np.ones((4, 4), "f2"), r"is float16; convert it, for example with .astype\('float32'\)"),
    "complex": (np.ones((4, 4), "c8"), "is complex64; pass its real and imaginary parts"),
    "text": (np.array([["a"]]), "pass numbers"),
    "records": (np.zeros((2, 2), dtype=[("a", "f4")]), "holds records"),
    "masked": (np.ma.masked_array(np.ones((2, 2)), mask=True), "masked array; fill its gaps"),
    "list": ([[1.0, 2.0]], "must be a NumPy array, not a list"),
    "nine axes": (np.ones((1,) * 9), "9 dimensions; at most 8"),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("name", EXAMPLES)
def test_bad_arrays_get_one_clear_sentence(name, what):
    kernel, (params, arrays) = ARRAY_KERNELS[name], EXAMPLES[name]
    array, sentence = BAD[what]
    with pytest.raises(ConfigError, match=sentence) as raised:
        described(kernel, params, {**arrays, next(iter(kernel.inputs)): array})
    assert len(str(raised.value)) < 200
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "params", "shapes", "sentence"),
    [
        ("gemm", {}, {"a": (3, 4), "b": (5, 6)}, "cannot multiply 3 x 4 by 5 x 6: 'a' has 4 columns, 'b' has 5 rows"),
        ("gemm", {}, {"a": (3,), "b": (3, 4)}, "'a' of gemm must be a matrix, but its shape is 3"),
        ("gemm", {}, {"a": (3, 4)}, "gemm needs the input 'b'"),
        ("gemm", {}, {"a": (3, 4), "b": (4, 5), "c": (1, 1)}, "gemm has no input 'c'; it takes a, b"),
        ("gemm", {"m": 3}, {"a": (3, 4), "b": (4, 5)}, "gemm has no parameter 'm'; it takes none, only arrays"),
        ("gemm", {}, {"a": (2**16, 1), "b": (1, 2**16)}, "the result of gemm would have 65536 x 65536 elements"),
        ("conv2d", {}, {"image": (5, 5, 3), "weights": (3, 3, 1, 2)}, "has 3 channels, but its weights have 1"),
        ("conv2d", {}, {"image": (5, 5), "weights": (2, 2)}, "padding=same needs filters of odd height"),
        ("conv2d", {"padding": 3}, {"image": (5, 5), "weights": (3, 3)}, "padding=3 is as large as the filter"),
        ("conv2d", {"padding": 0}, {"image": (5, 5), "weights": (7, 7)}, "does not fit into 5 x 5 pixels"),
        ("conv2d", {"padding": "some"}, {"image": (5, 5), "weights": (3, 3)}, "same, valid or a number"),
        ("conv2d", {"border": "mirror"}, {"image": (5, 5), "weights": (3, 3)}, "is one of zeros, edge, not 'mirror'"),
        ("conv2d", {"stride": 0}, {"image": (5, 5), "weights": (3, 3)}, "'stride' of conv2d must lie between"),
        ("conv2d", {}, {"image": (5, 5), "weights": (3,)}, "'weights' of conv2d is h x w"),
        ("reduce", {"axis": 2}, {"x": (5, 5)}, "has 2 axes .5 x 5., so no axis 2"),
        ("reduce", {"op": "median"}, {"x": (5, 5)}, "'op' of reduce is one of sum, mean, max, min"),
        ("layernorm", {"epsilon": -1}, {"x": (5, 5)}, "'epsilon' of layernorm must lie between 0 and 1"),
        ("nbody", {}, {"state": (5, 6)}, "must be systems x bodies x 7 or bodies x 7"),
        ("nbody", {"bodies": 4}, {"state": (5, 7)}, "has 5 bodies, so leave out the parameter 'bodies'"),
        ("nbody", {"given": 3}, {}, "nbody has no parameter 'given'"),
    ],
)
def test_inputs_that_do_not_fit_get_one_clear_sentence(name, params, shapes, sentence):
    dtype = "float64" if name == "nbody" else "float32"
    with pytest.raises(ConfigError, match=sentence):
        ARRAY_KERNELS[name].with_arrays(params, {key: ArrayType(dtype, shape) for key, shape in shapes.items()})


def test_two_types_of_float_are_not_mixed_silently():
    with pytest.raises(ConfigError, match="'a' of gemm is float32 and 'b' is float64; convert one of them"):
        described(GEMM, {}, {"a": random(2, 2), "b": random(2, 2, dtype="float64")})


def test_kernels_are_found_by_name_and_version():
    assert get_array_kernel("gemm", 1) is GEMM
    with pytest.raises(NotFound, match="did you mean gemm"):
        get_array_kernel("gem")
    with pytest.raises(NotFound, match="in version 1, not 2"):
        get_array_kernel("gemm", 2)
    assert not set(KERNELS) & set(ARRAY_KERNELS)


def test_an_array_type_knows_its_length_and_its_name():
    assert array_type("x", np.zeros((2, 3), ">f8")) == ArrayType("float64", (2, 3))
    assert ArrayType("float64", (2, 3)).nbytes == 48
    assert str(ArrayType("float32", (2, 3))) == "float32 2 x 3"
    assert str(ArrayType("float32", ())) == "float32 scalar"
