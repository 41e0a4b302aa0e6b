"""Components and holes of a label map: what is kept, what is filled, and what is left alone."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
from skimage.measure import label as label_components

from r2seg.config import FillHoles, LargestComponents, PostprocessingStep
from r2seg.errors import UserError
from r2seg.inference.postprocessing import POSTPROCESSING, fill_holes, keep_largest_components, postprocess


def of(*rows: str) -> np.ndarray:
    return np.array([[int(letter) for letter in row.replace(".", "0")] for row in rows], np.uint8)


def test_the_largest_component_stays_and_the_others_become_background() -> None:
    found = keep_largest_components(of("11..1", "1...1", ".....", "22.11"), index=1)
    assert np.array_equal(found, of("11...", "1....", ".....", "22..."))
    assert found.dtype == np.uint8


def test_the_two_largest_stay_if_two_are_requested() -> None:
    indices = of("11.11", "1...1", ".....", "1..22")
    assert np.array_equal(keep_largest_components(indices, 1, count=2), of("11.11", "1...1", ".....", "...22"))
    assert np.array_equal(keep_largest_components(indices, 1, count=3), indices)
    assert np.array_equal(keep_largest_components(indices, 1, count=9), indices)


def test_components_touch_by_corners_too() -> None:
    indices = of("1..", ".1.", "..1")
    assert np.array_equal(keep_largest_components(indices, 1), indices)
    corner = np.zeros((3, 3, 3), np.uint8)
    corner[0, 0, 0] = corner[1, 1, 1] = 1
    assert np.array_equal(keep_largest_components(corner, 1), corner)


def test_of_equal_components_the_first_stays() -> None:
    assert np.array_equal(keep_largest_components(of("11.11"), 1), of("11..."))


def test_a_class_that_is_not_there_changes_nothing() -> None:
    indices = of("22.", "..2")
    assert np.array_equal(keep_largest_components(indices, 1), indices)
    assert np.array_equal(fill_holes(indices, 1), indices)


def test_other_classes_do_not_join_components() -> None:
    assert np.array_equal(keep_largest_components(of("111211"), 1), of("1112.."))


@pytest.mark.parametrize("shape", [(40, 40), (12, 14, 10)])
def test_components_are_those_of_scikit_image(shape) -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        indices = rng.choice(np.array([0, 1, 2], np.uint8), shape, p=[0.75, 0.15, 0.1])
        components = label_components(indices == 1, connectivity=len(shape))
        largest = np.sort(np.bincount(components.ravel())[1:])[::-1][:3]
        found = keep_largest_components(indices, 1, count=3)
        sizes = np.bincount(label_components(found == 1, connectivity=len(shape)).ravel())[1:]
        assert sorted(sizes, reverse=True) == largest.tolist()
        assert np.array_equal(found == 2, indices == 2)
        assert (indices[found == 1] == 1).all()


def test_enclosed_background_is_filled_and_other_labels_in_it_are_not() -> None:
    indices = of("11111", "1...1", "1.2.1", "11111", ".....")
    assert np.array_equal(fill_holes(indices, 1), of("11111", "11111", "11211", "11111", "....."))
    assert fill_holes(indices, 1).dtype == np.uint8


def test_a_bay_and_a_hole_at_the_border_are_not_holes() -> None:
    indices = of("1.1", "1.1", "111")
    assert np.array_equal(fill_holes(indices, 1), indices)


def test_a_tunnel_through_a_volume_is_not_a_hole_but_a_cavity_is() -> None:
    block = np.ones((5, 5, 5), np.uint8)
    tunnel = block.copy()
    tunnel[2, 2, :] = 0
    assert np.array_equal(fill_holes(tunnel, 1), tunnel)
    cavity = block.copy()
    cavity[2, 2, 1:4] = 0
    assert np.array_equal(fill_holes(cavity, 1), block)


def test_steps_run_in_their_order_by_the_names_of_labels() -> None:
    labels = {"ring": (7,), "dot": (1,)}
    indices = of("111..", "1.1.1", "111..", "2...2")
    steps = (FillHoles(step="fill_holes", label="ring"), LargestComponents(step="largest_components", label="ring"))
    assert np.array_equal(postprocess(indices, steps, labels), of("111..", "111..", "111..", "2...2"))
    dot = (LargestComponents(step="largest_components", label="dot"),)
    assert np.array_equal(postprocess(indices, dot, labels), of("111..", "1.1.1", "111..", "2...."))
    assert postprocess(indices, (), labels) is indices


def test_the_input_is_left_alone() -> None:
    indices = of("111..", "1.1.1", "111..")
    before = indices.copy()
    postprocess(
        indices,
        [LargestComponents(step="largest_components", label="a"), FillHoles(step="fill_holes", label="a")],
        {"a": 1},
    )
    assert np.array_equal(indices, before)


def test_the_steps_and_their_options_are_those_that_a_config_may_name() -> None:
    sections = get_args(get_args(PostprocessingStep)[0])
    steps = {step: section for section in sections for step in get_args(section.model_fields["step"].annotation)}
    assert len(steps) >= 2
    assert sorted(steps) == sorted(POSTPROCESSING)
    for name, section in steps.items():
        options = set(section.model_fields) - {"step", "label"}
        assert set(inspect.signature(POSTPROCESSING[name]).parameters) - {"indices", "index"} == options


def test_an_unknown_step_is_refused() -> None:
    step = SimpleNamespace(step="erode", label="a", model_dump=lambda **_: {})
    with pytest.raises(UserError, match="'erode', which is unknown: give one of largest_components, fill_holes"):
        postprocess(np.zeros((2, 2), np.uint8), [step], {"a": 1})
