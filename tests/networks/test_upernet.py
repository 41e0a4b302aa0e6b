"""UPerNet: pyramid pooling against torch's own, the equation of the public code, any encoder, the auxiliary head."""

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from r2seg.networks import UPerNet, build_network
from r2seg.networks.conv_encoder import ConvEncoder
from r2seg.networks.legacy import convert_state_dict
from r2seg.networks.torchvision_encoder import TorchvisionEncoder
from r2seg.networks.upernet import average_bins

SMALL = {"backbone": "shufflenet_v2_x0_5", "pyramid_channels": 8, "pool_channels": 4}
FPN_WIDTHS = (256, 512, 1024, 2048)


@pytest.mark.parametrize("num_bins", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [(1, 1), (4, 7), (6, 12), (13, 5)])
def test_averaging_matrices_equal_adaptive_pooling(num_bins, size):
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(average_bins(x, num_bins), F.adaptive_avg_pool2d(x, num_bins))


def csail_decoder(num_classes: int, width: int, pooled: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    layers = {}

    def layer(name, before, after, kernel):
        norm = nn.BatchNorm2d(after)
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 1.5)
        layers[f"{name}.0"], layers[f"{name}.1"] = nn.Conv2d(before, after, kernel, bias=False), norm

    for index in range(4):
        layer(f"ppm_conv.{index}", 2048, pooled, 1)
    layer("ppm_last_conv", 2048 + 4 * pooled, width, 3)
    for index in range(3):
        layer(f"fpn_in.{index}", FPN_WIDTHS[index], width, 1)
        layer(f"fpn_out.{index}.0", width, width, 3)
    layer("conv_last.0", 4 * width, width, 3)
    layers["conv_last.1"] = nn.Conv2d(width, num_classes, 1)
    state = {f"{name}.{key}": value for name, part in layers.items() for key, value in part.state_dict().items()}
    return state | {"conv_last.0.1._tmp_running_mean": torch.zeros(width), "conv_last.0.1._running_iter": torch.ones(1)}


def csail_logits(weights: dict[str, torch.Tensor], maps: list[torch.Tensor]) -> torch.Tensor:
    """The original's logits at the finest map, as the public code has it: pooling as a layer, convolution after resizing."""

    def layer(name, x):
        kernel = weights[f"{name}.0.weight"]
        x = F.conv2d(x, kernel, padding=kernel.shape[-1] // 2)
        mean, variance, scale, shift = (
            weights[f"{name}.1.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return F.relu(F.batch_norm(x, mean, variance, scale, shift))

    def resize(x, like):
        return F.interpolate(x, like.shape[2:], mode="bilinear", align_corners=False)

    deepest = maps[-1]
    pools = [
        layer(f"ppm_conv.{i}", resize(F.adaptive_avg_pool2d(deepest, bins), deepest))
        for i, bins in enumerate((1, 2, 3, 6))
    ]
    x = layer("ppm_last_conv", torch.cat([deepest, *pools], 1))
    levels = [x]
    for index in (2, 1, 0):
        lateral = layer(f"fpn_in.{index}", maps[index])
        x = lateral + resize(x, lateral)
        levels.insert(0, layer(f"fpn_out.{index}.0", x))
    x = layer("conv_last.0", torch.cat([resize(level, levels[0]) for level in levels], 1))
    return F.conv2d(x, weights["conv_last.1.weight"], weights["conv_last.1.bias"])


def test_weights_of_a_csail_decoder_give_its_logits_and_the_missing_encoder_is_reported(caplog):
    weights = csail_decoder(5, 16, 8)
    with caplog.at_level(logging.WARNING):
        network = convert_state_dict(weights, "csail-upernet")
    assert "its encoder, a resnet50, keeps random weights" in caplog.text
    maps = [torch.randn(1, width, 2 ** (5 - i) + 1, 2 ** (4 - i) + 1) for i, width in enumerate(FPN_WIDTHS)]
    with torch.no_grad():
        expected = csail_logits(weights, maps)
        ours = network.head(network.decoder(maps))
    assert (ours - expected).abs().max() < 1e-5 * expected.abs().max()


def test_weights_of_a_csail_encoder_with_its_deep_stem_give_its_maps():
    torch.manual_seed(2)
    source = TorchvisionEncoder("resnet50_deep_stem")
    for module in source.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    encoder = {source.torchvision_names()[key]: value for key, value in source.state_dict().items()}
    assert encoder["conv1.weight"].shape == (64, 3, 3, 3) and encoder["conv3.weight"].shape == (128, 64, 3, 3)
    assert encoder["layer1.0.downsample.0.weight"].shape == (256, 128, 1, 1)
    decoder = csail_decoder(5, 16, 8)
    network = convert_state_dict(
        {"encoder": encoder | {"fc.weight": torch.zeros(1000, 2048)}, "decoder": decoder}, "csail-upernet"
    )
    assert network.encoder.backbone == "resnet50_deep_stem" and list(network.pretrained_parameters())
    image = torch.randn(1, 3, 64, 65)

    def deep_stem(x):  # three convolutions, each with norm and activation, then the pooling
        for i, stride in ((1, 2), (2, 1), (3, 1)):
            norm = [encoder[f"bn{i}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")]
            x = F.relu(F.batch_norm(F.conv2d(x, encoder[f"conv{i}.weight"], stride=stride, padding=1), *norm))
        return x

    with torch.no_grad():
        stem = network.encoder(image)[0]
        torch.testing.assert_close(stem, deep_stem(image), rtol=1e-4, atol=1e-5)
        logits = csail_logits(decoder, network.encoder(image)[1:])
        expected = F.interpolate(logits, image.shape[2:], mode="bilinear", align_corners=False)
        assert (network(image) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_encoders_and_decoders_that_are_not_csails_upernet_are_refused():
    decoder = csail_decoder(2, 8, 4)
    with pytest.raises(ValueError, match="these weights have 3 ppm_conv and 3 fpn_in: give a UPerNet decoder"):
        convert_state_dict(
            {name: value for name, value in decoder.items() if "ppm_conv.3" not in name}, "csail-upernet"
        )
    with pytest.raises(ValueError, match="encoder of these weights is none of csail-upernet's ResNet-50"):
        convert_state_dict(
            {"encoder": {"features.0.0.weight": torch.zeros(32, 3, 3, 3)}, "decoder": decoder}, "csail-upernet"
        )


def test_any_encoder_of_the_contract_will_do():
    recurrent = {
        "backbone_options": {"channels": [4, 4, 6, 6, 8, 8], "steps": 1},
        "pyramid_channels": 8,
        "pool_channels": 4,
    }
    network = UPerNet(2, 1, 2, backbone="recurrent_residual", **recurrent).eval()
    assert isinstance(network.encoder, ConvEncoder) and network.first == 2 and network.least_size == (32, 32)
    assert network(torch.randn(1, 1, 70, 45)).shape == (1, 2, 70, 45)
    own = ConvEncoder(2, 1, [4, 6, 8], unit=lambda before, after: nn.Conv2d(before, after, 3, padding=1))
    full = UPerNet(2, 1, 2, backbone=own, finest=1, pyramid_channels=8, pool_channels=4).eval()
    assert full.first == 0 and full(torch.randn(1, 1, 21, 19)).shape == (1, 2, 21, 19)
    assert list(full.pretrained_parameters()) == []


@pytest.mark.parametrize("backbone", ["swin_t", pytest.param("convnext_tiny", marks=pytest.mark.slow), "vgg11"])
def test_the_pyramid_starts_at_a_quarter_whatever_the_backbone(backbone):
    network = UPerNet(2, 1, 2, backbone=backbone, pyramid_channels=8, pool_channels=4).eval()
    assert [rows for rows, _ in network.encoder.reductions[network.first :]] == [4, 8, 16, 32]
    with torch.no_grad():
        assert network(torch.randn(1, 1, 65, 50)).shape == (1, 2, 65, 50)


def test_the_auxiliary_head_gives_a_second_map_of_logits_and_learns():
    network = UPerNet(2, 1, 3, auxiliary=True, **SMALL)
    image = torch.randn(2, 1, 64, 70)
    logits, auxiliary = network.forward_with_auxiliary(image)
    assert logits.shape == auxiliary.shape == (2, 3, 64, 70) and not torch.equal(logits, auxiliary)
    auxiliary.square().mean().backward()
    assert all(p.grad is not None for p in network.auxiliary_head.parameters())
    # the head sees the map at 1/16, so the stage after it gets no gradient from it
    assert all(p.grad is not None for p in network.encoder.trunk[3].parameters())
    assert all(p.grad is None for p in network.encoder.trunk[4].parameters())
    network.eval()
    torch.testing.assert_close(network.forward_with_auxiliary(image)[0], network(image))
    assert len(UPerNet(2, 1, 3, **SMALL).forward_with_auxiliary(image)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_dims": 3}, "spatial_dims is 3: UPerNet takes 2 for images and slices"),
        ({"finest": 32}, r"finest is 32 but the encoder's maps are at reductions \[2, 4, 8, 16, 32\]"),
        ({"backbone": "recurrent", "pretrained": True}, "backbone recurrent has no pretrained weights"),
        ({"backbone_options": {"steps": 2}}, "backbone_options is for plain, residual, recurrent, recurrent_residual"),
        (
            {"backbone": "recurrent", "backbone_options": {"stepz": 2}},
            "backbone_options .*stepz.* do not fit recurrent",
        ),
        ({"pool_sizes": [0]}, r"pool_sizes is \[0\]"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        build_network("UPerNet", **({"spatial_dims": 2, "in_channels": 1, "out_channels": 1} | SMALL | options))
