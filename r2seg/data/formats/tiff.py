"""TIFF: one picture per file, read by tifffile, or by Pillow if its compression needs that; written as a palette picture."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path

import numpy as np

from r2seg.data.formats.base import MAX_INFLATION, File, Grid, Header, ImageError, check_complete, drop_alpha
from r2seg.data.formats.pictures import check_upright, open_pillow, palette_picture

_FAX = (2, 3, 4)  # compression of black and white


def open_tiff(path: Path) -> File:
    """A TIFF file by its header.

    Raises:
        ImageError: It holds several pictures, or its axes, colours or orientation cannot be used.
    """
    import tifffile

    with tifffile.TiffFile(path) as tif:
        series = [one for one in tif.series if not one.keyframe.is_reduced]  # a reduced page is a thumbnail
        if len(series) != 1:
            raise ImageError(
                f"{path}: has {len(series)} pictures; expected one" + ("" if series else ", the file is damaged")
            )
        page, axes, shape = series[0].keyframe, series[0].axes, series[0].shape
        if not set("YX") <= set(axes) or not set(axes) <= set("YXSC") or len(axes) > 3:
            raise ImageError(
                f"{path}: has axes {axes} {shape}; expected one picture (a stack of pages has no geometry: convert it to NIfTI)"
            )
        check_upright(path, page.tags.valueof("Orientation", 1))
        photometric = page.photometric.name
        if photometric not in ("MINISWHITE", "MINISBLACK", "RGB", "PALETTE", "YCBCR"):
            raise ImageError(f"{path}: has colours of kind {photometric}; convert it to RGB or grey")
        sizes = dict(zip(axes, shape, strict=True))
        samples = sizes.get("S", sizes.get("C", 1))
        alpha = "S" in axes and len(page.extrasamples) == 1 and int(page.extrasamples[0]) in (1, 2)
        palette = None if page.colormap is None else (np.asarray(page.colormap).T >> 8).astype(np.uint8)
        bits, dtype = page.bitspersample, page.dtype
        lines = [line.partition("=") for line in (page.description or "").splitlines() if "=" in line]
        kind = int(page.compression)
        # Before memory is taken. LZW's longest codes unpack to 2731 times their size; blank pages of fax codes have no such limit.
        most = {1: 1, 8: MAX_INFLATION, 32946: MAX_INFLATION}.get(kind, 3000)
        if kind not in _FAX:
            size = math.prod(shape) * (bits if isinstance(bits, int) else 8) // 8
            check_complete(path, path.stat().st_size * most, size, "pixels")

    def pixels(indices: bool) -> tuple[np.ndarray, np.ndarray | None]:
        try:
            array = tifffile.imread(path)
            if photometric == "MINISWHITE" and array.dtype.kind in "bu":
                array = ~array
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            # Pillow reads LZW, CCITT and JPEG, but reduces colours of 16 bits to 8.
            exact = (isinstance(bits, int) and bits <= 8) or (samples == 1 and dtype in ("u2", "i2", "i4", "f4"))
            if not exact:
                raise ImageError(
                    f"{path}: its compression cannot be read with {bits} bits per sample; save it uncompressed"
                ) from error
            with open_pillow(path) as picture:
                array = np.array(picture)
            array = array if array.dtype == bool else array.astype(dtype)
        array = array.reshape(shape)
        array = array[None] if array.ndim == 2 else np.moveaxis(array, axes.index("S" if "S" in axes else "C"), 0)
        if palette is None:
            return (drop_alpha(path, array) if alpha else array), None
        return (array, palette) if indices else (np.moveaxis(palette[array[0]], -1, 0), None)

    num_channels = 3 if palette is not None else (samples or 1) - alpha
    return File(
        Grid(path, (sizes["Y"], sizes["X"]), num_channels, None), None, pixels, {name: text for name, _, text in lines}
    )


def write_tiff(path: Path, array: np.ndarray, around: Header) -> None:
    """Writes label values (rows, columns) uint8 as palette indices."""
    content = BytesIO()  # libtiff refuses a file whose name is not UTF-8
    # One line of its description per field.
    described = (
        {"description": "\n".join(f"{name}={text}" for name, text in around.fields.items())} if around.fields else {}
    )
    palette_picture(array, around.colors).save(content, "TIFF", compression="tiff_adobe_deflate", **described)
    path.write_bytes(content.getvalue())
