"""Optimizers: the table is what the config offers, and every parameter gets its rate and weight decay."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch
from tiny import write_config
from torch import nn

from r2seg.config import Config, load_config
from r2seg.config.schema import Training
from r2seg.errors import UserError
from r2seg.training.optimizers import OPTIMIZERS, make_optimizer


def config_of(tmp_path: Path, **training) -> Config:
    return load_config(write_config(tmp_path / "config.yaml", tmp_path, training=training))


def test_the_config_offers_the_optimizers_of_the_table() -> None:
    assert get_args(Training.model_fields["optimizer"].annotation) == tuple(OPTIMIZERS)


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_an_optimizer_is_of_its_name_and_decays_weights_but_not_biases(name: str, kind: type, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    network[0].bias.requires_grad_(False)
    optimizer = make_optimizer(network, config_of(tmp_path, optimizer=name, learning_rate=0.5, weight_decay=0.25))
    assert type(optimizer) is kind
    groups = {group["weight_decay"]: group for group in optimizer.param_groups}
    assert {decay: len(group["params"]) for decay, group in groups.items()} == {0.25: 1, 0.0: 2}
    assert groups[0.25]["params"][0] is network[0].weight
    assert {group["lr"] for group in optimizer.param_groups} == {0.5}
    if name == "sgd":
        assert all((group["momentum"], group["nesterov"]) == (0.9, True) for group in optimizer.param_groups)


def test_pretrained_parameters_have_the_rate_of_the_backbone(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    config = config_of(tmp_path, learning_rate=0.5, backbone_learning_rate=0.125)
    groups = make_optimizer(network, config, ["0.weight", "0.bias"]).param_groups
    rates = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    assert [rates[id(parameter)] for parameter in network.parameters()] == [0.125, 0.125, 0.5, 0.5]


def test_an_unknown_optimizer_is_refused_with_the_valid_ones(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    config = config.model_copy(update={"training": config.training.model_copy(update={"optimizer": "none_such"})})
    with pytest.raises(UserError, match=r"^training\.optimizer 'none_such' is unknown: valid are adamw, sgd"):
        make_optimizer(nn.Linear(2, 2), config)
