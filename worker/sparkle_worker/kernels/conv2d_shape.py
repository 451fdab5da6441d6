"""Sizes of conv2d: of a job, of its units, and how one is cut into the others."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sparkle_protocol.errors import ConfigError
from sparkle_worker.kernels.arrays import FLOATS, MAX_ELEMENTS, MAX_TILES
from sparkle_worker.kernels.base import Params
from sparkle_worker.kernels.parameters import check_names, choice, show, whole_number
from sparkle_worker.kernels.splitting import check_unit, cut

MAX_FILTER = 255
MAX_STRIDE = 255
IMAGE_TYPES = ("uint8", *FLOATS)
BORDERS = ("zeros", "edge")
BLOCK_ELEMENTS = 2**18  # of windows that are laid out together: 1 MB of float32, the second-level cache

UNIT_NAMES = (
    *("images", "height", "width", "channels", "filter_height", "filter_width", "filters"),
    *("stride", "top", "bottom", "side"),
)


def result_dtype(image_type: str) -> str:
    """What is computed with: bytes become float32."""
    return "float64" if image_type == "float64" else "float32"


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a unit."""

    images: int
    height: int  # of the tile
    width: int
    channels: int
    filter_height: int
    filter_width: int
    filters: int  # 0: one, for every channel by itself
    stride: int
    top: int  # rows added above the tile
    bottom: int
    side: int  # columns added on either side
    border: str  # what is added: zeros, or the pixels of the edge
    dtype: str

    @classmethod
    def of(cls, unit: Params) -> "Shape":
        """From a unit's parameters."""
        return cls(**{name: unit[name] for name in (*UNIT_NAMES, "border")}, dtype=result_dtype(unit["image_type"]))

    @property
    def rows(self) -> int:
        """Of the result."""
        return (self.top + self.height + self.bottom - self.filter_height) // self.stride + 1

    @property
    def columns_out(self) -> int:
        """Of the result, in pixels."""
        return (self.width + 2 * self.side - self.filter_width) // self.stride + 1

    @property
    def depth(self) -> int:
        """Numbers for each pixel of the result."""
        return self.filters or self.channels

    @property
    def inner(self) -> int:
        """Terms of each number of the result."""
        return self.filter_height * self.filter_width * (self.channels if self.filters else 1)

    @property
    def columns(self) -> int:
        """Different filters."""
        return self.filters or 1

    @property
    def result(self) -> int:
        """Numbers in the result."""
        return self.images * self.rows * self.columns_out * self.depth

    @property
    def padded(self) -> int:
        """Numbers of the tile with what is added around it."""
        height = self.top + self.height + self.bottom
        return self.images * height * (self.width + 2 * self.side) * self.channels

    @property
    def row_span(self) -> int:
        """Numbers in one row of a window."""
        return self.filter_width * self.channels

    @property
    def row_elements(self) -> int:
        """Numbers that are laid out for one row of the result."""
        return self.columns_out * (self.inner if self.filters else self.channels)


@dataclass(frozen=True, slots=True)
class Job:
    """Sizes of a job."""

    images: int
    height: int
    width: int
    channels: int
    filter_height: int
    filter_width: int
    filters: int
    stride: int
    pad_rows: int
    pad_columns: int
    border: str
    image_type: str

    @classmethod
    def of(cls, params: Params) -> "Job":
        """Raises ConfigError when image, weights and padding do not fit each other."""
        image = tuple(int(size) for size in params["image"].split(" x "))
        weights = tuple(int(size) for size in params["weights"].split(" x "))
        if len(image) not in (2, 3, 4) or len(weights) not in (2, 4):
            raise ConfigError("the image of conv2d has 2, 3 or 4 axes, its weights 2 or 4")
        images = image[0] if len(image) == 4 else 1
        height, width, channels = image if len(image) == 3 else (*image, 1) if len(image) == 2 else image[1:]
        if len(weights) == 4 and weights[2] != channels:
            raise ConfigError(f"the image of conv2d has {channels} channels, but its weights have {weights[2]}")
        rows, columns = weights[:2]
        if max(rows, columns) > MAX_FILTER:
            raise ConfigError(f"a filter of conv2d has at most {MAX_FILTER} x {MAX_FILTER} weights")
        same = params["padding"] == "same"
        if same and not (rows % 2 and columns % 2):
            raise ConfigError(
                f"padding=same needs filters of odd height and width, not {rows} x {columns}; give a number of pixels"
            )
        pad_rows, pad_columns = (
            (rows // 2, columns // 2) if same else (int(params["padding"]), int(params["padding"]))
        )
        if pad_rows >= rows or pad_columns >= columns:
            raise ConfigError(f"padding={pad_rows} is as large as the filter ({rows} x {columns}); use less")
        if height + 2 * pad_rows < rows or width + 2 * pad_columns < columns:
            raise ConfigError(
                f"a filter of {rows} x {columns} does not fit into {height} x {width} pixels with this padding"
            )
        filters = weights[3] if len(weights) == 4 else 0
        job = cls(
            *(images, height, width, channels, rows, columns, filters, params["stride"], pad_rows, pad_columns),
            border=params["border"],
            image_type=params["image_type"],
        )
        if images * job.rows * job.columns * (filters or channels) > MAX_ELEMENTS:
            raise ConfigError(
                "the result of conv2d would have more than 2^31 - 1 elements; cut the images into several jobs"
            )
        return job

    @property
    def rows(self) -> int:
        """Of a result."""
        return (self.height + 2 * self.pad_rows - self.filter_height) // self.stride + 1

    @property
    def columns(self) -> int:
        """Of a result, in pixels."""
        return (self.width + 2 * self.pad_columns - self.filter_width) // self.stride + 1

    @property
    def weights_shape(self) -> tuple[int, ...]:
        """As units get them."""
        shape = (self.filter_height, self.filter_width)
        return (*shape, self.channels, self.filters) if self.filters else shape

    @property
    def most_units(self) -> int:
        """The weights are a tile as well."""
        if self.images >= MAX_TILES - 1:
            return MAX_TILES - 1
        return self.images * min(self.rows, (MAX_TILES - 1) // self.images)

    def possible_units(self) -> Iterator[int]:
        """Numbers of units into which the job can be cut, rising."""
        yield from range(1, min(self.images, MAX_TILES - 1) + 1)
        yield from range(2 * self.images, self.most_units + 1, self.images)

    def piece(self, units: int, index: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Images of a unit, and rows of their results."""
        check_unit("conv2d", units, index, self.most_units)
        if units <= self.images:
            return cut(0, self.images, units, index), (0, self.rows)
        if units % self.images:
            fewer = units - units % self.images
            raise ConfigError(
                f"a conv2d job of {self.images} images is cut into a multiple of {self.images} units, "
                f"such as {fewer}, not {units}"
            )
        image, part = divmod(index, units // self.images)
        return (image, image + 1), cut(0, self.rows, units // self.images, part)

    def inputs_of(self, rows: tuple[int, int]) -> tuple[int, int, int, int]:
        """First and end of the image's rows for these of the result, and the rows added above and below them."""
        first = rows[0] * self.stride - self.pad_rows
        end = (rows[1] - 1) * self.stride - self.pad_rows + self.filter_height
        return max(first, 0), min(end, self.height), max(-first, 0), max(end - self.height, 0)

    def unit(self, units: int, index: int) -> dict[str, Any]:
        """A unit's parameters."""
        images, rows = self.piece(units, index)
        first, end, top, bottom = self.inputs_of(rows)
        numbers: tuple[int, ...] = (images[1] - images[0], end - first, self.width, self.channels)
        numbers += (self.filter_height, self.filter_width, self.filters, self.stride, top, bottom, self.pad_columns)
        return {**dict(zip(UNIT_NAMES, numbers, strict=True)), "border": self.border, "image_type": self.image_type}

    def largest_unit(self, units: int) -> dict[str, Any]:
        """A unit that takes at least as much memory as any of so many."""
        last = self.unit(units, units - 1)  # has as many rows as any; within the image what is added would be pixels
        height = min(self.height, last["height"] + last["bottom"])
        return {**last, "height": height, "bottom": last["bottom"] - height + last["height"]}


def padding_text(value: Any) -> str:
    """``same`` or a number of pixels, as text."""
    if value == "same" or (type(value) is str and value == "valid"):
        return "same" if value == "same" else "0"
    if type(value) is str and not value.strip().isdigit():
        raise ConfigError(f"'padding' of conv2d is same, valid or a number of pixels, not {show(value)}")
    return str(whole_number("conv2d", {"padding": value}, "padding", None, 0, MAX_FILTER))


def checked_unit(unit: Params) -> dict[str, Any]:
    """A unit's parameters as they came from ``unit``; anything else is refused.

    Raises:
        ConfigError: a name, type or range is wrong.
    """
    name = "a conv2d unit"
    check_names(name, unit, (*UNIT_NAMES, "border", "image_type"))
    lowest = {"filters": 0, "top": 0, "bottom": 0, "side": 0}
    highest = {"stride": MAX_STRIDE, "top": MAX_FILTER, "bottom": MAX_FILTER, "side": MAX_FILTER}
    highest |= {"filter_height": MAX_FILTER, "filter_width": MAX_FILTER}
    clean: dict[str, Any] = {
        key: whole_number(name, unit, key, None, lowest.get(key, 1), highest.get(key, MAX_ELEMENTS))
        for key in UNIT_NAMES
    }
    clean["border"] = choice(name, unit, "border", None, BORDERS)
    clean["image_type"] = choice(name, unit, "image_type", None, IMAGE_TYPES)
    shape = Shape.of(clean)
    if shape.rows < 1 or shape.columns_out < 1 or max(shape.padded, shape.result) > 2 * MAX_ELEMENTS:
        raise ConfigError("the sizes of a conv2d unit do not fit each other")
    return clean
