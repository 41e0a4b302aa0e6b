"""Makes the sample data: synthetic chest CT volumes, fundus photographs and dermoscopy pictures with their label maps.

    python sample_data/make_samples.py [FOLDER] [lung] [retina] [skin]

Everything follows from fixed seeds, so that running it again writes the same pixels. No patient is shown: anatomy is drawn
from ellipsoids, tubes and noise in patient coordinates (millimetres, RAS) and sampled on each case's own voxel grid.
"""

from __future__ import annotations

import gzip
import sys
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image
from scipy import ndimage

SEED = 20240229

# --- lung: chest CT


@dataclass(frozen=True)
class Scan:
    """How a lung case is sampled and what it shows; sizes and spacing along left-right, posterior-anterior, inferior-superior."""

    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    orientation: str
    findings: tuple[str, ...] = ()
    tilt_deg: tuple[float, float, float] = (0, 0, 0)
    codes: tuple[int, int] = (1, 1)  # qform, sform


SCANS = (
    Scan((112, 88, 28), (3.0, 3.2, 8.0), "LPS", ("nodules",)),
    Scan((108, 90, 28), (3.1, 3.0, 8.0), "RAS"),
    Scan((112, 86, 30), (3.0, 3.2, 7.5), "LAS", ("effusion",), codes=(0, 2)),
    Scan((104, 84, 26), (3.2, 3.3, 8.5), "PIR", ("contrast",)),
    Scan((116, 92, 28), (2.9, 3.0, 8.0), "LPS", ("ground_glass",), codes=(1, 0)),
    Scan((110, 88, 29), (3.0, 3.1, 7.8), "RAS", ("pleural_nodule", "emphysema")),
    Scan((112, 88, 28), (3.1, 3.1, 8.0), "LPS", ("nodules", "contrast"), tilt_deg=(7, -4, 9)),
    Scan((114, 90, 27), (2.9, 3.1, 8.2), "LAS", ("effusion", "contrast")),
    Scan((106, 86, 28), (3.2, 3.2, 8.0), "ASL", ("emphysema",)),
    Scan((112, 90, 30), (3.0, 3.0, 7.4), "LPI", ("ground_glass", "pleural_nodule")),
    Scan((110, 86, 28), (3.1, 3.2, 8.0), "RPS", ("nodules",), codes=(2, 1)),
    Scan((108, 88, 28), (3.1, 3.1, 8.0), "LPS", ("pleural_nodule", "effusion")),
)


def lung_affine(scan: Scan) -> tuple[np.ndarray, tuple[int, ...]]:
    """Affine (voxel -> RAS mm) with the volume's centre at the patient's origin, and the shape in the file's axis order."""
    from_ras = nibabel.orientations.axcodes2ornt(scan.orientation)
    ras = np.diag([*scan.spacing_mm, 1.0])
    ras[:3, 3] = -(np.array(scan.size) - 1) / 2 * scan.spacing_mm
    shape = tuple(scan.size[int(axis)] for axis in from_ras[:, 0])
    # inv_ornt_aff maps voxels of the turned array to voxels of the RAS one.
    ornt = nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt("RAS"), from_ras)
    affine = ras @ nibabel.orientations.inv_ornt_aff(ornt, scan.size)
    tilt = np.eye(4)
    for axis, degrees in enumerate(scan.tilt_deg):
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turn = np.eye(4)
        i, j = [a for a in range(3) if a != axis]
        turn[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
        tilt = turn @ tilt
    affine = tilt @ affine
    # Scanners give three decimals of position at most, and NIfTI stores float32.
    return affine.astype(np.float32).astype(np.float64), shape


def cover(depth_mm: np.ndarray, softness_mm: float = 1.2) -> np.ndarray:
    """Part of a voxel inside a surface, from its depth below it (negative outside)."""
    return 1 / (1 + np.exp(np.clip(-depth_mm / softness_mm * 1.7, -60, 60)))


def ellipse(*terms: tuple[np.ndarray, float, float | np.ndarray], power: float = 2.0) -> np.ndarray:
    """Depth in mm below a (super-)ellipsoid, given (coordinate, centre, radius) of each of its axes."""
    radius = sum(np.abs((x - centre) / r) ** power for x, centre, r in terms) ** (1 / power)
    return (1 - radius) * np.minimum.reduce([np.min(r) for _, _, r in terms])


def capsule(points: tuple[np.ndarray, ...], start: tuple, end: tuple, radius: float) -> np.ndarray:
    """Depth in mm below a tube with round ends from `start` to `end`."""
    start, axis = np.array(start, float), np.subtract(end, start).astype(float)
    relative = [p - s for p, s in zip(points, start, strict=True)]
    along = np.clip(sum(r * a for r, a in zip(relative, axis, strict=True)) / (axis @ axis), 0, 1)
    return radius - np.sqrt(sum((r - along * a) ** 2 for r, a in zip(relative, axis, strict=True)))


def both(a: np.ndarray, b: np.ndarray, round_mm: float = 6.0) -> np.ndarray:
    """Depth below the intersection of two surfaces with a rounded edge."""
    h = np.clip(0.5 + (a - b) / (2 * round_mm), 0, 1)
    return a + (b - a) * h - round_mm * h * (1 - h)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: tuple[float, ...]) -> np.ndarray:
    """Gaussian noise of unit variance with correlation length `sigma` in voxels."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap")
    return noise / noise.std()


def grow_tree(
    rng: np.random.Generator, start, direction, length: float, radius: float
) -> list[tuple[np.ndarray, np.ndarray, float, float]]:
    """Branches (from, to, radius at either end) of a vessel tree that spreads away from its start."""
    branches = []
    stack = [(np.asarray(start, float), np.asarray(direction, float), length, radius)]
    while stack:
        point, heading, length, radius = stack.pop()
        heading = heading / np.linalg.norm(heading)
        end = point + heading * length
        outward = (end - start) / np.linalg.norm(end - start)
        branches.append((point, end, radius, radius * 0.8))
        if radius < 0.7:
            continue
        for _ in range(2 if radius < 3.5 else 3):
            bent = heading + 0.25 * outward + rng.normal(0, 0.42, 3)
            stack.append((end, bent, length * rng.uniform(0.78, 0.98), radius * rng.uniform(0.68, 0.82)))
    return branches


def draw_branches(branches, affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Cover of each voxel by the branches, thin ones in proportion to their share of the voxel."""
    world_to_voxel = np.linalg.inv(affine)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    result = np.zeros(shape)
    for start, end, radius_from, radius_to in branches:
        ends = np.array([start, end]) @ world_to_voxel[:3, :3].T + world_to_voxel[:3, 3]
        margin = (max(radius_from, radius_to) + 4) / spacing
        low = np.maximum(np.floor(ends.min(0) - margin), 0).astype(int)
        high = np.minimum(np.ceil(ends.max(0) + margin) + 1, shape).astype(int)
        if (low >= high).any():
            continue
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        voxels = np.stack(np.meshgrid(*[np.arange(a, b) for a, b in zip(low, high, strict=True)], indexing="ij"), -1)
        points = voxels @ affine[:3, :3].T + affine[:3, 3]
        along = np.clip((points - start) @ (end - start) / ((end - start) @ (end - start)), 0, 1)
        distance = np.linalg.norm(points - (start + along[..., None] * (end - start)), axis=-1)
        radius = radius_from + along * (radius_to - radius_from)
        result[box] = np.maximum(result[box], cover(radius - distance, 1.6) * np.minimum(1, radius / 1.6))
    return result


def make_lung(index: int) -> tuple[np.ndarray, np.ndarray, nibabel.Nifti1Header]:
    """Case `index` as CT in Hounsfield units (int16), label map (uint8, both lungs 1), and the header both files share."""
    scan = SCANS[index]
    rng = np.random.default_rng([SEED, 1, index])
    affine, shape = lung_affine(scan)
    thick = int(np.argmax(np.linalg.norm(affine[:3, :3], axis=0)))
    # Thick slices blur what lies across them: two samples per voxel along that axis, averaged at the end.
    fine_shape = tuple(2 * n if axis == thick else n for axis, n in enumerate(shape))
    step = np.eye(4)
    step[thick, thick], step[thick, 3] = 0.5, -0.25
    fine = affine @ step
    voxels = np.indices(fine_shape, dtype=np.float64).reshape(3, -1)
    x, y, z = (fine[:3, :3] @ voxels + fine[:3, 3:]).reshape(3, *fine_shape)
    x = x + rng.uniform(-6, 6)  # nobody lies exactly in the middle
    y = y + rng.uniform(-4, 4)

    # The patient: +x right, +y front, +z head. The lungs reach from about z = -90 to 95.
    girth, depth = rng.uniform(0.92, 1.04), rng.uniform(0.93, 1.05)
    wide, deep = 150 * girth, 103 * depth
    fat_mm = rng.uniform(6, 13)
    shoulders = 1 + 0.10 * cover(z - 70, 25)
    body = ellipse((x, 0, wide * shoulders), (y, 0, deep * (1 - 0.08 * cover(z - 75, 20))), power=2.4)
    muscle = body - fat_mm * (1 + 0.25 * np.cos(2 * np.arctan2(y, x)))
    top = 95 + rng.uniform(-6, 6)
    taper = np.clip((z - 10) / (top - 6), 0, 1) ** 2.3
    chest_wide, chest_deep = (wide - 31) * (1 - 0.62 * taper), (deep - 30) * (1 - 0.50 * taper)
    middle = 4 - 14 * taper  # apices lie towards the back
    chest = ellipse((x, 0, chest_wide), (y - middle, 0, chest_deep), power=2.25)
    chest = both(chest, top - z, 14)

    hu = np.full(fine_shape, -1000.0)

    def paint(part: np.ndarray, value: float | np.ndarray) -> None:
        np.copyto(hu, hu + (value - hu) * part)

    # Couch: a curved shell below the back with a foam core.
    couch = -deep - 7 + (x / 200) ** 2 * 30
    paint(cover(2.5 - np.abs(y - couch), 1.0) * cover(190 - np.abs(x)), -350)
    paint(cover(2.0 - np.abs(y - couch + 26), 1.0) * cover(170 - np.abs(x)), -450)
    paint(cover(11 - np.abs(y - couch + 13), 1.0) * cover(180 - np.abs(x)), -930)

    paint(cover(body), -105 + 12 * smooth_noise(rng, fine_shape, (3, 3, 3)))
    paint(cover(body) * cover(1.5 - body, 1.0), 10)  # skin
    muscles = 52 + 10 * smooth_noise(rng, fine_shape, (2, 2, 2))
    paint(cover(muscle), muscles)
    # Fat between the layers of muscle, and breasts or pectoral fat in front
    layer = 5 * np.sin(3 * np.arctan2(y, x) + z / 60)
    paint(cover(1.6 - np.abs(muscle - 9 - layer), 1.2) * cover(muscle - 3) * 0.8, -90)

    # Ribs run down from the spine to the front, in the wall just outside the chest.
    wall = -chest  # mm outside
    slope = 0.42
    phase = rng.uniform(0, 1)
    rib = np.cos(2 * np.pi * ((z + slope * y) / 27 + phase))
    along_rib = cover((rib - 0.4) * 6) * cover(104 - z, 6) * cover(np.hypot(x, y - deep + 30) - 34, 4) * cover(muscle)
    paint(cover(3.9 - np.abs(wall - 5.5)) * along_rib, 450)
    paint(cover(1.6 - np.abs(wall - 5.5)) * along_rib * cover((rib - 0.65) * 6), 190)
    paint(
        cover(ellipse((np.abs(x), 112 * girth, 30), (y + 0.45 * np.abs(x), -12, 5.5), (z, 78, 48))) * cover(muscle - 3),
        300,
    )
    paint(cover(ellipse((np.abs(x), 148 * girth, 20), (y, -12, 19))) * cover(z - 72, 5) * cover(muscle - 3), 340)

    # The space between and below the lungs
    mediastinum = -70 + 15 * smooth_noise(rng, fine_shape, (2, 2, 2))
    paint(cover(chest), mediastinum)

    # Lungs: the chest without diaphragm, mediastinum, heart and spine
    breath = rng.uniform(-8, 8)
    right_dome = -52 + breath + rng.uniform(-4, 8)
    left_dome = right_dome - rng.uniform(8, 16)
    gap = 15 + 5 * rng.random() + 8 * np.exp(-(((z - 25) / 40) ** 2)) + 0.06 * np.maximum(y, 0)
    gap = gap * (1 - 0.35 * taper) + 14 * cover(z - top + 22, 8)
    heart_at = np.array([-22 + rng.uniform(-6, 4), 24 + rng.uniform(-4, 4), -28 + breath * 0.6])
    heart_size = np.array([58, 46, 52]) * rng.uniform(0.9, 1.08)
    hx, hy = x - heart_at[0], y - heart_at[1]
    c, s = np.cos(0.6), np.sin(0.6)
    heart = ellipse(
        (c * hx + s * hy, 0, heart_size[0]),
        (-s * hx + c * hy, 0, heart_size[1]),
        (z - 0.25 * hx, heart_at[2], heart_size[2]),
    )
    spine = ellipse((x, 0, 21), (y, -58 * depth, 23), power=2.6)
    aorta_at = (-24, -38 * depth)
    aorta = ellipse((x, aorta_at[0], 12.5), (y, aorta_at[1] + 3 * np.sin(z / 45), 12.5))
    aorta = both(aorta, 42 - z, 5)
    arch = capsule((x, y, z), (14, 14, 42), (-24, -38 * depth, 42), 13)
    ascending = ellipse((x, 14, 15), (y, 14, 15))
    ascending = both(both(ascending, 44 - z, 6), z + 5, 6)
    cava = both(ellipse((x, 29, 10), (y, 8, 10)), z + 10, 6)
    paint_order = [(heart, 12), (ascending, 3), (cava, 3), (aorta, 3), (arch, 3), (spine, 4)]

    lungs = []
    for side, dome in ((1, right_dome), (-1, left_dome)):
        across = side * x
        bulge = 30 * np.exp(-(((across - 62 * girth) / 52) ** 2) - ((y - 4) / 62) ** 2)
        diaphragm = dome - 26 + bulge - 22 * cover(-y - 20, 18)
        lung = both(chest - 1.5, across - gap, 9)
        lung = both(lung, z - diaphragm, 5)
        for part, margin in paint_order:
            lung = both(lung, -part - margin * 0.35, 5)
        if "effusion" in scan.findings and side == (1 if index % 2 else -1):
            level = np.minimum(-34 - 0.30 * (z + 60) + 5 * np.sin(across / 18), -20)
            lung = both(lung, y - level - 0.006 * (across - 62) ** 2, 6)
        lungs.append(lung)
    lung = np.maximum(*lungs)

    soft = 44 + 8 * smooth_noise(rng, fine_shape, (2, 2, 2))
    blood = 165 if "contrast" in scan.findings else 42
    # Below the domes: liver on the right, stomach with a gas bubble and spleen on the left
    cavity = cover(chest)
    below = cover(-(z - (right_dome + 8)), 3)
    paint(cavity * below * cover(np.minimum(np.abs(x) - 8, 400), 6), soft + (22 if "contrast" in scan.findings else 12))
    for side, dome in ((1, right_dome), (-1, left_dome)):
        across = side * x
        paint(
            cavity * cover(across - 14, 4) * cover(-lungs[(1 - side) // 2], 1.0) * cover(dome + 30 - z, 4),
            soft + (55 if "contrast" in scan.findings and side > 0 else 8),
        )
    effusion = cavity * cover(-y - 22, 6) * cover(np.abs(x) - 22, 3)
    if "effusion" in scan.findings:
        paint(effusion, 12.0)
    gas = ellipse((x, -62, 30), (y, 28, 24), (z, left_dome - 34, 20))
    paint(cover(ellipse((x, -60, 44), (y, 16, 42), (z, left_dome - 42, 32))) * cavity, 38)
    paint(cover(both(gas, y - 20, 1.5)) * cavity, -960)

    paint(cover(heart), blood + 6 * smooth_noise(rng, fine_shape, (3, 3, 3)))
    paint(cover(1.8 - np.abs(heart - 1), 1.0) * 0.7, -60 if "contrast" not in scan.findings else 60)
    for tube in (ascending, aorta, arch, cava):
        paint(cover(tube), blood + 3)

    # Vertebrae with discs, canal and spinous process
    discs = np.cos(2 * np.pi * (z / 23 + phase))
    canal_y = -86 * depth
    paint(cover(spine), np.where(discs > 0.72, 85, 210 + 25 * smooth_noise(rng, fine_shape, (1, 1, 1))))
    paint(cover(spine) * cover(2.2 - spine, 1.0) * (discs <= 0.72), 420)
    posterior = ellipse((x, 0, 17), (y, canal_y, 13))
    paint(cover(posterior), 330)
    paint(cover(ellipse((x, 0, 9.5), (y, canal_y + 2, 8.5))), 35)
    paint(cover(ellipse((x, 0, 4.5), (y, canal_y - 15, 13))) * (discs < 0.3), 340)
    paint(cover(ellipse((np.abs(x), 22, 18), (y, canal_y + 2, 5.5))) * (discs < 0.0), 320)  # transverse processes
    paint(cover(both(ellipse((x, 0, 17), (y, deep - fat_mm - 17, 6.5)), 75 - np.abs(z - 10), 3)), 230)  # sternum

    # Trachea and main bronchi: air that is not lung
    carina = 22.0
    trachea = both(ellipse((x, 2 * np.sin(z / 30), 9), (y, -16, 9)), z - carina, 3)
    bronchus = np.maximum(
        capsule((x, y, z), (0, -16, carina + 2), (40, -22, carina - 20), 7.5),
        capsule((x, y, z), (0, -16, carina + 2), (-44, -24, carina - 26), 7),
    )
    airway = np.maximum(trachea, bronchus)
    paint(cover(airway + 1.8, 1.0), 35)
    oesophagus = ellipse((x, -7, 7), (y, -37, 5.5))
    paint(cover(oesophagus), 38)

    # Parenchyma: denser towards the back, with texture, fissures and vessels
    inside = cover(lung)
    density = rng.uniform(-880, -830)
    tissue = (
        density
        - 0.55 * y
        + 22 * smooth_noise(rng, fine_shape, (5, 5, 5))
        + 18 * smooth_noise(rng, fine_shape, (1.2, 1.2, 1.2))
    )
    fissure = (z - 5 + 0.95 * y + 0.05 * np.abs(x)) / 1.38
    tissue += 90 * np.exp(-((fissure / 1.6) ** 2))
    if "emphysema" in scan.findings:
        holes = smooth_noise(rng, fine_shape, (3, 3, 3))
        tissue -= 95 * cover((holes - 0.5) * 4) * cover(z, 25)
    if "ground_glass" in scan.findings:
        patches = smooth_noise(rng, fine_shape, (5, 5, 5))
        tissue += 330 * cover((patches - 1.0) * 5)
    paint(inside, tissue)

    voxel_of = np.linalg.inv(fine)
    shift = np.array([x.flat[0], y.flat[0], z.flat[0]]) - fine[:3, 3]

    def is_inside(point: np.ndarray) -> bool:
        i = np.rint(voxel_of[:3, :3] @ (point - shift) + voxel_of[:3, 3]).astype(int)
        return bool((i >= 0).all() and (i < fine_shape).all() and lung[tuple(i)] > 1.0)

    branches = []
    for side in (1, -1):
        for lift in (28, 8, -6, -24, -38):
            hilum = np.array([side * rng.uniform(34, 42), rng.uniform(-24, 4), carina - 12 + lift * 0.45])
            for _ in range(3):
                heading = np.array([side * rng.uniform(0.4, 1.0), rng.normal(0, 0.8), lift / 26 + rng.normal(0, 0.35)])
                tree = grow_tree(rng, hilum, heading, rng.uniform(19, 25), rng.uniform(3.2, 5.2))
                branches += [branch for branch in tree if is_inside(branch[1]) or is_inside(branch[0])]
    in_patient = fine.copy()
    in_patient[:3, 3] += shift
    vessels = draw_branches(branches, in_patient, fine_shape)
    paint(vessels * inside, blood - 5)
    paint(cover(airway, 1.0), -985)
    paint(cover(airway, 1.0) * cover(airway - 1), -1000)

    deep_inside = np.argwhere(lung > 16)
    near_wall = np.argwhere((lung > 1) & (lung < 4) & (chest < 8))
    spots = []
    if "nodules" in scan.findings:
        spots += [(deep_inside[i], rng.uniform(5, 10)) for i in rng.integers(len(deep_inside), size=4)]
    if "pleural_nodule" in scan.findings:
        spots += [(near_wall[i], rng.uniform(8, 13)) for i in rng.integers(len(near_wall), size=2)]
    for voxel, radius in spots:
        px, py, pz = (c[tuple(voxel)] for c in (x, y, z))
        wobble = 1.5 * smooth_noise(rng, fine_shape, (1.5, 1.5, 1.5))
        blob = radius - np.sqrt((x - px) ** 2 + (y - py) ** 2 + (z - pz) ** 2) + wobble
        paint(cover(blob) * inside, 35)

    def average(a: np.ndarray) -> np.ndarray:
        pairs = a.reshape(*shape[:thick], shape[thick], 2, *shape[thick + 1 :])
        return pairs.mean(axis=thick + 1)

    label = average(cover(np.where(cover(airway) > 0.5, -9.0, lung))) > 0.5
    hu = average(hu)
    in_plane = tuple(0.0 if axis == thick else 0.55 for axis in range(3))
    hu = ndimage.gaussian_filter(hu, in_plane)  # the scanner's point spread
    hu += rng.uniform(12, 20) * smooth_noise(rng, shape, tuple(0.5 if s else 0.0 for s in in_plane))
    hu = np.clip(np.rint(hu / 8) * 8, -1000, 1500)  # steps of 8 HU: half the bytes, and still below the noise

    header = nibabel.Nifti1Header()
    header.set_data_shape(shape)
    header.set_qform(affine, scan.codes[0])
    header.set_sform(affine, scan.codes[1])
    header.set_xyzt_units("mm")
    header["descrip"] = b"r2seg sample, synthetic"
    return hu.astype(np.int16), label.astype(np.uint8), header


def write_nifti(path: Path, array: np.ndarray, header: nibabel.Nifti1Header) -> None:
    """Writes .nii.gz whose bytes depend on its content alone (no time, no name)."""
    header = header.copy()
    header.set_data_dtype(array.dtype)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(nibabel.Nifti1Image(array, None, header).to_bytes(), 9, mtime=0))


def write_lung(folder: Path) -> None:
    for index in range(len(SCANS)):
        image, label, header = make_lung(index)
        write_nifti(folder / f"images/case_{index + 1:02d}.nii.gz", image, header)
        write_nifti(folder / f"labels/case_{index + 1:02d}.nii.gz", label, header)


# --- pictures


def write_png(path: Path, array: np.ndarray) -> None:
    """Writes a picture; boolean arrays as 1-bit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, optimize=True)


def write_jpg(path: Path, rgb: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path, quality=92, subsampling=0)


def to_rgb(colours: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(colours), 0, 255).astype(np.uint8)


def blend(picture: np.ndarray, part: np.ndarray, colour: tuple[float, float, float]) -> None:
    """Paints `colour` over an RGB picture (rows, columns, 3) in place, as far as `part` (rows, columns) covers each pixel."""
    picture += part[..., None] * (np.array(colour) - picture)


def shrink(array: np.ndarray, factor: int) -> np.ndarray:
    """Mean over blocks of factor x factor pixels."""
    rows, columns = array.shape[0] // factor, array.shape[1] // factor
    return array.reshape(rows, factor, columns, factor, *array.shape[2:]).mean(axis=(1, 3))


def draw_curve(canvas: np.ndarray, points: np.ndarray, radius: np.ndarray) -> None:
    """Raises canvas (rows, columns) to the cover by a curve through points (n, 2) = (row, column) of given radius at each."""
    for i, (row, column) in enumerate(points):
        margin = int(radius[i] + 3)
        top, left = max(int(row) - margin, 0), max(int(column) - margin, 0)
        box = canvas[top : int(row) + margin + 1, left : int(column) + margin + 1]
        if not box.size or row < -margin or column < -margin:
            continue
        rows, columns = np.ogrid[top : top + box.shape[0], left : left + box.shape[1]]
        np.maximum(box, cover(radius[i] - np.hypot(rows - row, columns - column), 0.8), out=box)


# --- retina: fundus photographs

RETINA_SIZE = (150, 160)  # rows, columns
NUM_RETINA = 6


def retinal_vessels(rng: np.random.Generator, disc: np.ndarray, nasal: int, scale: float) -> list:
    """Vessels from the optic disc as (points (n, 2), radii (n,), is_artery): arcades around the macula, short ones nasally."""
    vessels = []
    stack = []
    for up in (-1, 1):
        for artery in (False, True):
            bow = rng.uniform(0.011, 0.015)
            heading = np.arctan2(up * rng.uniform(0.9, 1.2), -nasal * rng.uniform(0.1, 0.5))
            stack.append(
                (disc + rng.normal(0, 1, 2) * scale, heading, 1.45 - 0.3 * artery, 96, -up * -nasal * bow, artery, 0)
            )
            heading = np.arctan2(up * rng.uniform(0.5, 1.0), nasal * rng.uniform(0.7, 1.1))
            stack.append(
                (disc + rng.normal(0, 1, 2) * scale, heading, 1.05 - 0.2 * artery, 52, up * nasal * -0.004, artery, 0)
            )
    for _ in range(3):  # small ones straight towards the macula
        heading = np.arctan2(rng.uniform(-0.45, 0.45), -nasal)
        stack.append((disc, heading, 0.65, 26, 0.0, False, 2))
    while stack:
        point, heading, radius, length, bow, artery, depth = stack.pop()
        steps = int(length * scale)
        wiggle = np.cumsum(ndimage.gaussian_filter1d(rng.normal(0, 0.10, steps), 6 * scale / 2)) / scale
        headings = heading + bow * np.arange(steps) / scale + wiggle
        points = point + np.cumsum(np.stack([np.sin(headings), np.cos(headings)], 1), 0)
        radii = np.linspace(radius, max(radius * 0.6, 0.36), steps) * scale
        vessels.append((points, radii, artery))
        if depth == 3 or radius < 0.46:
            continue
        for k, at in enumerate(np.sort(rng.uniform(0.16, 0.95, 6 if depth == 0 else 3))):
            i = int(at * (steps - 1))
            turn = rng.uniform(0.5, 1.0) * (1 if k % 2 else -1)
            stack.append(
                (
                    points[i],
                    headings[i] + turn,
                    radii[i] / scale * rng.uniform(0.5, 0.72),
                    length * rng.uniform(0.3, 0.5),
                    -0.006 * np.sign(turn),
                    artery,
                    depth + 1,
                )
            )
    return vessels


def make_retina(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Case `index` as (RGB uint8 (rows, columns, 3), vessels bool, field of view bool)."""
    rng = np.random.default_rng([SEED, 2, index])
    factor = 3
    rows, columns = np.array(RETINA_SIZE) * factor
    r, c = np.mgrid[:rows, :columns].astype(float)
    nasal = 1 if index % 2 else -1  # left and right eyes in turn
    centre = np.array([rows / 2, columns / 2]) + rng.normal(0, 2, 2) * factor
    radius = 70 * factor
    from_centre = np.hypot(r - centre[0], c - centre[1])
    view = cover(radius - from_centre, 1.2)

    disc = centre + np.array([rng.uniform(-6, 6), nasal * rng.uniform(30, 38)]) * factor
    macula = centre + np.array([rng.uniform(0, 6), -nasal * rng.uniform(8, 14)]) * factor
    tint = np.array([196, 96, 42]) * rng.uniform(0.82, 1.12, 3)
    picture = np.tile(tint, (rows, columns, 1))
    light = 1 - 0.38 * (from_centre / radius) ** 2.2 + 0.10 * smooth_noise(rng, (rows, columns), (40 * factor,) * 2)
    choroid = smooth_noise(rng, (rows, columns), (3 * factor, 5 * factor))
    picture *= (light + 0.035 * choroid)[..., None]
    blend(picture, 0.62 * np.exp(-((np.hypot(r - macula[0], c - macula[1]) / (11 * factor)) ** 2)), (112, 40, 20))
    # Bright disc with a paler cup, and the nerve fibres' sheen around it
    blend(picture, 0.22 * np.exp(-((np.hypot(r - disc[0], c - disc[1]) / (22 * factor)) ** 2)), (236, 160, 96))
    blend(picture, 0.92 * cover(ellipse((r, disc[0], 10.5 * factor), (c, disc[1], 9.2 * factor)), 3), (246, 196, 120))
    blend(
        picture,
        0.8 * cover(ellipse((r, disc[0], 4.6 * factor), (c, disc[1] + nasal * factor, 4.2 * factor)), 4),
        (255, 238, 188),
    )
    if index % 3 == 2:  # hard exudates: bright spots that are not vessels
        for _ in range(14):
            at = macula + rng.normal(0, 17, 2) * factor
            blend(
                picture,
                0.85 * cover(rng.uniform(0.6, 1.7) * factor - np.hypot(r - at[0], c - at[1]), 1.5),
                (244, 214, 120),
            )
    if index % 3 == 1:  # small haemorrhages: dark spots that are not vessels
        for _ in range(9):
            at = centre + rng.normal(0, 30, 2) * factor
            blend(
                picture,
                0.7 * cover(rng.uniform(0.7, 1.9) * factor - np.hypot(r - at[0], c - at[1]), 1.5),
                (104, 24, 16),
            )

    veins, arteries, lumen = np.zeros((3, rows, columns))
    for points, radii, artery in retinal_vessels(rng, disc, nasal, factor):
        draw_curve(arteries if artery else veins, points, radii)
    for part, dark in ((arteries, (0.72, 0.50, 0.52)), (veins, (0.60, 0.34, 0.40))):
        strength = ndimage.gaussian_filter(part, 0.5 * factor)[..., None]
        picture *= 1 - strength * (1 - np.array(dark))
        np.maximum(lumen, part, out=lumen)
    picture = ndimage.gaussian_filter(picture, (0.3 * factor, 0.3 * factor, 0))
    picture = shrink(picture * view[..., None], factor)
    fov = shrink(view, factor) > 0.5
    noise = 3.0 * smooth_noise(rng, RETINA_SIZE, (0.6, 0.6))[..., None] + 1.6 * rng.standard_normal((*RETINA_SIZE, 3))
    picture += noise * np.where(fov, 1, 0.35)[..., None]
    return to_rgb(picture), (shrink(lumen, factor) > 0.5) & fov, fov


def write_retina(folder: Path) -> None:
    for index in range(NUM_RETINA):
        picture, vessels, fov = make_retina(index)
        name = f"eye_{index // 2 + 1:02d}{'R' if index % 2 else 'L'}"
        if index < 3:
            write_png(folder / f"images/{name}.png", picture)
        else:
            write_jpg(folder / f"images/{name}.jpg", picture)
        write_png(folder / f"labels/{name}.png", vessels)
        write_png(folder / f"masks/{name}.png", fov)


# --- skin: dermoscopy

SKIN_SIZE = (96, 128)
NUM_SKIN = 6


def make_skin(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Case `index` as (RGB uint8 (rows, columns, 3), lesion bool)."""
    rng = np.random.default_rng([SEED, 3, index])
    factor = 3
    shape = tuple(np.array(SKIN_SIZE) * factor)
    r, c = np.mgrid[: shape[0], : shape[1]].astype(float)
    skin = np.array(
        [[226, 178, 158], [214, 160, 138], [232, 190, 176], [198, 142, 116], [222, 170, 140], [208, 156, 142]][index]
    )
    picture = np.tile(skin.astype(float), (*shape, 1))
    picture *= (1 + 0.030 * smooth_noise(rng, shape, (9, 9)) + 0.022 * smooth_noise(rng, shape, (2.0, 2.0)))[..., None]
    picture += smooth_noise(rng, shape, (30, 30))[..., None] * (5, -4, -3)

    # The border: an ellipse with a few waves; its edge is sharp on some sides and fades on others.
    at = np.array(shape) / 2 + rng.uniform(-7, 7, 2) * factor
    long, short, turn = rng.uniform(25, 36) * factor, rng.uniform(18, 26) * factor, rng.uniform(0, np.pi)
    u, v = (
        np.cos(turn) * (c - at[1]) + np.sin(turn) * (r - at[0]),
        -np.sin(turn) * (c - at[1]) + np.cos(turn) * (r - at[0]),
    )
    angle = np.arctan2(v / short, u / long)
    waves = sum(rng.normal(0, 0.12 / k**0.8) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in range(2, 9))
    waves = waves + 0.035 * smooth_noise(rng, shape, (6, 6))
    depth = (1 + waves - np.hypot(u / long, v / short)) * short
    softness = factor * (1.6 + 1.3 * np.cos(angle + rng.uniform(0, 6)))
    lesion = cover(depth, softness)

    brown = np.array([[122, 74, 52], [96, 56, 44], [150, 96, 72], [84, 50, 38], [134, 72, 58], [108, 70, 58]][index])
    blend(picture, 0.28 * cover(depth + 4 * factor, 2.5 * factor), (196, 118, 104))  # reddened rim
    blend(picture, lesion * (0.84 + 0.08 * smooth_noise(rng, shape, (7, 7)).clip(-2, 2)), brown)
    for colour, spread in (((52, 32, 30), 8), ((172, 122, 88), 10), ((88, 92, 110), 12)):
        patch = cover((smooth_noise(rng, shape, (spread, spread)) - 0.9) * 6, 2) * cover(depth - 3 * factor, 2 * factor)
        blend(picture, 0.6 * patch, colour)
    net = np.abs(smooth_noise(rng, shape, (1.5 * factor,) * 2))  # pigment network: dark lines where noise crosses zero
    blend(picture, 0.38 * lesion * np.exp(-((net / 0.22) ** 2)), tuple(brown * 0.55))
    for _ in range(16):
        spot = at + rng.normal(0, 0.5, 2) * (short, long)
        blend(
            picture,
            0.7 * lesion * cover(rng.uniform(0.5, 1.4) * factor - np.hypot(r - spot[0], c - spot[1]), 1.5),
            (48, 28, 26),
        )

    hair = np.zeros(shape)
    for _ in range((3, 14, 0, 8, 5, 18)[index]):
        steps = int(rng.uniform(60, 130) * factor)
        heading = (
            rng.normal(0.6, 0.5) + np.cumsum(rng.normal(0, 0.004, steps)) + rng.normal(0, 0.002) * np.arange(steps)
        )
        start = rng.uniform(-0.2, 0.8, 2) * shape
        points = start + np.cumsum(np.stack([np.sin(heading), np.cos(heading)], 1), 0)
        draw_curve(hair, points, np.linspace(rng.uniform(0.35, 0.6), 0.2, steps) * factor)
    blend(picture, 0.85 * hair, (46, 30, 26))
    for _ in range(3):  # glare of the immersion gel
        spot = rng.uniform(0, 1, 2) * shape
        blend(picture, 0.35 * np.exp(-((np.hypot(r - spot[0], c - spot[1]) / (2.2 * factor)) ** 2)), (255, 250, 245))
    edge = np.hypot((r - shape[0] / 2) / shape[0], (c - shape[1] / 2) / shape[1])
    picture *= (1.03 - 0.55 * edge**2.4)[..., None]
    if index in (1, 4):  # seen through a round contact plate
        plate = 1 - cover(shape[1] * 0.53 - np.hypot(r - shape[0] / 2, c - shape[1] / 2), 3)
        blend(picture, plate, (14, 10, 10))
    picture = shrink(ndimage.gaussian_filter(picture, (0.8, 0.8, 0)), factor)
    picture += 1.6 * rng.standard_normal((*SKIN_SIZE, 3))
    return to_rgb(picture), shrink(cover(depth, 0.5), factor) > 0.5


def write_skin(folder: Path) -> None:
    for index in range(NUM_SKIN):
        picture, lesion = make_skin(index)
        write_jpg(folder / f"images/lesion_{index + 1:02d}.jpg", picture)
        write_png(folder / f"labels/lesion_{index + 1:02d}.png", lesion.astype(np.uint8) * 255)


def main(folder: str | Path = Path(__file__).parent, *sets: str) -> None:
    writers = {"lung": write_lung, "retina": write_retina, "skin": write_skin}
    for name in sets or writers:
        writers[name](Path(folder) / name)


if __name__ == "__main__":
    main(*sys.argv[1:])
