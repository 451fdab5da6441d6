"""Arrays as pictures."""

from typing import TYPE_CHECKING, Any

from sparkle_protocol.errors import ConfigError
from sparkle_worker.kernels.arrays import shape_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def png_of(array: "NDArray[Any]") -> bytes:
    """A PNG of an array of H x W, or H x W x C with 1 to 4 channels (grey, grey and alpha, RGB, RGBA).

    Numbers are rounded and those outside 0 to 255 become the nearer end.

    Raises:
        ConfigError: it is no picture, or holds NaN; the sentence says what to do.
    """
    import io

    import numpy as np
    from PIL import Image

    pixels = array[..., np.newaxis] if array.ndim == 2 else array
    if pixels.ndim != 3 or pixels.shape[2] not in _MODES:
        raise ConfigError(
            f"an array of {shape_text(array.shape)} is no picture (H x W or H x W x 1 to 4); write it to a .npy file"
        )
    if np.isnan(pixels).any():
        raise ConfigError("the array holds NaN, which no picture can show; write it to a .npy file")
    levels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    mode = _MODES[levels.shape[2]]
    content = io.BytesIO()
    Image.frombytes(mode, (levels.shape[1], levels.shape[0]), np.ascontiguousarray(levels).tobytes()).save(
        content, "PNG"
    )
    return content.getvalue()
