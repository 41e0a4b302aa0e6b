"""Logits to probabilities and class indices."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

from r2seg.config import Config
from r2seg.errors import UserError
from r2seg.inference.prediction import ACTIVATIONS, DECISIONS, to_indices, to_probabilities


def test_sigmoid_labels_need_more_than_a_half() -> None:
    probabilities = torch.tensor([[0.2, 0.6, 0.7, 0.5], [0.1, 0.7, 0.6, 0.5]])
    assert to_indices(probabilities, "sigmoid", 0.5).tolist() == [0, 2, 1, 0]
    assert to_indices(probabilities.logit(), "sigmoid", 0.0).tolist() == [0, 2, 1, 0]


def test_softmax_takes_the_largest_and_sums_to_one() -> None:
    logits = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    probabilities = to_probabilities(logits, "softmax")
    torch.testing.assert_close(probabilities.sum(0), torch.ones(4, 5))
    assert torch.equal(to_indices(probabilities, "softmax", 0.5), logits.argmax(0).byte())
    torch.testing.assert_close(to_probabilities(logits, "sigmoid"), logits.sigmoid())


def test_the_outputs_are_those_that_a_config_may_name() -> None:
    outputs = sorted(get_args(Config.model_fields["network"].annotation.model_fields["output"].annotation))
    assert len(outputs) == 2
    assert sorted(ACTIVATIONS) == sorted(DECISIONS) == outputs


def test_an_unknown_output_is_refused() -> None:
    for function in (
        lambda: to_probabilities(torch.zeros(2, 3), "tanh"),
        lambda: to_indices(torch.zeros(2, 3), "tanh", 0),
    ):
        with pytest.raises(
            UserError, match=r"network\.output is 'tanh', which is unknown: give one of softmax, sigmoid"
        ):
            function()
