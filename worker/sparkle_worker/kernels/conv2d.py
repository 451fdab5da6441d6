"""Two-dimensional convolution (cross-correlation, as in machine learning) of images by small filters.

Images have their channels last: ``height x width``, ``height x width x channels`` or ``images x height x width x
channels``. Weights of two axes are one filter that is applied to every channel by itself, as for blurring a
photograph; weights of four axes, ``height x width x channels x filters``, mix the channels.

A unit is some images, or some rows of the results of one image; its tile holds the rows that these depend on, so
tiles of neighbours overlap. The last tile of a job are the weights.
"""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sparkle_protocol.errors import ConfigError, LocalProtocolError, VerificationError
from sparkle_worker.kernels.arrays import (
    ITEM_BYTES,
    MAX_ELEMENTS,
    ArrayType,
    check_arrays,
    check_inputs,
    gamma,
    shape_text,
    supported,
    tile,
)
from sparkle_worker.kernels.base import Cost, Params, Progress, Verification
from sparkle_worker.kernels.conv2d_shape import (
    BLOCK_ELEMENTS,
    BORDERS,
    IMAGE_TYPES,
    MAX_STRIDE,
    Job,
    Shape,
    checked_unit,
    padding_text,
    result_dtype,
)
from sparkle_worker.kernels.parameters import check_names, choice, sizes, whole_number

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from sparkle_worker.checks.projection import Product

UNIT_FLOPS = 10**10
UNIT_MEMORY = 2**28
SHARED_FLOPS = 10**8
SHARED_UNITS = 16


class Conv2d:
    """``conv2d(image, weights, stride, padding)``: images by filters.

    The result is float32 for images of uint8 and float32, else float64. ``filters`` = 0 in a unit stands for one
    filter that is applied to every channel by itself.
    """

    name = "conv2d"
    version = 1
    summary = "Filters images: blurs, sharpens, finds edges, or computes a layer of a neural network."
    parameters: Mapping[str, str] = MappingProxyType(
        {
            "stride": "pixels from one window to the next, in both directions (default 1)",
            "padding": "pixels added around it: same (result as large, odd filters), or a number (default same)",
            "border": "what is added: zeros, or the pixels of the edge, as for photographs (default zeros)",
        }
    )
    inputs: Mapping[str, str] = MappingProxyType(
        {
            "image": "H x W, H x W x C or N x H x W x C (channels last), of uint8, float32 or float64",
            "weights": "h x w for every channel alike, or h x w x C x F; float32 or float64",
        }
    )
    optional_inputs: frozenset[str] = frozenset()
    verification: Verification = "algebraic"
    cost_law = "2 pixels h w C F (results' pixels, F = 1 for one filter)"
    error_law = "K u / (1 - K u) · Σ|weight · pixel| for each element, K = h w C (h w for one filter), u as for gemm"
    example = (
        "sparkle submit conv2d --input image=photo.npy --input weights=blur.npy -p border=edge --wait -o blurred.npy"
    )

    def with_arrays(self, params: Params, arrays: Mapping[str, ArrayType]) -> dict[str, Any]:
        """The user's parameters with the shapes of both inputs and the type of the image."""
        check_names(self.name, params, self.parameters)
        check_inputs(self, arrays)
        image, weights = arrays["image"], arrays["weights"]
        supported(self.name, "image", image.dtype, IMAGE_TYPES)
        supported(self.name, "weights", weights.dtype)
        shapes = {"image": shape_text(image.shape), "weights": shape_text(weights.shape)}
        for name, array, allowed in (("image", image, (2, 3, 4)), ("weights", weights, (2, 4))):
            if len(array.shape) not in allowed:
                raise ConfigError(f"'{name}' of conv2d is {self.inputs[name].partition(',')[0]}, not {shapes[name]}")
        return self.validate({**params, **shapes, "image_type": image.dtype})

    def validate(self, params: Params) -> dict[str, Any]:
        """Parameters as ``with_arrays`` made them."""
        check_names(self.name, params, (*self.parameters, "image", "weights", "image_type"))
        clean = {
            "stride": whole_number(self.name, params, "stride", 1, 1, MAX_STRIDE),
            "padding": padding_text(params.get("padding", "same")),
            "border": choice(self.name, params, "border", "zeros", BORDERS),
            "image": shape_text(sizes(self.name, params, "image", 4, MAX_ELEMENTS)),
            "weights": shape_text(sizes(self.name, params, "weights", 4, MAX_ELEMENTS)),
            "image_type": choice(self.name, params, "image_type", None, IMAGE_TYPES),
        }
        Job.of(clean)
        return clean

    def default_units(self, params: Params) -> int:
        """Units of about 10^10 operations and at most 256 MiB; 16 as long as each has 10^8."""
        job = Job.of(params)

        def fits(units: int) -> bool:
            cost = self.cost(job.largest_unit(units))
            small = cost.flops <= UNIT_FLOPS and cost.memory_bytes <= UNIT_MEMORY
            return small and (units >= SHARED_UNITS or cost.flops <= SHARED_FLOPS)

        return next((units for units in job.possible_units() if fits(units)), self.max_units(params))

    def least_units(self, params: Params, memory_bytes: int) -> int:
        """The first number of units whose tile, result and working copies fit."""
        needed = 0
        job = Job.of(params)
        for units in job.possible_units():
            needed = self.cost(job.largest_unit(units)).memory_bytes
            if needed <= memory_bytes:
                return units
        raise ConfigError(
            f"the smallest unit of this conv2d job needs {-(-needed >> 20)} MB, "
            f"but no worker allows more than {memory_bytes >> 20} MB; cut the images into several jobs"
        )

    def max_units(self, params: Params) -> int:
        """One for each row of the results, as far as a job can name the tiles."""
        return Job.of(params).most_units

    def unit(self, params: Params, units: int, index: int) -> dict[str, Any]:
        """Sizes of a tile, and what is added above, below and beside it."""
        return Job.of(params).unit(units, index)

    def cost(self, unit: Params) -> Cost:
        """A multiplication and an addition for each weight, channel and pixel of the result."""
        shape = Shape.of(unit)
        item = ITEM_BYTES[shape.dtype]
        tile_bytes, weights, result = self.input_types(unit)[0].nbytes, shape.inner * shape.columns, shape.result
        moved = tile_bytes + item * (weights + result)
        copies = 3 * shape.padded + 2 * result  # onnxruntime has both once more, in an order of its own
        memory = moved + item * (copies + 2 * BLOCK_ELEMENTS + 2 * shape.row_elements) + 2**22
        return Cost(2.0 * result * shape.inner, float(moved), memory)

    def tiles(self, params: Params, units: int, arrays: "Mapping[str, NDArray[Any]]") -> "Iterator[NDArray[Any]]":
        """Images or their rows, with what is around them; then the weights."""
        job = Job.of(params)
        image = arrays["image"].reshape(job.images, job.height, job.width, job.channels)
        for index in range(units):
            images, rows = job.piece(units, index)
            first, end, _, _ = job.inputs_of(rows)
            yield tile(image[images[0] : images[1], first:end], params["image_type"])
        yield tile(arrays["weights"].reshape(job.weights_shape), result_dtype(params["image_type"]))

    def unit_inputs(self, params: Params, units: int, index: int) -> tuple[int, ...]:
        """Its tile, and the weights."""
        Job.of(params).piece(units, index)
        return index, units

    def input_types(self, unit: Params) -> tuple[ArrayType, ...]:
        """Some rows of some images, and the weights."""
        image = tuple(unit[name] for name in ("images", "height", "width", "channels"))
        weights: tuple[int, ...] = (unit["filter_height"], unit["filter_width"])
        if unit["filters"]:
            weights = (*weights, unit["channels"], unit["filters"])
        return ArrayType(unit["image_type"], image), ArrayType(result_dtype(unit["image_type"]), weights)

    def result_type(self, unit: Params) -> ArrayType:
        """Images x rows x columns x filters (or channels)."""
        shape = Shape.of(unit)
        return ArrayType(shape.dtype, (shape.images, shape.rows, shape.columns_out, shape.depth))

    def output_type(self, params: Params) -> ArrayType:
        """As many axes as the image, and one more where a picture without channels gets filters."""
        job = Job.of(params)
        whole: tuple[int, ...] = (job.images, job.rows, job.columns, job.filters or job.channels)
        axes = len(params["image"].split(" x "))
        if axes < 4:
            whole = whole[1:]
        if axes == 2 and not job.filters:
            whole = whole[:-1]
        return ArrayType(result_dtype(params["image_type"]), whole)

    def compute_into(
        self, unit: Params, arrays: "tuple[NDArray[Any], ...]", out: "NDArray[Any]", progress: Progress
    ) -> None:
        """By onnxruntime where it is installed, else by im2col and BLAS; one filter weight by weight."""
        clean = checked_unit(unit)
        check_arrays(self, clean, arrays, out)
        from sparkle_worker.kernels import conv2d_numpy, conv2d_onnx

        shape = Shape.of(clean)
        backend = conv2d_onnx if conv2d_onnx.suits(shape) else conv2d_numpy
        backend.convolve(shape, arrays[0], arrays[1], out, progress)

    def assemble(self, params: Params, units: int, results: "Iterable[NDArray[Any]]", out: "NDArray[Any]") -> None:
        """Images and rows to their places."""
        if not out.flags.c_contiguous:
            raise LocalProtocolError("a result is assembled in C order")
        job, index = Job.of(params), -1
        whole = out.reshape(job.images, job.rows, job.columns, job.filters or job.channels)
        for index, block in enumerate(results):
            images, rows = job.piece(units, index)
            whole[images[0] : images[1], rows[0] : rows[1]] = block
        if index + 1 != units:
            raise VerificationError(f"the job has {units} units but {index + 1} results")

    def product(self, unit: Params, arrays: "tuple[NDArray[Any], ...]") -> "Product":
        """Windows times filters: the windows of the padded image are rows of a matrix that is never made."""
        from sparkle_worker.kernels.conv2d_numpy import windows_product

        return windows_product(Shape.of(unit), *arrays)

    def reference(
        self, unit: Params, arrays: "tuple[NDArray[Any], ...]", positions: "NDArray[np.intp]"
    ) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
        """Windows in float64, and γ_K times the sums of absolute values."""
        import numpy as np

        product = self.product(unit, arrays)
        rows, columns = np.divmod(positions, product.columns)
        exact, bound = np.empty(len(positions)), np.empty(len(positions))
        with np.errstate(all="ignore"):
            for at in range(0, len(positions), 256):
                some = slice(at, at + 256)
                left = product.picked(rows[some])
                right = product.b[:, columns[some]].T.astype(np.float64)
                exact[some] = np.einsum("ij,ij->i", left, right)
                bound[some] = np.einsum("ij,ij->i", np.abs(left), np.abs(right))
        factor = gamma(product.inner, product.dtype) + gamma(product.inner, "float64")
        return exact, factor * bound + product.inner * float(np.finfo(product.dtype).tiny)


def picture(result: "NDArray[Any]") -> "NDArray[np.uint8]":
    """A result as the pixels of a picture: rounded, and what is out of range black or white. NaN is black."""
    import numpy as np

    pixels: NDArray[np.uint8] = np.nan_to_num(np.clip(np.rint(result), 0, 255)).astype(np.uint8)
    return pixels
