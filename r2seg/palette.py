"""The colours that labels are drawn in: declared ones, and for all others one table that colour-blind readers can read.

Used by palette pictures, reports and plots, so that a label has one colour wherever it is shown.
"""

from __future__ import annotations

from r2seg.labels import Label, Labels, Rgb, values_of

# Okabe and Ito's colours, which colour-blind readers tell apart. No greys: a palette of greys is read by its grey levels, ours by
# index.
_COLORS: tuple[Rgb, ...] = (
    (0, 158, 115),
    (230, 159, 0),
    (86, 180, 233),
    (204, 121, 167),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
)


def _palette() -> tuple[Rgb, ...]:
    """256 colours: black for background; the seven for labels 1 to 7, their darker and lighter shades; white for 255 (ignored)."""
    colors: list[Rgb] = [(0, 0, 0)]
    for index in range(254):
        lap, base = divmod(index, len(_COLORS))
        # Laps in bit-reversed order, so that shades that follow each other are far apart: 0, -.6, .3, -.3, .45, …
        shade = (int(f"{lap:06b}"[::-1], 2) / 64 * 1.2 + 0.6) % 1.2 - 0.6
        red, green, blue = (int(c * (1 + shade) if shade < 0 else c + (255 - c) * shade) for c in _COLORS[base])
        colors.append((red, green, blue))
    return (*colors, (255, 255, 255))


PALETTE = _palette()
"""Colour of each label value from 0 to 255, for labels that declare none."""


def label_colors(labels: Labels) -> dict[str, Rgb]:
    """The colour of every label: the declared one, else the one that stands for it in files, else one of `PALETTE`.

    A label without a colour gets that of its first value, or the next one that no other label has.
    """
    colors: dict[str, Rgb] = {}
    for name, label in labels.items():
        if isinstance(label, Label) and (label.color or label.rgb):
            colors[name] = label.color or label.rgb[0]
    taken = set(colors.values())
    for name, label in labels.items():
        if name not in colors:
            first = values_of(label)[0]
            # 255 is white, the colour of ignored pixels, only for lack of a better one.
            order = (first, *range(1, 255), 255) if 0 < first <= 255 else (*range(1, 255), 255)
            colors[name] = next(PALETTE[value] for value in order if PALETTE[value] not in taken)
            taken.add(colors[name])
    return {name: colors[name] for name in labels}


def drawn_colors(labels: Labels) -> dict[str, Rgb]:
    """The colour of every label on pages and plots: `label_colors`, but not white, which a page or a bright picture would hide.

    A mask of 0/255 is written white, and that label is drawn in the first free colour of `PALETTE`. A declared colour holds.
    """
    colors = label_colors(labels)
    taken = set(colors.values())
    for name, label in labels.items():
        if colors[name] == PALETTE[255] and not (isinstance(label, Label) and (label.color or label.rgb)):
            colors[name] = next(color for color in PALETTE[1:] if color not in taken)
            taken.add(colors[name])
    return colors


def palette_color(value: int, color: Rgb) -> Rgb:
    """The colour of a label value as a palette picture holds it: greys are moved by one step of blue, but white of 255.

    A palette whose colours are all grey is read by its grey levels, as tools write masks that way; ours is read by index.
    """
    red, green, blue = color
    if color == PALETTE[value]:
        return color
    return (red, green, blue - 1 if blue else 1) if red == green == blue else color
