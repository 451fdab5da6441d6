"""conv2d with NumPy: windows laid out as the rows of a matrix (im2col), times the filters."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparkle_worker.checks.projection import Product
from sparkle_worker.kernels.base import Progress
from sparkle_worker.kernels.conv2d_shape import BLOCK_ELEMENTS, Shape

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def convolve(
    shape: Shape, image: "NDArray[Any]", weights: "NDArray[Any]", out: "NDArray[Any]", progress: Progress
) -> None:
    """``image`` by ``weights`` into ``out``, a block of rows at a time."""
    import numpy as np

    rows = min(shape.rows, max(1, BLOCK_ELEMENTS // shape.row_elements))
    room = np.empty(
        (rows if shape.filters else 0, shape.columns_out, shape.filter_height, shape.row_span), shape.dtype
    )
    with np.errstate(all="ignore"):
        for place in range(shape.images):
            padded = padded_image(shape, image[place], shape.dtype)
            for first in range(0, shape.rows, rows):
                end = min(first + rows, shape.rows)
                if shape.filters:
                    _by_matrix(shape, padded, weights, first, out[place, first:end], room)
                else:
                    _by_weight(shape, padded, weights, first, out[place, first:end])
                progress((place + end / shape.rows) / shape.images)


def padded_image(shape: Shape, image: "NDArray[Any]", dtype: str) -> "NDArray[Any]":
    """One image of a tile in the type that is computed with, with what is added around it."""
    import numpy as np

    height = shape.top + shape.height + shape.bottom
    if height == shape.height and not shape.side and image.dtype == dtype:
        return image
    if shape.border == "edge":
        around = ((shape.top, shape.bottom), (shape.side, shape.side), (0, 0))
        return np.pad(image.astype(dtype, copy=False), around, mode="edge")
    padded = np.zeros((height, shape.width + 2 * shape.side, shape.channels), dtype=dtype)
    padded[shape.top : shape.top + shape.height, shape.side : shape.side + shape.width] = image
    return padded


def _shifted(shape: Shape, padded: "NDArray[Any]", first: int, rows: int, i: int, j: int) -> "NDArray[Any]":
    """The pixels that the weight (i, j) meets in some rows of the result."""
    s = shape.stride
    top = first * s + i
    return padded[top : top + (rows - 1) * s + 1 : s, j : j + (shape.columns_out - 1) * s + 1 : s]


def _by_matrix(
    shape: Shape,
    padded: "NDArray[Any]",
    weights: "NDArray[Any]",
    first: int,
    out: "NDArray[Any]",
    room: "NDArray[Any]",
) -> None:
    """Some rows of the result, all filters at once; ``room`` is for their windows."""
    import numpy as np

    rows, high, wide = len(out), shape.filter_height, shape.filter_width
    windows: NDArray[Any]
    if high == wide == shape.stride == 1:
        windows = padded[first : first + rows]
    else:
        # A row of a window follows itself in memory, so it is copied as one piece.
        down, right, _ = padded.strides
        view = np.lib.stride_tricks.as_strided(
            padded[first * shape.stride :],
            (rows, shape.columns_out, high, wide * shape.channels),
            (down * shape.stride, right * shape.stride, down, padded.itemsize),
            writeable=False,
        )
        windows = room[:rows]
        np.copyto(windows, view)
    np.matmul(windows.reshape(-1, shape.inner), weights.reshape(shape.inner, -1), out=out.reshape(-1, shape.filters))


def _by_weight(
    shape: Shape, padded: "NDArray[Any]", weights: "NDArray[Any]", first: int, out: "NDArray[Any]"
) -> None:
    """Some rows of the result, one filter for every channel."""
    import numpy as np

    term = np.empty_like(out)
    for place, weight in enumerate(weights.ravel()):
        pixels = _shifted(shape, padded, first, len(out), *divmod(place, shape.filter_width))
        np.multiply(pixels, weight, out=term if place else out)
        if place:
            out += term


def windows_product(shape: Shape, image: "NDArray[Any]", weights: "NDArray[Any]") -> Product:
    """The unit as a matrix product: a row for each window, or for each window and channel if there is one filter."""

    def rows(first: int, end: int, into: "NDArray[np.float64]") -> None:
        import numpy as np

        _windows_into(shape, image, np.arange(first, end), into)

    def place(row: int, column: int) -> str:
        pixel, channel = (row, column) if shape.filters else divmod(row, shape.channels)
        line, x = divmod(pixel, shape.columns_out)
        picture, y = divmod(line, shape.rows)
        return f"channel {channel} of pixel ({y}, {x}) of image {picture}"

    total = shape.result // shape.columns
    return WindowsProduct(shape.dtype, total, weights.reshape(shape.inner, shape.columns), rows, place, shape, image)


def _windows_into(shape: Shape, image: "NDArray[Any]", rows: "NDArray[np.intp]", into: "NDArray[np.float64]") -> None:
    """Some windows in float64."""
    import numpy as np

    pixel, channel = rows, None
    if not shape.filters:
        pixel, channel = np.divmod(rows, shape.channels)
    line, x = np.divmod(pixel, shape.columns_out)
    picture, y = np.divmod(line, shape.rows)
    depth = shape.inner // (shape.filter_height * shape.filter_width)
    for i in range(shape.filter_height):
        for j in range(shape.filter_width):
            row, column = y * shape.stride + i - shape.top, x * shape.stride + j - shape.side
            inside = (row >= 0) & (row < shape.height) & (column >= 0) & (column < shape.width)
            row, column = row.clip(0, shape.height - 1), column.clip(0, shape.width - 1)
            pixels = image[picture, row, column] if channel is None else image[picture, row, column, channel][:, None]
            at = (i * shape.filter_width + j) * depth
            into[:, at : at + depth] = pixels if shape.border == "edge" else np.where(inside[:, None], pixels, 0)


@dataclass(frozen=True, slots=True)
class WindowsProduct(Product):
    """Projects without laying the windows out: pixels times projected weights first, then the shifted sums."""

    shape: Shape
    image: "NDArray[Any]"

    def picked(self, rows: "NDArray[np.intp]") -> "NDArray[np.float64]":
        """Some windows."""
        import numpy as np

        found = np.empty((len(rows), self.inner))
        _windows_into(self.shape, self.image, rows, found)
        return found

    def projected(
        self, vectors: "NDArray[np.float64]", weights: "NDArray[np.float64]", scratch: "NDArray[np.float64]"
    ) -> "Iterator[tuple[int, int, NDArray[np.float64], NDArray[np.float64]]]":
        """By blocks of rows of the result."""
        import numpy as np

        shape, rounds = self.shape, vectors.shape[1]
        wide = shape.width + 2 * shape.side
        each = wide * max(shape.channels, shape.filter_width * rounds * (1 if shape.filters else shape.channels))
        rows = max(1, BLOCK_ELEMENTS // (2 * each))
        done = 0
        for place in range(shape.images):
            padded = padded_image(shape, self.image[place], shape.dtype)
            for first in range(0, shape.rows, rows):
                count = min(rows, shape.rows - first)
                low = first * shape.stride
                pixels = padded[low : low + (count - 1) * shape.stride + shape.filter_height].astype(np.float64)
                sums = self._windows_times(pixels, vectors, count)
                scale = self._windows_times(np.square(pixels, out=pixels), weights[:, None], count)[:, 0]
                yield done, done + len(sums), sums, scale
                done += len(sums)

    def _windows_times(
        self, pixels: "NDArray[np.float64]", vectors: "NDArray[np.float64]", rows: int
    ) -> "NDArray[np.float64]":
        """The windows of some rows of the result, as a matrix, times vectors."""
        import numpy as np

        shape, width = self.shape, vectors.shape[1]
        s, high, across = shape.stride, shape.filter_height, shape.filter_width
        # one matrix for each row of the filter: terms x (columns of the filter · vectors)
        right = vectors.reshape(high, across, -1, width).swapaxes(1, 2).reshape(high, -1, across * width)
        depth = right.shape[1]
        total = np.zeros((rows, shape.columns_out, shape.channels // depth, width))
        for i in range(high):
            line = pixels[i : i + (rows - 1) * s + 1 : s]
            products = (line.reshape(-1, depth) @ right[i]).reshape(rows, line.shape[1], -1, across, width)
            for j in range(across):
                total += products[:, j : j + (shape.columns_out - 1) * s + 1 : s, :, j]
        return total.reshape(-1, width)
