"""conv2d with onnxruntime, where that is installed: its convolutions come nearer to the peak than im2col.

The model is one ``Conv`` node between two transpositions, since it wants channels first. It is written here as the
few bytes of protocol buffer that it takes, with the unit's weights in it, because onnxruntime rearranges what is
constant. Nothing of it comes from a job but sizes and numbers.
"""

import importlib
import importlib.util
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from sparkle_worker.kernels.base import Progress
from sparkle_worker.kernels.conv2d_numpy import padded_image
from sparkle_worker.kernels.conv2d_shape import Shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_CHANNELS = 8  # below, rearranging pixels costs more than it gains
LEAST_FLOPS = 2 * 10**9  # making a session takes a few milliseconds
_FLOAT, _INTS = 1, 7  # TensorProto.DataType, AttributeProto.AttributeType
_IR_VERSION, _OPSET = 8, 13


def suits(shape: Shape) -> bool:
    """Whether onnxruntime is here and can be expected to compute the unit faster."""
    if shape.filter_height * shape.filter_width == 1:
        return False  # a plain product, which BLAS does as well
    if shape.dtype != "float32" or min(shape.filters, shape.channels) < LEAST_CHANNELS:
        return False
    if 2 * shape.result * shape.inner < LEAST_FLOPS:
        return False
    return importlib.util.find_spec("onnxruntime") is not None


def convolve(
    shape: Shape, image: "NDArray[Any]", weights: "NDArray[Any]", out: "NDArray[Any]", progress: Progress
) -> None:
    """``image`` by ``weights`` into ``out``, image by image, on one thread."""
    onnxruntime: Any = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model(shape, weights), options, providers=["CPUExecutionProvider"])
    for place in range(shape.images):
        # Zeros around are laid out as well, so that a NaN weight meets them here too.
        (found,) = session.run(None, {"x": padded_image(shape, image[place], shape.dtype)[None]})
        out[place] = found[0]
        progress((place + 1) / shape.images)


def model(shape: Shape, weights: "NDArray[Any]") -> bytes:
    """An ONNX model of one convolution without padding, of one image with its channels last."""
    import numpy as np

    constant = np.ascontiguousarray(weights.transpose(3, 2, 0, 1), dtype="<f4")
    attributes = {
        "kernel_shape": (shape.filter_height, shape.filter_width),
        "strides": (shape.stride, shape.stride),
        "pads": (0, 0, 0, 0),
    }
    nodes = (
        _node("Transpose", ("x",), "first", perm=(0, 3, 1, 2)),
        _node("Conv", ("first", "w"), "last", **attributes),
        _node("Transpose", ("last",), "y", perm=(0, 2, 3, 1)),
    )
    height, width = shape.top + shape.height + shape.bottom, shape.width + 2 * shape.side
    tensor = b"".join(_number(1, size) for size in constant.shape)
    tensor += _number(2, _FLOAT) + _text(8, "w") + _bytes(9, constant.tobytes())
    graph = b"".join(_bytes(1, node) for node in nodes) + _text(2, "conv2d") + _bytes(5, tensor)
    graph += _bytes(11, _value("x", (1, height, width, shape.channels)))
    graph += _bytes(12, _value("y", (1, shape.rows, shape.columns_out, shape.filters)))
    return _number(1, _IR_VERSION) + _bytes(7, graph) + _bytes(8, _text(1, "") + _number(2, _OPSET))


def _node(operation: str, inputs: Iterable[str], output: str, **attributes: Iterable[int]) -> bytes:
    """A NodeProto whose attributes are all lists of integers."""
    node = b"".join(_text(1, name) for name in inputs) + _text(2, output) + _text(4, operation)
    for name, values in attributes.items():
        node += _bytes(5, _text(1, name) + b"".join(_number(8, value) for value in values) + _number(20, _INTS))
    return node


def _value(name: str, sizes: Iterable[int]) -> bytes:
    """A ValueInfoProto: the name and type of a tensor of floats."""
    shape = b"".join(_bytes(1, _number(1, size)) for size in sizes)
    return _text(1, name) + _bytes(2, _bytes(1, _number(1, _FLOAT) + _bytes(2, shape)))


def _number(field: int, value: int) -> bytes:
    """A field of the protocol buffer wire type 0."""
    return _varint(field << 3) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _bytes(field, value.encode())


def _bytes(field: int, value: bytes) -> bytes:
    """A field of wire type 2: length and contents."""
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
