"""False positives along the border of pictures, with and without rotation and scale: ISIC 2018, 120 train, 30 held out.

Every fifth picture is held out, beginning with the first. A network that has only seen rotated windows with an invented rim
paints labels along the border of real pictures; windows cut straight from the picture do not teach it that.

    python benchmarks/border_ring.py ISIC2018_FOLDER --epochs 15 --seeds 0 1 2 --json benchmarks/results/border_ring.json

The folder is the challenge's own for task 1: ISIC2018_Task1-2_Training_Input and ISIC2018_Task1_Training_GroundTruth. An epoch is
120 whole pictures; it takes about 12 s on one core.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from r2seg.config import load_config
from r2seg.inference.segmenter import Segmenter
from r2seg.training.train import train

STRENGTHS = {
    "with rotation and scale": {"rotate_degrees": 180, "scale": 0.2},
    "without": {"rotate_degrees": 0, "scale": 0},
}


def link_cases(source: Path, root: Path) -> tuple[list[str], list[str]]:
    """images/ and labels/ by links; ids to train on and ids that are held out."""
    images = sorted((source / "ISIC2018_Task1-2_Training_Input").glob("*.jpg"))
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for path in images:
        (root / "images" / path.name).symlink_to(path.resolve())
        label = source / "ISIC2018_Task1_Training_GroundTruth" / f"{path.stem}_segmentation.png"
        (root / "labels" / f"{path.stem}.png").symlink_to(label.resolve())
    ids = [path.stem for path in images]
    return [name for index, name in enumerate(ids) if index % 5], ids[::5]


def measure(root: Path, ids: tuple[list[str], list[str]], strength: dict[str, float], seed: int, epochs: int) -> dict:
    """Trains, and scores the held-out pictures."""
    train_ids, held_out = ids
    settings = {
        "name": "isic",
        "seed": seed,
        "data": {
            "root": str(root),
            "labels": {"lesion": 255},
            "split": {"train": train_ids, "validation": train_ids[::20], "test": held_out},
        },
        "window": {"size": [192, 256], "batch_size": 8},
        "network": {"name": "R2UNet", "channels": [8, 16, 32, 64, 128], "steps": 1},
        "sampling": {"windows_per_epoch": 120, "foreground": 0},
        "augmentation": {"flip": ["left-right", "up-down"], "brightness": 0.1, "contrast": 0.2, **strength},
        "training": {"learning_rate": 2e-3, "max_epochs": epochs, "validate_every": epochs},
    }
    settings["data"]["split"]["train"] = [name for name in train_ids if name not in train_ids[::20]]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "isic.yaml")
        path.write_text(yaml.safe_dump(settings))
        trained = train(load_config(path), Path(folder, "run"))
        segmenter = Segmenter.from_run(trained.path)
        false, ring_size, scores = 0, 0, []
        for name in held_out:
            reference = np.array(Image.open(root / "labels" / f"{name}.png")) > 0
            predicted = segmenter.segment(root / "images" / f"{name}.jpg").indices > 0
            ring = np.ones_like(reference)
            ring[1:-1, 1:-1] = False
            false += int((predicted & ~reference & ring).sum())
            ring_size += int((ring & ~reference).sum())
            scores.append((predicted & reference).sum() / max(1, (predicted | reference).sum()))
    return {"seed": seed, "ring": false / ring_size, "jaccard": float(np.mean(scores))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", choices=list(STRENGTHS), help="one of the two settings")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, list[dict]] = {}
    with tempfile.TemporaryDirectory() as folder:
        ids = link_cases(arguments.source, Path(folder))
        for seed in arguments.seeds:
            for name, strength in STRENGTHS.items():
                if arguments.only in (None, name):
                    found.setdefault(name, []).append(measure(Path(folder), ids, strength, seed, arguments.epochs))
                    print(name, found[name][-1], flush=True)
    if arguments.json:
        about = {"epochs": arguments.epochs, "torch": torch.__version__, "threads": torch.get_num_threads()}
        arguments.json.write_text(json.dumps({**about, "results": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
