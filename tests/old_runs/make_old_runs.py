"""Makes the runs in this folder: one of each network family, in the format of the r2seg version that trained it.

    python tests/old_runs/make_old_runs.py            # with the version whose runs are to be kept: NAME-VERSION.tar.xz

An archive holds a whole run folder, the label map that this version predicted for one case of sample_data, and the scores
it gave it. ``test_old_runs.py`` holds every later version to the same voxels and the same scores. Archives are never made
again: a later format gets new ones beside these.
"""

from __future__ import annotations

import io
import json
import math
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

import r2seg
from r2seg.config import build_configured_network, load_config
from r2seg.evaluation.evaluate import evaluate
from r2seg.evaluation.options import EvaluationOptions
from r2seg.inference.segmenter import Segmenter
from r2seg.training.train import train

HERE = Path(__file__).parent
SAMPLES = HERE.parents[1] / "sample_data"
HU = {"kind": "hu_window", "low": -1000, "high": 400}
LUNG = {
    "root": "lung",
    "labels": {"lung": 1},
    "split": {"train": ["case_01", "case_02", "case_05"], "validation": ["case_03"], "test": ["case_04"]},
}
SKIN = {
    "root": "skin",
    "labels": {"lesion": 255},
    "split": {
        "train": ["lesion_01", "lesion_02", "lesion_03", "lesion_04"],
        "validation": ["lesion_05"],
        "test": ["lesion_06"],
    },
}
RETINA = {
    "root": "retina",
    "labels": {"vessel": 255},
    "group": r"eye_(\d+)",
    "split": {"train": ["01"], "validation": ["02"], "test": ["03"]},
}
AXIAL = {"size": [48, 48], "plane": "axial", "batch_size": 8}
# Each family once, and between them every intensity, both outputs, both numbers of axes, every postprocessing step, a
# resampled grid and both ways of the recurrence.
RUNS: dict[str, dict[str, Any]] = {
    "PlainUNet": {
        "data": LUNG, "preprocessing": {"intensity": {"kind": "percentile"}}, "window": {"size": [32, 32, 8], "batch_size": 2},
        "network": {"channels": [4, 8, 16], "strides": [2, [2, 2, 1]], "norm": "instance"}, "training": {"optimizer": "sgd", "learning_rate": 0.05, "loss": "ce"},
    },
    "ResidualUNet": {
        "data": LUNG, "preprocessing": {"intensity": HU}, "window": AXIAL | {"plane": "coronal", "size": [48, 16], "blend": "constant"},
        "network": {"channels": [4, 8, 16], "norm": "group", "act": "silu", "upsample": "linear", "skip": "add"},
    },
    "AttentionUNet": {
        "data": RETINA, "preprocessing": {"intensity": {"kind": "unit"}}, "window": {"size": [48, 48], "overlap": 0.5, "batch_size": 8},
        "network": {"channels": [4, 8, 16], "output": "sigmoid"},
    },
    "RUNet": {
        "data": LUNG, "preprocessing": {"intensity": HU}, "window": AXIAL,
        "network": {"channels": [4, 8, 16], "steps": 1, "recurrence": "shared", "upsample": "nearest"}, "training": {"loss": "dice"},
    },
    "R2UNet": {
        "data": LUNG, "preprocessing": {"intensity": HU, "spacing_mm": [4, 4, 6]}, "window": {"size": [40, 40], "batch_size": 8},
        "network": {"channels": [4, 8, 16], "act": "prelu"},
        "postprocessing": [{"step": "largest_components", "label": "lung", "count": 2}, {"step": "fill_holes", "label": "lung"}],
    },
    "AttentionR2UNet": {
        "data": SKIN, "preprocessing": {"intensity": {"kind": "zscore"}}, "window": {"size": [64, 64], "batch_size": 4},
        "network": {"channels": [4, 8, 16], "steps": 1, "norm_per_step": False}, "augmentation": {"flip": ["left-right", "up-down"]},
    },
    "BackbonedUNet": {
        "data": SKIN, "window": {"size": [96, 128], "batch_size": 4},
        "network": {"backbone": "shufflenet_v2_x0_5", "decoder_channels": [8, 8, 4, 4, 4]},
    },
    "TernausNet": {
        "data": SKIN, "window": {"size": [64, 64], "batch_size": 4}, "network": {"num_filters": 4}, "training": {"gradient_clip": None},
    },
    "UPerNet": {
        "data": SKIN, "window": {"size": [96, 128], "batch_size": 4},
        "network": {"backbone": "recurrent_residual", "backbone_options": {"channels": [4, 4, 8, 8, 8, 8]}, "pyramid_channels": 8, "pool_channels": 4, "auxiliary": True},
    },
}  # fmt: skip


def make(name: str, folder: Path) -> Path:
    """Trains, segments and scores, and packs what came of it."""
    settings = {
        "name": name.lower(),
        "infer": {"precision": "float32"},
        "sampling": {"windows_per_epoch": 48},
        **RUNS[name],
    }
    settings["network"] = {"name": name, **settings["network"]}
    settings["training"] = {
        "max_epochs": 6,
        "learning_rate": 5e-3,
        "precision": "float32",
        **settings.get("training", {}),
    }
    root = settings["data"]["root"]
    settings["data"] = settings["data"] | {"root": str(SAMPLES / root)}
    if (
        name == "TernausNet"
    ):  # 10 million weights of a VGG would not fit into a repository: all but a few are zero, and stay so
        settings["network"]["weights"] = str(thin_weights(settings, folder))
    config_file = folder / f"{name}.yaml"
    config_file.write_text(yaml.safe_dump(settings))
    config = load_config(config_file)
    run = train(config, folder / name)
    for unneeded in ("last.pt", "tensorboard", "plots", "cache"):
        place = run.path / unneeded
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    # Where the data lay on the machine that trained is nobody's business, and inference does not ask.
    text = (run.path / "config.yaml").read_text().replace(str(SAMPLES), "/data").replace(str(folder), "/data")
    (run.path / "config.yaml").write_text(text)

    (case,) = (
        path for path in (SAMPLES / root / "images").iterdir() if path.name.split(".")[0] == run.splits["test"][0]
    )
    label = next((SAMPLES / root / "labels").glob(f"{run.splits['test'][0]}.*"))
    predicted = run.path / "predicted" / (f"{case.name.split('.')[0]}" + (".nii.gz" if root == "lung" else ".png"))
    Segmenter.from_run(run.path, "cpu").segment(case).write(predicted)
    report = evaluate(predicted, label, EvaluationOptions(labels=config.data.labels, measures=["counts", "surfaces"]))
    (row,) = report.rows
    about = {
        "image": str(case.relative_to(SAMPLES)),
        "label": str(label.relative_to(SAMPLES)),
        "predicted": predicted.name,
        "scores": {key: value for key, value in row.scores.items()},
    }
    (run.path / "predicted" / "about.json").write_text(json.dumps(about, indent=1) + "\n")
    archive = HERE / f"{name}-{r2seg.__version__}.tar.xz"
    with tarfile.open(archive, "w:xz") as tar:
        for path in sorted(run.path.rglob("*")):
            if path.is_file():
                member = tarfile.TarInfo(path.relative_to(run.path).as_posix())
                member.size = path.stat().st_size
                tar.addfile(member, io.BytesIO(path.read_bytes()))
    print(f"{archive.name}: {archive.stat().st_size:,} bytes, Dice {about['scores']['dice']:.4f}")
    return archive


def thin_weights(settings: dict[str, Any], folder: Path) -> Path:
    """Weights with all channels but the first eight of every layer zero: without norms, gradients keep them zero."""
    plain = {**settings, "network": {key: value for key, value in settings["network"].items() if key != "weights"}}
    (folder / "thin.yaml").write_text(yaml.safe_dump(plain))
    torch.manual_seed(0)
    network = build_configured_network(load_config(folder / "thin.yaml"), 3)
    state = network.state_dict()
    for key, tensor in state.items():
        if key.startswith("head"):
            continue
        tensor[8:] = 0
        if key.startswith("encoder") and tensor.ndim == 4:
            tensor[:, 8:] = 0
            tensor *= math.sqrt(max(1, len(tensor) / 8))  # the scale that He's rule gives eight channels
    torch.save(state, folder / "thin.pt")
    return folder / "thin.pt"


if __name__ == "__main__":
    for chosen in sys.argv[1:] or RUNS:
        with tempfile.TemporaryDirectory() as place:
            make(chosen, Path(place))
