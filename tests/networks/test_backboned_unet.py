"""BackbonedUNet: the equation of the public network it follows, its options, its two groups of parameters."""

import pytest
import torch
import torch.nn.functional as F
import torchvision.models
from torch import nn

from r2seg.networks import BackbonedUNet, build_network
from r2seg.networks.legacy import convert_state_dict

SMALL = {"backbone": "shufflenet_v2_x0_5", "decoder_channels": [16, 8, 8, 4, 4]}


class OriginalByTheFacts(nn.Module):
    """backboned-unet on ResNet-18 as the public code has it: key layout and equation, for both ways of upsampling."""

    def __init__(self, deconv: bool, norm: bool, filters=(12, 10, 8, 6, 4)):
        super().__init__()
        self.backbone = torchvision.models.resnet18(weights=None)
        self.upsample_blocks = nn.ModuleList()
        before = 512
        for width, skip in zip(filters, (256, 128, 64, 64, 0), strict=True):
            block = nn.Module()
            if deconv:
                block.up = nn.ConvTranspose2d(before, width, 4, 2, 1, bias=not norm)
            else:
                block.conv1 = nn.Conv2d(before + skip, width, 3, padding=1, bias=not norm)
            block.conv2 = nn.Conv2d(width + (skip if deconv else 0), width, 3, padding=1, bias=not norm)
            block.bn1, block.bn2 = (nn.BatchNorm2d(width) if norm else nn.Identity() for _ in range(2))
            self.upsample_blocks.append(block)
            before = width
        self.final_conv = nn.Conv2d(before, 3, 1)

    def forward(self, x):
        b = self.backbone
        relu = b.relu(b.bn1(b.conv1(x)))
        layer1 = b.layer1(b.maxpool(relu))
        layer2 = b.layer2(layer1)
        layer3 = b.layer3(layer2)
        x = b.layer4(layer3)
        for block, skip in zip(self.upsample_blocks, (layer3, layer2, layer1, relu, None), strict=True):
            if hasattr(block, "up"):
                x = F.relu(block.bn1(block.up(x)))
            else:
                x = F.interpolate(x, scale_factor=2, mode="bilinear")
            if skip is not None:
                x = torch.cat((x, skip), 1)
            if hasattr(block, "conv1"):
                x = F.relu(block.bn1(block.conv1(x)))
            x = F.relu(block.bn2(block.conv2(x)))
        return self.final_conv(x)


def randomise(network: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return network.eval()


@pytest.mark.parametrize(("deconv", "norm"), [(True, True), (False, True), (True, False)])
def test_weights_of_backboned_unet_give_its_logits(deconv, norm):
    original = randomise(OriginalByTheFacts(deconv, norm))
    network = convert_state_dict(original.state_dict(), "backboned-unet")
    assert type(network) is BackbonedUNet and not network.training
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = original(image)
        assert (network(image) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_weights_of_dataparallel_inside_a_checkpoint_are_found():
    original = randomise(OriginalByTheFacts(True, True))
    checkpoint = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in original.state_dict().items()}}
    network = convert_state_dict(checkpoint, "backboned-unet")
    assert torch.equal(network.head.weight, original.final_conv.weight)


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone", ["vgg16_bn", "vgg19_bn", "densenet121", "densenet161", "densenet169", "densenet201", "resnet152"]
)
def test_the_original_backbones_are_recognised_by_their_layers(backbone):
    ours = BackbonedUNet(2, 3, 2, backbone=backbone)
    names, is_resnet = ours.encoder.torchvision_names(), backbone.startswith("resnet")
    theirs = {}
    for key, value in ours.state_dict().items():
        part, _, rest = key.partition(".")
        if part == "encoder":
            theirs[f"backbone.{names[rest].removeprefix('' if is_resnet else 'features.')}"] = value
        elif part == "head":
            theirs[f"final_conv.{rest}"] = value
        else:
            index, kind, place, entry = rest.replace("convs.0.", "convs.").split(".")
            layer = {("up", "0"): "up", ("up", "1"): "bn1", ("convs", "0"): "conv2", ("convs", "1"): "bn2"}[kind, place]
            theirs[f"upsample_blocks.{index}.{layer}.{entry}"] = value
    network = convert_state_dict(theirs, "backboned-unet")
    assert network.encoder.backbone == backbone
    assert all(torch.equal(value, ours.state_dict()[key]) for key, value in network.state_dict().items())


def test_weights_of_another_origin_are_refused_with_what_was_found():
    state_dict = {
        "backbone.module1.conv1.weight": torch.zeros(64, 3, 3, 3),
        "final_conv.weight": torch.zeros(1, 16, 1, 1),
    }
    with pytest.raises(
        ValueError, match="no backbone of backboned-unet that is known here: give those of a Unet on ResNet"
    ):
        convert_state_dict(state_dict, "backboned-unet")
    short = {
        name: value for name, value in OriginalByTheFacts(True, True).state_dict().items() if "blocks.4" not in name
    }
    with pytest.raises(ValueError, match="these weights have 4 upsample_blocks"):
        convert_state_dict(short, "backboned-unet")


def test_pretrained_parameters_are_those_of_a_trained_encoder(tmp_path):
    model = torchvision.models.resnet18(weights=None)
    torch.save(model.state_dict(), tmp_path / "resnet18.pth")
    options = {"backbone": "resnet18", "decoder_channels": [8, 8, 4, 4, 4]}
    network = BackbonedUNet(2, 1, 2, pretrained=str(tmp_path / "resnet18.pth"), **options)
    assert [id(p) for p in network.pretrained_parameters()] == [id(p) for p in network.encoder.parameters()]
    # the adapted stem was summed over the colours, not drawn anew: it counts as pretrained
    torch.testing.assert_close(network.encoder.trunk[0].conv1.weight, model.conv1.weight.sum(1, keepdim=True))
    fresh = BackbonedUNet(2, 1, 2, **options)
    assert list(fresh.pretrained_parameters()) == []


def test_a_frozen_backbone_gets_no_gradient_and_keeps_its_statistics():
    network = BackbonedUNet(2, 1, 2, freeze_backbone=True, **SMALL).train()
    before = {key: value.clone() for key, value in network.encoder.state_dict().items()}
    network(torch.randn(2, 1, 64, 64)).square().mean().backward()
    assert all(p.grad is None for p in network.encoder.parameters())
    assert all(p.grad is not None for p in network.decoder.parameters())
    assert all(torch.equal(value, before[key]) for key, value in network.encoder.state_dict().items())
    assert network.decoder.training


@pytest.mark.parametrize("skips", [None, [], [2, 16], [8]])
@pytest.mark.parametrize("upsample", ["deconv", "bilinear"])
def test_any_choice_of_skips_keeps_the_grid(skips, upsample):
    network = BackbonedUNet(2, 2, 3, skips=skips, upsample=upsample, **SMALL).eval()
    assert network(torch.randn(1, 2, 45, 83)).shape == (1, 3, 45, 83)
    joined = [level for level, block in enumerate(network.decoder) if block.joins]
    assert joined == {None: [0, 1, 2, 3], (): [], (2, 16): [0, 3], (8,): [1]}[None if skips is None else tuple(skips)]


SLOWER = [pytest.param(name, marks=pytest.mark.slow) for name in ("convnext_tiny", "densenet121")]  # maps as of others


@pytest.mark.parametrize("backbone", ["vgg11", "swin_t", *SLOWER])
def test_maps_at_full_resolution_or_none_at_half_fit_the_same_decoder(backbone):
    network = BackbonedUNet(2, 1, 2, backbone=backbone, decoder_channels=[8, 8, 4, 4, 4]).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 1, 65, 35)).shape == (1, 2, 65, 35)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spatial_dims": 3}, "spatial_dims is 3: BackbonedUNet takes 2 for images and slices"),
        ({"backbone": "resnet19"}, "unknown backbone 'resnet19'; did you mean .*resnet1"),
        ({"decoder_channels": [8, 8]}, "decoder_channels has 2 widths but shufflenet_v2_x0_5 reduces by 32: give 5"),
        ({"skips": [3]}, r"skips is \[3\] but shufflenet_v2_x0_5 has maps at reductions \[2, 4, 8, 16\]"),
        ({"upsample": "nearest"}, "option upsample is 'nearest'"),
        ({"pretrained": "nowhere.pth"}, "nowhere.pth: there is no such file of weights"),
    ],
)
def test_wrong_options_are_named_with_their_remedy(options, message):
    sizes = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
    with pytest.raises(ValueError, match=message):
        build_network("BackbonedUNet", **(sizes | SMALL | options))


def test_one_value_to_normalise_in_training_is_refused_with_what_to_give():
    network = BackbonedUNet(2, 1, 2, **SMALL).train()
    with pytest.raises(
        ValueError,
        match=r"image is 32 x 20 pixels, one in the deepest map.*give at least 1 x 33, or two images per batch",
    ):
        network(torch.randn(1, 1, 32, 20))
    assert network(torch.randn(1, 1, 32, 33)).shape[2:] == (32, 33)
    assert network.eval()(torch.randn(1, 1, 32, 20)).shape[2:] == (32, 20)
