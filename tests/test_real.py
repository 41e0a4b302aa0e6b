"""Real images through the real configs: what synthetic cases cannot show. Nothing here trains for long."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from r2seg.config import load_config
from r2seg.data.layouts import find_cases
from r2seg.data.splits import split_cases
from r2seg.data.transforms import case_transforms
from r2seg.training.plan import plan_training

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.real


def test_lctsc_cases_come_to_one_grid_with_their_lungs(real_data: Path) -> None:
    config = load_config(
        ROOT / "configs/lung_lctsc_r2unet.yaml", [f"data.root={real_data / 'lctsc'}"], require_data=True
    )
    parts = split_cases(find_cases(config.data), config.data.split, config.seed)
    assert [case.id for case in parts["test"]] == ["LCTSC-101"]
    prepare = case_transforms(config.data, config.preprocessing)
    fine, coarse = prepare(parts["test"][0]), prepare(parts["validation"][0])
    assert fine["grid"].oriented_shape == (512, 512, 130) and fine["grid"].shape == (256, 256, 130)
    assert coarse["grid"].oriented_shape == coarse["grid"].shape == (256, 256, 131)
    for sample in (fine, coarse):
        inside = sample["voxels"][0][sample["label"] == 1]
        assert -950 < np.median(inside) < -700  # air in tissue, in HU: image and label lie on one another
        # Resampling a mask keeps its share of the body.
        assert (sample["label"] == 1).mean() == pytest.approx((sample["reference"] == 1).mean(), rel=0.01)


@pytest.fixture
def chase(real_data: Path, tmp_path: Path) -> Path:
    """CHASE_DB1's flat folder as images/, labels/ and masks/, by links."""
    for folder in ("images", "labels", "masks"):
        (tmp_path / folder).mkdir()
    images = sorted((real_data / "chase_db1").glob("Image_*.jpg"))
    assert len(images) == 14
    for image in images:
        (tmp_path / "images" / image.name).symlink_to(image)
        (tmp_path / "labels" / f"{image.stem}.png").symlink_to(image.with_name(f"{image.stem}_1stHO.png"))
        (tmp_path / "masks" / f"{image.stem}.gif").symlink_to(image.parent / "fov_mask" / f"{image.stem}.gif")
    return tmp_path


def test_chase_plans_with_children_kept_together_and_pixels_outside_the_field_ignored(chase: Path) -> None:
    config = load_config(
        ROOT / "configs/retina_r2unet.yaml",
        [f"data.root={chase}", r"data.group=Image_(\d+)", "network.channels=[4, 8]"],
        require_data=True,
    )
    parts = split_cases(find_cases(config.data), config.data.split, config.seed)
    children = [{case.id[6:8] for case in members} for members in parts.values()]
    assert sum(map(len, children)) == len(set.union(*children)) == 7
    plan = plan_training(config, torch.device("cpu"))
    assert plan.batch_shape == (32, 3, 48, 48)
    # 10 % of all pixels are vessel inside the field of view (Fraz et al. report 9 to 10 %), fewer over the whole picture.
    assert 0.08 < plan.label_shares["vessel"] < 0.13
