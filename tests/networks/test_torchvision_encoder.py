"""Torchvision's backbones as encoders: the same maps as inside torchvision's own models, and nothing touched on the way."""

import functools

import pytest
import torch
from torch import nn

from r2seg.networks import BackbonedUNet
from r2seg.networks.backbones import backbone_names
from r2seg.networks.torchvision_encoder import TorchvisionEncoder

ONE_OF_EACH_FAMILY = [
    "resnet18",
    "densenet121",
    "efficientnet_b0",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "convnext_tiny",
    "regnet_y_400mf",
    "mnasnet0_5",
    "shufflenet_v2_x0_5",
    "swin_t",
]
HEAVY = {
    "vgg11",
    "vgg13_bn",
    "resnext50_32x4d",
    "wide_resnet50_2",
    "efficientnet_v2_s",
    "swin_v2_t",
    "resnet50",
    "vgg19_bn",
    "densenet161",
}
# Which levels of a Swin shift their windows depends on the image's size: a trace records it as it was, so that other sizes come
# out wrong; an export holds only at sizes at which the same levels shift their windows.
BOUND_TO_SIZES = ("swin",)


@functools.cache
def encoder_of(name: str) -> TorchvisionEncoder:
    """An encoder in evaluation mode that tests share: building some takes a second. Run it, do not change it."""
    return TorchvisionEncoder(name).eval()


def check_against_torchvision(name: str, model: nn.Module, saved) -> None:
    encoder = TorchvisionEncoder(name, pretrained=saved(model)).eval()
    image = torch.randn(1, 3, 96, 64)
    expected = {}
    for stage in encoder.trunk:
        last_child = next(reversed(stage._modules))
        path = next(
            path
            for key, path in encoder.trunk.paths.items()
            if stage is encoder.trunk[int(key.split(".")[0])] and key.endswith(f".{last_child}")
        )
        model.get_submodule(path).register_forward_hook(
            lambda _module, _inputs, output, path=path: expected.setdefault(path, output.clone())
        )
    with torch.no_grad():
        model(image)
        maps = encoder(image)
    assert len(maps) == len(expected) == len(encoder.channels) == len(encoder.reductions) >= 4
    for own, other, channels, (rows, columns) in zip(
        maps, expected.values(), encoder.channels, encoder.reductions, strict=True
    ):
        other = other.permute(0, 3, 1, 2) if name.startswith("swin") else other
        assert own.shape == (1, channels, 96 // rows, 64 // columns)
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ONE_OF_EACH_FAMILY)
def test_maps_are_those_inside_torchvisions_model_and_as_declared(name, torchvision_model, saved):
    check_against_torchvision(name, torchvision_model(name), saved)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(HEAVY))
def test_maps_of_the_larger_families_are_those_inside_torchvisions_model(name, torchvision_model, saved):
    check_against_torchvision(name, torchvision_model(name), saved)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [n for n in backbone_names() if n not in {"regnet_y_128gf", "regnet_x_32gf", "regnet_y_32gf", "efficientnet_b7"}],
)
def test_every_backbone_builds_and_reduces_by_32(name):
    encoder = TorchvisionEncoder(name)
    assert [r[0] for r in encoder.reductions] in ([1, 2, 4, 8, 16, 32], [2, 4, 8, 16, 32], [4, 8, 16, 32])


def test_every_family_is_among_the_names():
    names = backbone_names()
    assert set(names) >= {
        *("vgg11", "vgg13_bn", "vgg16", "vgg19_bn", "resnet152", "resnext101_64x4d", "wide_resnet101_2", "densenet161"),
        *("efficientnet_b7", "efficientnet_v2_l", "mobilenet_v2", "mobilenet_v3_large", "convnext_large"),
        *("regnet_x_8gf", "mnasnet1_3", "shufflenet_v2_x2_0", "swin_b"),
    }


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "efficientnet_b0"])
def test_building_touches_no_batchnorm_statistic(name):
    for module in encoder_of(name).modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.num_batches_tracked == 0 and not module.running_mean.any() and (module.running_var == 1).all()


def test_later_stages_do_not_change_the_maps_of_earlier_ones_in_place():
    for name in ("vgg11", "resnet18", "mnasnet0_5", "shufflenet_v2_x0_5"):
        encoder = encoder_of(name)
        x = image = torch.randn(1, 3, 64, 64)
        alone = []
        for stage in encoder.trunk:
            x = stage(x)
            alone.append(x.detach().clone())
        for a, b in zip(alone, encoder(image), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["vgg11", "resnet18", "densenet121", "convnext_tiny", "swin_t"])
def test_the_least_size_passes_and_one_pixel_less_is_refused_by_name(name):
    encoder = encoder_of(name)
    least = encoder.least_size
    assert least == {"vgg11": 32, "densenet121": 29, "convnext_tiny": 32, "swin_t": 4}.get(name, 1)
    assert encoder(torch.zeros(1, 3, least, least))[-1].shape[2:] == (1, 1)
    if least > 1:
        with pytest.raises(ValueError, match=f"40 x {least - 1} pixels: {name} needs at least {least} x {least}"):
            encoder(torch.zeros(1, 3, 40, least - 1))


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "efficientnet_b0", "swin_t"])
def test_odd_sizes_pass(name):
    encoder = encoder_of(name)
    for x, (rows, columns) in zip(encoder(torch.zeros(1, 3, 61, 37)), encoder.reductions, strict=True):
        assert x.shape[2] in (61 // rows, -(-61 // rows)) and x.shape[3] in (37 // columns, -(-37 // columns))


@pytest.mark.parametrize("name", ["vgg11", "regnet_y_400mf", "swin_t", "efficientnet_b0"])
def test_a_backbone_builds_on_the_meta_device_where_configs_are_tried(name):
    with torch.device("meta"):
        encoder = TorchvisionEncoder(name, in_channels=1)
    assert all(tensor.is_meta for tensor in encoder.state_dict().values()) and len(encoder.channels) >= 4


def test_unknown_names_list_the_nearest():
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet35'; did you mean .*resnet34"):
        TorchvisionEncoder("resnet35")
    with pytest.raises(ValueError, match=r"unknown backbone 'alexnet'; "):
        TorchvisionEncoder("alexnet")


def test_a_frozen_backbone_keeps_weights_and_statistics_in_training():
    encoder = TorchvisionEncoder("resnet18", freeze=True)
    wrapper = nn.Sequential(encoder).train()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    wrapper(torch.randn(2, 3, 32, 32))
    assert not encoder.trunk.training and not any(p.requires_grad for p in encoder.parameters())
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


def test_timm_backbones_by_name(saved):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    model = timm.create_model("resnet18").eval()
    encoder = TorchvisionEncoder("timm:resnet18", in_channels=1, pretrained=saved(model)).eval()
    assert encoder.channels == (64, 64, 128, 256, 512) and encoder.reductions[0] == (2, 2)
    grey = torch.randn(1, 1, 64, 64)
    torch.testing.assert_close(
        encoder(grey)[-1], model.forward_features(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ValueError, match=r"unknown backbone 'timm:resnet19'; did you mean .*timm:resnet1"):
        TorchvisionEncoder("timm:resnet19")
    with pytest.raises(ValueError, match="backbone timm:vit_tiny_patch16_224 takes no image of 256 x 256: give one"):
        TorchvisionEncoder("timm:vit_tiny_patch16_224")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n in ONE_OF_EACH_FAMILY if not n.startswith(BOUND_TO_SIZES)] + ["vgg11_bn", "resnet18_deep_stem"]
)
def test_each_family_scripts_traces_compiles_and_runs_in_onnx_at_another_size(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = BackbonedUNet(2, 1, 2, backbone=name, decoder_channels=[8, 8, 4, 4, 4]).eval()
    image, other = torch.randn(2, 1, 64, 64), torch.randn(1, 1, 97, 66)
    shapes = {axis: torch.export.Dim.DYNAMIC for axis in (0, 2, 3)}
    torch.onnx.export(
        network, (image,), tmp_path / "network.onnx", dynamo=True, dynamic_shapes=(shapes,), input_names=["image"]
    )
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    torch._dynamo.reset()
    compiled = torch.compile(network, fullgraph=True, backend="eager", dynamic=True)
    with torch.no_grad():
        expected = network(other)
        for module in (torch.jit.script(network), torch.jit.trace(network, image), compiled):
            torch.testing.assert_close(module(other), expected, rtol=1e-4, atol=1e-5)
        (logits,) = session.run(None, {"image": other.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_OF_EACH_FAMILY)
def test_gradients_reach_every_parameter_of_each_family(name):
    torch.manual_seed(0)
    encoder = TorchvisionEncoder(name)
    for _ in range(4):  # more than once: stochastic depth drops whole blocks
        sum(x.square().mean() for x in encoder(torch.randn(4, 3, 224, 224))).backward()
    assert [key for key, value in encoder.named_parameters() if value.grad is None or not value.grad.any()] == []
