"""TernausNet: the published layer plan, and weights of the public code."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from r2seg.networks import TernausNet, build_network
from r2seg.networks.legacy import convert_state_dict

# Index of each convolution of torchvision's vgg11().features, with its widths; skips are taken after the last of each group.
VGG11 = [
    [(0, 3, 64)],
    [(3, 64, 128)],
    [(6, 128, 256), (8, 256, 256)],
    [(11, 256, 512), (13, 512, 512)],
    [(16, 512, 512), (18, 512, 512)],
]
DECODER = {
    "center": (512, 512, 256),
    "dec5": (768, 512, 256),
    "dec4": (768, 512, 128),
    "dec3": (384, 256, 64),
    "dec2": (192, 128, 32),
}


def unet11_state_dict() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    layers = {f"encoder.{i}": nn.Conv2d(before, after, 3) for group in VGG11 for i, before, after in group}
    for name, (before, middle, after) in DECODER.items():
        layers[f"{name}.block.0.conv"] = nn.Conv2d(before, middle, 3)
        layers[f"{name}.block.1"] = nn.ConvTranspose2d(middle, after, 3)
    layers["dec1.conv"], layers["final"] = nn.Conv2d(96, 32, 3), nn.Conv2d(32, 1, 1)
    return {f"{name}.{key}": value for name, layer in layers.items() for key, value in layer.state_dict().items()}


def unet11(weights: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """UNet11 as the public code has it."""

    def conv(name, x, padding=1):
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=padding)

    skips = []
    for level, group in enumerate(VGG11):
        x = F.max_pool2d(x, 2) if level else x
        for index, _, _ in group:
            x = F.relu(conv(f"encoder.{index}", x))
        skips.append(x)
    x = F.max_pool2d(x, 2)
    for name in DECODER:
        x = F.relu(conv(f"{name}.block.0.conv", x))
        up = f"{name}.block.1"
        x = F.relu(
            F.conv_transpose2d(x, weights[f"{up}.weight"], weights[f"{up}.bias"], stride=2, padding=1, output_padding=1)
        )
        x = torch.cat((x, skips.pop()), 1)
    return conv("final", F.relu(conv("dec1.conv", x)), padding=0)


def test_weights_of_unet11_give_its_logits():
    weights = unet11_state_dict()
    weights["conv1.weight"] = weights["encoder.0.weight"]  # the original lists its encoder's layers a second time
    network = convert_state_dict(weights, "ternausnet")
    assert type(network) is TernausNet and network.encoder.backbone == "vgg11" and not network.training
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = unet11(weights, image)
        assert (network(image) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_the_default_is_the_papers_network_layer_by_layer():
    shapes = {
        name: tuple(value.shape)
        for name, value in convert_state_dict(unet11_state_dict(), "ternausnet").state_dict().items()
    }
    assert {name: tuple(value.shape) for name, value in TernausNet(2, 3, 1).state_dict().items()} == shapes


@pytest.mark.slow
@pytest.mark.parametrize("upsample", ["deconv", "bilinear"])
def test_the_sequel_on_vgg16_is_recognised(upsample):
    ours = TernausNet(2, 3, 2, backbone="vgg16", num_filters=16, upsample=upsample)
    assert [tuple(block[0 if upsample == "deconv" else 1].weight.shape[:2]) for block in ours.decoder] == [
        (256, 512), (256, 640), (256, 640), (128, 384), (64, 160)
    ]  # fmt: skip
    places = {"deconv": {"0": "block.0.conv", "3": "block.1"}, "bilinear": {"1": "block.1.conv", "4": "block.2.conv"}}[
        upsample
    ]
    theirs = {}
    names = ours.encoder.torchvision_names()
    for key, value in ours.state_dict().items():
        part, _, rest = key.partition(".")
        if part == "encoder":
            theirs[f"encoder.{names[rest].removeprefix('features.')}"] = value
        elif part == "decoder":
            index, place, entry = rest.split(".")
            theirs[f"{['center', 'dec5', 'dec4', 'dec3', 'dec2'][int(index)]}.{places[place]}.{entry}"] = value
        else:
            theirs[key.replace("last.0", "dec1.conv").replace("head", "final")] = value
    network = convert_state_dict(theirs, "ternausnet")
    assert all(torch.equal(value, ours.state_dict()[key]) for key, value in network.state_dict().items())
    assert network(torch.zeros(1, 3, 33, 47)).shape == (1, 2, 33, 47)


def test_weights_of_another_network_are_refused():
    weights = unet11_state_dict()
    with pytest.raises(ValueError, match="not weights of TernausNet: give a state dict of its UNet11 or UNet16"):
        convert_state_dict({name: value for name, value in weights.items() if "center" not in name}, "ternausnet")
    with pytest.raises(ValueError, match=r"decoder\.1\.0\.weight is missing there"):
        convert_state_dict({name: value for name, value in weights.items() if "dec5" not in name}, "ternausnet")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "vgg13"}, "option backbone is 'vgg13'.*: give one of vgg11, vgg16"),
        ({"num_filters": 0}, "num_filters is 0"),
        ({"spatial_dims": 3}, "spatial_dims is 3: TernausNet takes 2 for images and slices"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        build_network("TernausNet", **({"spatial_dims": 2, "in_channels": 1, "out_channels": 1} | options))
