"""Makes the sample data: synthetic chest CT volumes, fundus photographs and dermoscopy pictures with their label maps.

    python sample_data/make_samples.py [FOLDER] [lung] [retina] [skin]

Everything follows from fixed seeds, so that running it again rewrites the same pixels. No patient is shown: anatomy is drawn
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
    # Thick slices blur what lies across them: two samples a voxel along that axis, averaged at the end.
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
    top, bottom = 95 + rng.uniform(-6, 6), -95.0
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


if __name__ == "__main__":
    write_lung(Path(__file__).parent / "lung")
