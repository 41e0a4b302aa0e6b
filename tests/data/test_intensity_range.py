"""Whether a case's intensities are like those of the training cases."""

import json

import numpy as np
import pytest

from r2seg.config import Preprocessing
from r2seg.data.intensity import measure_intensity
from r2seg.data.intensity_range import measure_ranges, ranges_of, unlike_training

RNG = np.random.default_rng(0)


def ct(offset: int = 0, tissue: float = 0.5) -> np.ndarray:
    """(1, *S): air, tissue and a little bone, in Hounsfield units plus an offset."""
    kinds = RNG.choice(3, (30, 30, 20), p=[0.95 - tissue, tissue, 0.05])
    voxels = np.array([-1000, 40, 700])[kinds] + RNG.normal(0, 15, kinds.shape)
    return (voxels + offset).astype(np.int16)[None]


def kind(name: str, **options) -> Preprocessing:
    return Preprocessing.model_validate({"intensity": {"kind": name, **options}})


def message(case: np.ndarray, training: list[np.ndarray], preprocessing: Preprocessing) -> str | None:
    ranges = measure_ranges((array, measure_intensity(array, preprocessing)) for array in training)
    read_back = ranges_of(json.loads(json.dumps(ranges)))
    return unlike_training(case, measure_intensity(case, preprocessing), read_back)


CT = kind("hu_window", low=-1000, high=400)


def test_a_ct_with_an_offset_of_1024_is_unlike_and_other_patients_are_not():
    training = [ct(tissue=share) for share in (0.3, 0.4, 0.6)]
    assert message(ct(tissue=0.2), training, CT) is None
    assert message(ct(tissue=0.7), training, CT) is None
    text = message(ct(offset=1024), training, CT)
    assert "are unlike those of the training cases" in text
    low = np.percentile(ct(offset=1024), 0.5)
    assert float(text.split("intensities, ")[1].split(" to ")[0]) == pytest.approx(low, abs=10)
    assert message(ct(offset=-1024), training, CT) is not None


def test_padding_that_the_window_cuts_off_is_not_unlike():
    padded = ct()
    padded[0, :5] = -3024
    assert message(padded, [ct(), ct()], CT) is None


def test_pictures_of_another_range_are_unlike():
    picture = RNG.integers(0, 256, (3, 40, 40)).astype(np.uint8)
    unit = kind("unit")
    assert message(picture, [picture], unit) is None
    assert message((picture / 255).astype(np.float32), [picture], unit) is None  # the same for the network
    assert message((picture / 16).astype(np.uint8), [picture], unit).startswith("channel 0: its intensities, 0 to 15")
    dark = picture.copy()
    dark[2] = 255
    assert message(dark, [picture], unit).startswith("channel 2: ")


def test_another_scale_does_not_matter_where_each_case_is_measured():
    mr = RNG.gamma(2, 100, (1, 30, 30, 10)).astype(np.float32)
    for preprocessing in (kind("zscore"), kind("percentile", low=1, high=99)):
        assert message(mr * 7 + 30, [mr], preprocessing) is None


@pytest.mark.parametrize("damaged", [3, [3], [{"file": [0, 1]}], [{"file": [0], "low": [0, 1], "high": [0, 1]}]])
def test_a_damaged_range_is_a_value_error(damaged):
    with pytest.raises(ValueError):
        ranges_of(damaged)
