"""The rules for sizes, by hand-computed cases: voxel size, slices or volumes, window, depth, batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from r2seg.errors import UserError
from r2seg.networks import build_network
from r2seg.planning.facts import Machine, Summary, Wishes
from r2seg.planning.looks import Kind
from r2seg.planning.sizes import Sizes, plan_sizes

CPU = Machine("cpu", 16 * 2**30, "two cores")
GPU = Machine("cuda", 24 * 2**30, "a card")
ANY = Wishes(None, 3600, False)


def volumes(shape: tuple[int, ...], *spacings: tuple[float, float, float], kind: str = "ct") -> Summary:
    return Summary(
        kind=Kind(kind, "", True),
        image_dims=3,
        num_channels=1,
        num_cases=len(spacings),
        num_groups=len(spacings),
        parts=frozenset(),
        shapes=np.array([shape] * len(spacings)),
        spacings_mm=np.array(spacings),
        labelled_values=np.zeros(10),
        labelled_share=0.1,
        has_masks=False,
    )


def pictures(*shapes: tuple[int, int], kind: str = "dermoscopy") -> Summary:
    return replace(volumes((1, 1, 1), (1, 1, 1), kind=kind), image_dims=2, shapes=np.array(shapes), spacings_mm=None)


def fits_a_network(sizes: Sizes) -> bool:
    options = {"channels": sizes.channels} | ({} if sizes.strides is None else {"strides": sizes.strides})
    network = build_network("R2UNet", spatial_dims=sizes.dims, in_channels=1, out_channels=2, steps=1, **options)
    total = network.least_size
    return len(total) == len(sizes.window) and all(w % t == 0 for w, t in zip(sizes.window, total, strict=True))


def test_the_working_voxel_is_the_median() -> None:
    sizes = plan_sizes(volumes((256, 256, 131), (1, 1, 3), (2, 2, 3), (2, 2, 3), (2, 2, 3)), CPU, ANY)
    assert sizes.spacing_mm == (2, 2, 3)
    assert "1x1x3 mm to 2x2x3 mm" in sizes.spacing_reason
    assert sizes.dims == 2 and sizes.plane == "axial" and sizes.window == (160, 160) and sizes.batch_size == 8


def test_planes_of_512_pixels_are_coarsened_on_a_cpu_and_kept_on_a_gpu() -> None:
    data = volumes((512, 512, 130), *[(0.98, 0.98, 3.0)] * 3)
    sizes = plan_sizes(data, CPU, ANY)
    assert sizes.spacing_mm == (1.96, 1.96, 3.0) and sizes.shape == (256, 256, 130)
    assert "coarsened from 0.98x0.98x3 mm" in sizes.spacing_reason
    assert plan_sizes(data, GPU, Wishes(2, 3600, True)).spacing_mm == (0.98, 0.98, 3.0)


def test_the_coarse_axis_of_anisotropic_volumes_takes_the_tenth_percentile() -> None:
    # nnU-Net's rule: 0.5 mm pixels with slices of 3 to 7 mm. numpy's 10th percentile of 3, 5, 5, 6, 7 is 3.8.
    thick = (3.0, 5.0, 5.0, 6.0, 7.0)
    sizes = plan_sizes(volumes((200, 200, 30), *[(0.5, 0.5, z) for z in thick], kind="mr"), GPU, ANY)
    assert sizes.spacing_mm == (0.5, 0.5, 3.8)
    assert sizes.dims == 2 and "7.6 times as long as wide" in sizes.dims_reason


@pytest.mark.parametrize(
    ("data", "machine", "wanted", "dims"),
    [
        (volumes((128, 128, 100), (1, 1, 1)), CPU, None, 2),
        (volumes((128, 128, 100), (1, 1, 1)), CPU, 3, 3),
        (volumes((128, 128, 100), (1, 1, 1)), GPU, None, 3),
        (volumes((128, 128, 100), (1, 1, 1)), GPU, 2, 2),
        (volumes((128, 128, 100), (0.5, 0.5, 2)), GPU, None, 2),
        (volumes((128, 128, 9), (1, 1, 1)), GPU, None, 2),
        (pictures((60, 80)), GPU, None, 2),
    ],
)
def test_slices_or_volumes(data: Summary, machine: Machine, wanted: int | None, dims: int) -> None:
    sizes = plan_sizes(data, machine, Wishes(wanted, 3600, False))
    assert sizes.dims == dims == len(sizes.window)
    assert sizes.dims_reason or data.image_dims == 2
    assert fits_a_network(sizes)


def test_pictures_have_no_third_axis() -> None:
    with pytest.raises(UserError, match="--plan 3d: the images are pictures"):
        plan_sizes(pictures((60, 80)), GPU, Wishes(3, 3600, True))


def test_the_plane_is_that_of_the_finest_pixels() -> None:
    assert plan_sizes(volumes((20, 256, 256), (4, 0.9, 0.9)), CPU, ANY).plane == "sagittal"
    assert plan_sizes(volumes((256, 20, 256), (0.9, 4, 0.9)), CPU, ANY).plane == "coronal"
    assert plan_sizes(volumes((200, 200, 200), (1, 1, 1)), CPU, ANY).plane == "axial"
    unknown = replace(volumes((30, 200, 200), (1, 1, 1)), spacings_mm=None)
    assert plan_sizes(unknown, CPU, ANY).plane == "sagittal"
    assert plan_sizes(unknown, CPU, ANY).spacing_mm is None


def test_whole_pictures_are_windows_where_they_are_small_enough() -> None:
    sizes = plan_sizes(pictures((192, 256), (192, 256)), CPU, ANY)
    assert sizes.window == (192, 256) and sizes.channels == (16, 32, 64, 128, 256)
    assert "whole pictures" in sizes.window_reason


def test_large_pictures_are_resized_but_not_so_far_that_vessels_vanish() -> None:
    skin = plan_sizes(pictures((3000, 4000)), CPU, ANY)
    assert skin.resize == 256 and skin.shape == (192, 256) and skin.window == (192, 256)
    assert "typically 4000 pixels long" in skin.resize_reason
    assert plan_sizes(pictures((3000, 4000)), GPU, ANY).window == (384, 512)
    assert plan_sizes(pictures((240, 300)), CPU, ANY).resize is None
    assert plan_sizes(pictures((2336, 3504), kind="fundus"), CPU, ANY).resize == 1024
    assert plan_sizes(pictures((584, 565), kind="fundus"), CPU, ANY).resize is None


def test_vessels_are_seen_in_small_windows() -> None:
    sizes = plan_sizes(pictures((960, 999), kind="fundus"), CPU, ANY)
    assert sizes.window == (64, 64) and sizes.channels == (16, 32, 64, 128) and sizes.batch_size == 16


def test_an_axis_of_coarse_voxels_is_halved_later() -> None:
    sizes = plan_sizes(volumes((256, 256, 64), (1, 1, 2.5)), GPU, ANY)
    assert sizes.strides is not None and sizes.strides[0] == (2, 2, 1) and sizes.strides[1][2] == 2
    assert sizes.window[0] > sizes.window[2] and fits_a_network(sizes)


def test_less_memory_gives_a_smaller_batch_and_then_a_smaller_window() -> None:
    data = volumes((512, 512, 400), (1, 1, 1))
    large = plan_sizes(data, GPU, ANY)
    small = plan_sizes(data, replace(GPU, memory=6 * 2**30), ANY)
    assert np.prod(small.window) * small.batch_size < np.prod(large.window) * large.batch_size
    assert fits_a_network(small) and "GiB" in small.batch_reason
    assert plan_sizes(pictures((192, 256)), replace(CPU, memory=2**30), ANY).batch_size == 2


@pytest.mark.parametrize("shape", [(5, 300, 280), (31, 33, 400), (64, 64, 64), (700, 90, 90)])
@pytest.mark.parametrize("spacing", [(1, 1, 1), (3, 0.7, 0.8), (0.4, 0.4, 6)])
@pytest.mark.parametrize("machine", [CPU, GPU])
@pytest.mark.parametrize("dims", [2, 3])
def test_every_plan_makes_a_network_that_takes_its_window(
    shape: tuple[int, ...], spacing: tuple[float, float, float], machine: Machine, dims: int
) -> None:
    assert fits_a_network(plan_sizes(volumes(shape, spacing), machine, Wishes(dims, 3600, True)))
