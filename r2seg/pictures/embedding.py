"""Pictures inside a page: data: addresses, so that one file holds everything."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np


def jpeg(pixels: np.ndarray, size: tuple[int, int], quality: int) -> str:
    """A picture as the data: address of a JPEG.

    Args:
        pixels: Grey or colour.
        size: Rows and columns of the JPEG.
        quality: Of the JPEG, 1 to 95.

    Shape: (rows, columns, 1 or 3) uint8.
    """
    from PIL import Image as Picture

    picture = Picture.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    picture = picture.resize(size[::-1], Picture.Resampling.BILINEAR, reducing_gap=2)
    return _address(picture, "jpeg", quality=quality)


def stencil(indices: np.ndarray, colours: list[str], size: tuple[int, int] | None = None) -> str | None:
    """Coloured pixels on a transparent background as the data: address of a PNG; None where nothing is coloured.

    Args:
        indices: 0 is transparent, 1 the first colour.
        colours: Such as "#E69F00".
        size: Rows and columns of the PNG; by default those of the indices.

    Shape: (rows, columns) bool or uint8.
    """
    from PIL import Image as Picture

    if not indices.any():
        return None
    picture = Picture.fromarray(indices.astype(np.uint8))
    if size is not None:
        picture = picture.resize(size[::-1], Picture.Resampling.NEAREST)
    picture.putpalette([0, 0, 0, *(byte for colour in colours for byte in bytes.fromhex(colour[1:]))])
    bits = next(bits for bits in (1, 2, 4, 8) if len(colours) < 1 << bits)
    return _address(picture, "png", transparency=0, bits=bits)


def _address(picture: Any, kind: str, **options: Any) -> str:
    stream = io.BytesIO()
    picture.save(stream, kind, optimize=True, **options)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
