"""Losses against hand computation and MONAI's; ignored pixels, low precision, empty batches."""

from __future__ import annotations

import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss, DiceLoss

from r2seg.config.schema import Network, Training
from r2seg.data.images import IGNORE
from r2seg.errors import UserError
from r2seg.training.losses import LOSSES, OUTPUTS, Scored, SegmentationLoss, soft_dice

KINDS = tuple(LOSSES)


def batch(output: str = "softmax", size=(6, 7), num_labels: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, num_labels + 1, (3, *size), generator=generator)
    logits = torch.randn(3, num_labels + (output == "softmax"), *size, generator=generator) * 3
    return logits, label


def test_soft_dice_is_the_equation_by_hand() -> None:
    # One label in four pixels of probability .5, .5, .5, 0 (logits of the label and of background equal, or far below).
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 1, 1, 1] = -1e4
    label = torch.tensor([[[1, 1], [0, 0]]])
    # overlap 1, sum of p 1.5, sum of y 2
    assert soft_dice(Scored.of(logits, label, "softmax"), smooth=0).item() == pytest.approx(1 - 2 / 3.5)
    assert SegmentationLoss("dice", "softmax")(logits, label).item() == pytest.approx(1 - 3 / 4.5)


def test_cross_entropy_is_the_equation_by_hand() -> None:
    logits = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1).repeat(1, 1, 1, 2)  # background 1/4, label 3/4
    label = torch.tensor([[[1, 0]]])
    expected = -(math.log(3 / 4) + math.log(1 / 4)) / 2
    assert SegmentationLoss("ce", "softmax")(logits, label).item() == pytest.approx(expected)
    binary = torch.tensor([math.log(3), math.log(3)]).view(1, 1, 1, 2)  # 3/4 twice
    assert SegmentationLoss("ce", "sigmoid")(binary, label).item() == pytest.approx(expected)


@pytest.mark.parametrize("size", [(6, 7), (4, 5, 6)])
@pytest.mark.parametrize("output", OUTPUTS)
def test_dice_is_that_of_monai(output: str, size) -> None:
    logits, label = batch(output, size)
    monai = DiceLoss(include_background=False, softmax=True, batch=True, smooth_nr=1, smooth_dr=1, to_onehot_y=True)
    target = label[:, None]
    if output == "sigmoid":
        monai = DiceLoss(sigmoid=True, batch=True, smooth_nr=1, smooth_dr=1)
        target = torch.stack([label == 1, label == 2], 1).float()
    torch.testing.assert_close(SegmentationLoss("dice", output)(logits, label), monai(logits, target))


def test_the_sum_is_that_of_monai() -> None:
    logits, label = batch()
    monai = DiceCELoss(include_background=False, softmax=True, batch=True, smooth_nr=1, smooth_dr=1, to_onehot_y=True)
    torch.testing.assert_close(SegmentationLoss("dice_ce", "softmax")(logits, label), monai(logits, label[:, None]))


@pytest.mark.parametrize("output", OUTPUTS)
def test_cross_entropy_is_that_of_torch_with_its_own_ignore_index(output: str) -> None:
    logits, label = batch(output)
    label[:, 2:4] = IGNORE
    if output == "softmax":
        expected = F.cross_entropy(logits, label, ignore_index=IGNORE)
    else:
        target = torch.stack([label == 1, label == 2], 1).float()
        keep = (label != IGNORE)[:, None].expand_as(target)
        expected = F.binary_cross_entropy_with_logits(logits[keep], target[keep])
    torch.testing.assert_close(SegmentationLoss("ce", output)(logits, label), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("output", OUTPUTS)
def test_ignored_pixels_do_not_matter(kind: str, output: str) -> None:
    logits, label = batch(output)
    label[:, :, :3] = IGNORE
    loss = SegmentationLoss(kind, output)
    changed = logits.clone()
    changed[..., :3] = torch.randn(changed[..., :3].shape) * 100
    changed.requires_grad_()
    value = loss(changed, label)
    torch.testing.assert_close(value, loss(logits, label))
    torch.testing.assert_close(value, loss(logits[..., 3:], label[..., 3:]))
    value.backward()
    assert changed.grad[..., :3].abs().max() == 0
    assert changed.grad[..., 3:].abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
def test_low_precision_logits_are_computed_in_float32(dtype: torch.dtype, kind: str) -> None:
    logits, label = batch(size=(300, 300))  # sums of 90,000 pixels, far beyond what 8 bits of mantissa count
    low = logits.to(dtype)
    found = SegmentationLoss(kind, "softmax")(low, label)
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, SegmentationLoss(kind, "softmax")(low.float(), label), atol=0, rtol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(SegmentationLoss(kind, "softmax")(low, label), found, atol=0, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("value", [0, IGNORE])
def test_batches_without_a_label_or_without_a_known_pixel_have_a_finite_gradient(
    kind: str, output: str, value: int
) -> None:
    logits = batch(output)[0].requires_grad_()
    loss = SegmentationLoss(kind, output)(logits, torch.full((3, 6, 7), value))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    if value == IGNORE:
        assert loss.item() == pytest.approx(0, abs=1e-6)
        assert logits.grad.abs().max() == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("output", OUTPUTS)
def test_extreme_logits_stay_finite(kind: str, output: str) -> None:
    logits, label = batch(output)
    logits = (logits * 1e4).requires_grad_()
    loss = SegmentationLoss(kind, output)(logits, label)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("output", OUTPUTS)
def test_a_perfect_prediction_costs_nearly_nothing_and_its_opposite_much(output: str) -> None:
    _, label = batch(output)
    classes = torch.stack([label == k for k in range(output == "sigmoid", 3)], 1).float()
    loss = SegmentationLoss("dice_ce", output)
    assert loss((classes - 0.5) * 60, label).item() < 1e-3
    assert loss((0.5 - classes) * 60, label).item() > 10


def test_labels_may_be_bytes() -> None:
    logits, label = batch()
    loss = SegmentationLoss("dice_ce", "softmax")
    assert torch.equal(loss(logits, label.byte()), loss(logits, label))


def test_the_config_offers_the_losses_and_outputs_of_the_tables() -> None:
    assert get_args(Training.model_fields["loss"].annotation) == tuple(LOSSES)
    assert get_args(Network.model_fields["output"].annotation) == OUTPUTS


def test_an_unknown_loss_or_output_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(UserError, match=r"^training\.loss 'none_such' is unknown: valid are dice_ce, ce, dice"):
        SegmentationLoss("none_such", "softmax")
    with pytest.raises(UserError, match=r"^network\.output 'tanh' is unknown: valid are softmax, sigmoid$"):
        SegmentationLoss("ce", "tanh")
