"""The configs of docs/recipes.md load, find their cases and build their networks; the slow tests train each of them."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from PIL import Image
from tiny import ball

from r2seg.config import Config, build_configured_network, load_config
from r2seg.data.layouts import find_cases
from r2seg.data.splits import draw_split

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/recipes.md").read_text("utf-8")
RECIPES = dict(re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?```yaml\n(.*?)```", PAGE, flags=re.S | re.M))
NUM_CHANNELS = {"Several modalities": 2, "DRIVE": 3, "Labels that overlap": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the repository's sample data and small data sets of the other names in the recipes."""
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "sample_data").symlink_to(ROOT / "sample_data")
    (folder / "runs/lung").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(5):
        voxels, label = ball((32, 32, 6), rng)
        brain, scans = folder / f"data/brain/case_{number}", folder / f"data/my_scans/patient_{number}"
        for place, names in ((brain, ("t1", "flair", "tumour")), (scans, ("visit_1_image", "visit_1_lungmask"))):
            place.mkdir(parents=True)
            for name in names:
                is_label = name in ("tumour", "visit_1_lungmask")
                array = label if is_label else voxels
                if name == "tumour":
                    array = label * np.where(np.arange(len(label)) < 16, 1, 3).astype(np.uint8)[:, None, None]
                nib.save(nib.Nifti1Image(array, np.diag([1.0, 1, 3, 1])), place / f"{name}.nii.gz")
    eyes = folder / "data/eyes"
    eyes.mkdir()
    for number in range(5):
        grey, disc = ball((40, 44), rng)
        cup = disc * (np.arange(44) < 22)
        Image.fromarray(np.stack([(grey + 1100).clip(0, 1275) // 5] * 3, axis=-1).astype(np.uint8)).save(
            eyes / f"{number}.png"
        )
        for name, mask in (("disc", disc), ("cup", cup)):
            Image.fromarray((mask * 255).astype(np.uint8)).save(eyes / f"{number}_{name}.png")
    for part, numbers in (("training", range(21, 26)), ("test", range(1, 3))):
        for number in numbers:
            grey, vessel = ball((50, 60), rng)
            picture = ((grey.astype(float) + 1100) / 1300 * 255).clip(0, 255).astype(np.uint8)
            for kind, name, array in (
                ("images", f"{number:02}_{part}.tif", np.stack([picture] * 3, axis=-1)),
                ("1st_manual", f"{number:02}_manual1.gif", vessel * 255),
                ("mask", f"{number:02}_{part}_mask.gif", np.full((50, 60), 255, np.uint8)),
            ):
                place = folder / "data/DRIVE" / part / kind
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array.astype(np.uint8)).save(place / name)
    return folder


def config_of(name: str, folder: Path, *overrides: str) -> Config:
    path = folder / f"{name.replace(' ', '_')}.yaml"
    path.write_text(RECIPES[name])
    return load_config(path, overrides, require_data=True)


def test_every_heading_has_its_recipe() -> None:
    headings = re.findall(r"^## (.+)$", PAGE, flags=re.M)
    assert list(RECIPES) == headings
    assert len(headings) == 8
    assert len({yaml.safe_load(text)["name"] for text in RECIPES.values()}) == len(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_loads_finds_its_cases_and_builds_its_network(name: str, folder: Path) -> None:
    config = config_of(name, folder)
    parts = draw_split(find_cases(config.data), config.data.split, config.seed).parts
    assert parts["train"]
    assert parts["validation"]
    network = build_configured_network(config, NUM_CHANNELS.get(name, 1))
    assert all(given >= least for given, least in zip(config.window.size, network.least_size, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains(name: str, folder: Path) -> None:
    from r2seg.run import BEST
    from r2seg.training.train import train

    shorter = ("training.max_epochs=1", "sampling.windows_per_epoch=16")
    if name == "Fine-tuning" and not (folder / "runs/lung" / BEST).is_file():
        train(config_of("CT lung", folder, *shorter), folder / "runs/lung", device="cpu")
    config = config_of(name, folder, *shorter)
    run = train(config, folder / "runs" / f"of_{config.name}", device="cpu")
    assert run.manifest["best"]["epoch"] == 1
    assert (run.path / BEST).is_file()
