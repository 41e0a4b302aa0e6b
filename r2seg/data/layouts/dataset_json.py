"""dataset.json of the Medical Segmentation Decathlon and of nnU-Net, in both dialects: labels, channels, lists of cases."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r2seg.errors import UserError

NAME = "dataset.json"


@dataclass(frozen=True)
class DatasetJson:
    """What a dataset.json says.

    Attributes:
        labels: Name -> value(s) of the foreground labels.
        ignore_label: Value of the label "ignore", if there is one.
        channels: Names of the channels, such as ("FLAIR", "T1w"), in order.
        training: Pairs of image and label, relative to the file, or None if it lists none.
    """

    labels: dict[str, tuple[int, ...]]
    ignore_label: int | None
    channels: tuple[str, ...]
    training: tuple[tuple[str, str], ...] | None


def read_dataset_json(root: Path) -> DatasetJson | None:
    """The dataset.json in a folder, or None if there is none.

    The Decathlon writes ``modality`` and labels as value -> name; nnU-Net ``channel_names`` and labels as name -> value, or name ->
    values for regions.

    Raises:
        UserError: The file cannot be read, or is not such a file.
    """
    path = root / NAME
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}): get the file again, or remove it") from None
    try:
        labels = _labels(content.get("labels", {}))
        channels = content.get("channel_names") or content.get("modality") or {}
        names = [channels[key] for key in sorted(channels, key=int)] if isinstance(channels, Mapping) else channels
        listed = content.get("training")
        training = None if listed is None else tuple((str(one["image"]), str(one["label"])) for one in listed)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(
            f"{path}: is not a dataset.json of the Decathlon or of nnU-Net: correct its labels, channels or training, or remove it"
        ) from None
    ignored = labels.pop("ignore", (None,))[0]
    return DatasetJson({k: v for k, v in labels.items() if v != (0,)}, ignored, tuple(map(str, names)), training)


def _labels(given: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    labels: dict[str, tuple[int, ...]] = {}
    for key, value in given.items():
        if isinstance(value, str):  # the Decathlon's {"1": "liver"}; two values of one name are one label
            labels[value] = (*labels.get(value, ()), int(key))
        else:
            labels[key] = tuple(map(int, value)) if isinstance(value, list) else (int(value),)
    return labels
