"""Pictures that Pillow reads (png, jpg, bmp, gif, ppm, pgm, pbm, also gzipped), and label maps as palette pictures."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip, isal_zlib

from r2seg.data.formats.base import File, Grid, Header, ImageError, drop_alpha, path_for_itk
from r2seg.labels import Rgb
from r2seg.palette import PALETTE, palette_color


def open_pillow(path: Path) -> Any:
    """The file as a Pillow image."""
    from PIL import Image, UnidentifiedImageError

    try:
        if path.suffix.lower() == ".gz":
            return Image.open(BytesIO(igzip.decompress(path.read_bytes())))
        return Image.open(path)
    except UnidentifiedImageError as error:
        raise ImageError(f"{path}: is not a picture, or its beginning is damaged") from error


def open_picture(path: Path) -> File:
    """A picture by its header.

    Raises:
        ImageError: It has several frames, or its colours or orientation cannot be used.
    """
    _check_png(path)
    with open_pillow(path) as picture:
        # Cameras append a preview to the picture (format MPO): it is not another frame.
        if getattr(picture, "n_frames", 1) > 1 and picture.format != "MPO":
            raise ImageError(f"{path}: has {picture.n_frames} frames; expected a single picture")
        if picture.format != "PNG" or "exif" in picture.info:  # else Pillow decodes the whole PNG to look for it
            check_upright(path, picture.getexif().get(274, 1))
        mode, (columns, rows) = picture.mode, picture.size
        fields = {key: text for key, text in picture.info.items() if isinstance(key, str) and isinstance(text, str)}
        # Of 16 bits per colour Pillow would silently drop eight.
        deep_png = picture.format == "PNG" and _png_depth(path) == 16 and mode not in ("I;16", "I")
        if mode == "RGB" and (_netpbm_maximum(picture) or 0) > 255:
            raise ImageError(
                f"{path}: has more than 8 bits per colour, which a {path.suffix} loses here; convert it to png or tif"
            )
    if mode not in ("1", "L", "I", "F", "P", "RGB", "LA", "RGBA", "PA") and not mode.startswith("I;16"):
        raise ImageError(f"{path}: has colours of kind {mode}; convert it to RGB or grey")
    num_channels = 3 if mode in ("P", "PA", "RGB", "RGBA") else 1
    return File(
        Grid(path, (rows, columns), num_channels, None),
        None,
        partial(_deep_png if deep_png else _picture, path),
        fields,
    )


def check_upright(path: Path, orientation: int) -> None:
    """Refuses a picture that asks to be turned or mirrored on display.

    Args:
        path: The picture.
        orientation: Its EXIF orientation; 0 and 1 are upright.

    Raises:
        ImageError: It asks for it.
    """
    if orientation not in (0, 1):
        raise ImageError(
            f"{path}: its EXIF orientation {orientation} asks viewers to turn or mirror it; rewrite the picture upright "
            "(`mogrify -auto-orient`), or remove the tag if its mask belongs to the stored pixels"
        )


def _check_png(path: Path) -> None:
    """Compares the parts of a PNG with their checksums; Pillow and ITK skip those of the pixels. Other files pass.

    Raises:
        ImageError: One is wrong.
    """
    with open(path, "rb") as file:
        if file.read(8) != b"\x89PNG\r\n\x1a\n":
            return
        kind = b""
        while kind != b"IEND":
            begin = file.read(8)
            length, kind = int.from_bytes(begin[:4], "big"), begin[4:]
            content = file.read(min(length, 1 << 31) + 4)
            if len(begin) < 8 or len(content) < length + 4:
                raise EOFError
            if isal_zlib.crc32(content[:-4], isal_zlib.crc32(kind)) != int.from_bytes(content[-4:], "big"):
                raise ImageError(f"{path}: its part {kind.decode('latin-1')!r} is damaged: the checksum is wrong")


def _png_depth(path: Path) -> int:
    with open(path, "rb") as file:
        return file.read(25)[24]


def _netpbm_maximum(picture: Any) -> int | None:
    """The stated maximum of a ppm or pgm if Pillow stretches the values to 255 or 65535, else None."""
    if picture.format != "PPM" or not picture.tile or picture.mode == "1":
        return None
    arguments = picture.tile[0].args
    return arguments[1] if isinstance(arguments, tuple) and len(arguments) > 1 else None


def _deep_png(path: Path, _: bool) -> tuple[np.ndarray, None]:
    import SimpleITK

    array = np.moveaxis(
        SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path_for_itk(path), imageIO="PNGImageIO")), -1, 0
    )
    return (drop_alpha(path, array) if len(array) in (2, 4) else array), None


def _picture(path: Path, indices: bool) -> tuple[np.ndarray, np.ndarray | None]:
    palette = None
    with open_pillow(path) as picture:
        if picture.mode == "P" and indices:
            palette = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3)
        elif picture.mode in ("P", "PA"):
            picture = picture.convert("RGBA" if "transparency" in picture.info or picture.mode == "PA" else "RGB")
        maximum = _netpbm_maximum(picture)
        array = np.array(picture)
        alpha = picture.mode in ("LA", "RGBA")
    if maximum is not None:
        array = np.rint(array * (maximum / (65535 if array.dtype == np.int32 else 255))).astype(array.dtype)
    array = np.moveaxis(array, -1, 0) if array.ndim == 3 else array[None]
    return (drop_alpha(path, array) if alpha else array), palette


def palette_picture(array: np.ndarray, colors: Mapping[int, Rgb]) -> Any:
    """Label values (rows, columns) uint8 as a Pillow image whose palette index is the value.

    Args:
        array: The values.
        colors: Value -> colour; other values have that of `PALETTE`.
    """
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(array))
    every = (palette_color(value, colors[value]) if value in colors else PALETTE[value] for value in range(256))
    picture.putpalette(bytes(channel for color in every for channel in color))
    return picture


def write_png(path: Path, array: np.ndarray, around: Header) -> None:
    """Writes label values (rows, columns) uint8 as palette indices."""
    from PIL.PngImagePlugin import PngInfo

    texts = PngInfo()
    for name, text in around.fields.items():
        texts.add_text(name, text)
    with open(path, "wb") as file:
        palette_picture(array, around.colors).save(file, "PNG", pnginfo=texts)
