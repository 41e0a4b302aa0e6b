"""Counts against hand-counted pixels and sets, and the rules for empty masks."""

import math

import numpy as np
import pytest
import torch

from r2seg.metrics import Counts, confusion_matrix, count_confusion, dice, iou

REFERENCE = torch.tensor([[0, 1, 1], [0, 1, 2], [0, 0, 2]], dtype=torch.uint8)
PREDICTION = torch.tensor([[0, 1, 0], [1, 1, 2], [0, 2, 1]], dtype=torch.uint8)


def numbers(counts: Counts) -> list[list[int]]:
    return [counts.tp.tolist(), counts.fp.tolist(), counts.fn.tolist(), counts.tn.tolist()]


def test_counts_of_a_hand_counted_map():
    assert numbers(count_confusion(PREDICTION, REFERENCE, 2)) == [[2, 1], [2, 1], [1, 1], [4, 6]]
    assert dice(count_confusion(PREDICTION, REFERENCE, 2)).tolist() == [4 / 7, 2 / 4]
    assert iou(count_confusion(PREDICTION, REFERENCE, 2)).tolist() == [2 / 5, 1 / 3]


def test_confusion_matrix_has_the_reference_in_rows():
    assert confusion_matrix(PREDICTION, REFERENCE, 2).tolist() == [[2, 1, 1], [1, 2, 0], [0, 1, 1]]


def test_pixels_labelled_255_in_the_reference_are_not_counted():
    reference, prediction = REFERENCE.clone(), PREDICTION.clone()
    reference[2] = 255
    assert numbers(count_confusion(PREDICTION, reference, 2)) == [[2, 1], [1, 0], [1, 0], [2, 5]]
    prediction[2] = 77  # whatever they hold
    assert numbers(count_confusion(prediction, reference, 2)) == [[2, 1], [1, 0], [1, 0], [2, 5]]


def test_empty_against_empty_is_nan_and_a_prediction_on_an_empty_reference_is_zero():
    empty, some = torch.zeros(4, 4, dtype=torch.int64), torch.ones(4, 4, dtype=torch.int64)
    for score in (dice, iou):
        assert math.isnan(score(count_confusion(empty, empty, 1)))
        assert score(count_confusion(some, empty, 1)).item() == 0
        assert score(count_confusion(empty, some, 1)).item() == 0
        assert score(count_confusion(some, some, 1)).item() == 1


@pytest.mark.parametrize(
    "dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32]
)
def test_every_integer_dtype_gives_the_same_counts(dtype):
    counts = count_confusion(PREDICTION.to(dtype), REFERENCE.to(dtype), 2)
    assert numbers(counts) == numbers(count_confusion(PREDICTION, REFERENCE, 2))
    assert counts.tp.dtype == torch.int64


def test_boolean_maps_count_as_one_label():
    assert numbers(count_confusion(PREDICTION == 1, REFERENCE == 1, 1)) == [[2], [2], [1], [4]]


def test_counts_add_up_over_slabs():
    whole = count_confusion(PREDICTION, REFERENCE, 2)
    parts = [count_confusion(PREDICTION[i], REFERENCE[i], 2) for i in range(3)]
    assert np.sum([numbers(part) for part in parts], axis=0).tolist() == numbers(whole)


def test_counts_equal_sets_of_numpy_on_random_maps_larger_than_a_chunk():
    generator = np.random.default_rng(0)
    shape = (170, 171, 172)  # more than one chunk
    prediction, reference = generator.integers(0, 4, (2, *shape), dtype=np.uint8)
    reference[generator.random(shape) < 0.3] = 255
    counts = count_confusion(*map(torch.from_numpy, (prediction, reference)), 3)
    valid = reference != 255
    for index in range(3):
        p, r = (prediction == index + 1)[valid], (reference == index + 1)[valid]
        expected = [(p & r).sum(), (p & ~r).sum(), (~p & r).sum(), (~p & ~r).sum()]
        assert [int(row[index]) for row in numbers(counts)] == expected


def test_a_value_that_is_no_class_is_refused_with_its_value():
    with pytest.raises(ValueError, match=r"prediction holds \[2\]: expected class indices 0 to 1"):
        count_confusion(PREDICTION, REFERENCE.clamp(max=1), 1)
    with pytest.raises(ValueError, match=r"reference holds \[2\]"):
        count_confusion(PREDICTION.clamp(max=1), REFERENCE, 1)
    with pytest.raises(ValueError, match=r"prediction holds values from -1 to 1"):
        count_confusion(torch.tensor([-1, 1]), torch.tensor([0, 1]), 1)
    with pytest.raises(ValueError, match=r"prediction is torch\.float32: class indices are integers"):
        count_confusion(PREDICTION.float(), REFERENCE, 2)


def test_shapes_that_differ_are_refused_with_both():
    with pytest.raises(ValueError, match=r"reference of shape \(2, 3\) against prediction of \(3, 3\)"):
        count_confusion(PREDICTION, REFERENCE[:2], 2)


@pytest.mark.gpu
def test_counts_on_the_gpu_equal_those_on_the_cpu():
    generator = torch.Generator().manual_seed(0)
    prediction, reference = torch.randint(0, 5, (2, 300, 301, 40), generator=generator, dtype=torch.uint8)
    counts = count_confusion(prediction.cuda(), reference.cuda(), 4)
    assert counts.tp.device.type == "cuda"
    assert numbers(counts.to("cpu")) == numbers(count_confusion(prediction, reference, 4))
