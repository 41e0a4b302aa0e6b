"""Torchvision's backbones as encoders: same features as torchvision's own models, no surprise fetch, nothing touched on the way."""

import socket
from pathlib import Path
from urllib.parse import urlparse

import pytest
import torch
import torchvision.models
from torch import nn

from r2seg.networks import BackbonedUNet
from r2seg.networks.torchvision_encoder import LIMITS, TorchvisionEncoder, adapt_stem, backbone_names

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


@pytest.fixture
def no_sockets(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Path:
    """An empty hub folder of torch's, the place that fetched weights go to."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


def randomise_statistics(network: nn.Module) -> None:
    """Statistics and scales as training leaves them: in evaluation mode they matter."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)


def torchvision_model(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    randomise_statistics(model)
    return model


def saved(model: nn.Module, folder: Path) -> str:
    torch.save(model.state_dict(), folder / "weights.pth")
    return str(folder / "weights.pth")


def check_against_torchvision(name: str, folder: Path) -> None:
    model = torchvision_model(name)
    encoder = TorchvisionEncoder(name, pretrained=saved(model, folder)).eval()
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
def test_maps_are_those_inside_torchvisions_model_and_as_declared(name, tmp_path):
    check_against_torchvision(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(HEAVY))
def test_maps_of_the_larger_families_are_those_inside_torchvisions_model(name, tmp_path):
    check_against_torchvision(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [n for n in backbone_names() if n not in {"regnet_y_128gf", "regnet_x_32gf", "regnet_y_32gf", "efficientnet_b7"}],
)
def test_every_backbone_builds_and_reduces_by_32(name):
    encoder = TorchvisionEncoder(name)
    assert [r[0] for r in encoder.reductions] in ([1, 2, 4, 8, 16, 32], [2, 4, 8, 16, 32], [4, 8, 16, 32])


def test_every_family_of_the_issue_is_among_the_names():
    names = backbone_names()
    for prefix in (
        *[
            "vgg11",
            "vgg13_bn",
            "vgg16",
            "vgg19_bn",
            "resnet152",
            "resnext101_64x4d",
            "wide_resnet101_2",
            "densenet161",
            "efficientnet_b7",
        ],
        *[
            "efficientnet_v2_l",
            "mobilenet_v2",
            "mobilenet_v3_large",
            "convnext_large",
            "regnet_x_8gf",
            "mnasnet1_3",
            "shufflenet_v2_x2_0",
            "swin_b",
        ],
    ):
        assert prefix in names


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "efficientnet_b0"])
def test_building_touches_no_batchnorm_statistic(name):
    for module in TorchvisionEncoder(name, in_channels=2).modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.num_batches_tracked == 0 and not module.running_mean.any() and (module.running_var == 1).all()


def test_later_stages_do_not_change_the_maps_of_earlier_ones_in_place():
    for name in ("vgg11", "resnet18", "mnasnet0_5", "shufflenet_v2_x0_5"):
        encoder = TorchvisionEncoder(name).eval()
        x = image = torch.randn(1, 3, 64, 64)
        alone = []
        for stage in encoder.trunk:
            x = stage(x)
            alone.append(x.detach().clone())
        for a, b in zip(alone, encoder(image), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["vgg11", "resnet18", "densenet121", "convnext_tiny", "swin_t"])
def test_the_least_size_passes_and_one_pixel_less_is_refused_by_name(name):
    encoder = TorchvisionEncoder(name, in_channels=1).eval()
    least = encoder.least_size
    assert least == {"vgg11": 32, "densenet121": 29, "convnext_tiny": 32, "swin_t": 4}.get(name, 1)
    assert encoder(torch.zeros(1, 1, least, least))[-1].shape[2:] == (1, 1)
    if least > 1:
        with pytest.raises(ValueError, match=f"40 x {least - 1} pixels: {name} needs at least {least} x {least}"):
            encoder(torch.zeros(1, 1, 40, least - 1))


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "efficientnet_b0", "swin_t"])
def test_odd_sizes_pass(name):
    encoder = TorchvisionEncoder(name).eval()
    for x, (rows, columns) in zip(encoder(torch.zeros(1, 3, 61, 37)), encoder.reductions, strict=True):
        assert x.shape[2] in (61 // rows, -(-61 // rows)) and x.shape[3] in (37 // columns, -(-37 // columns))


@pytest.mark.parametrize(
    "name", ["resnet18", *(pytest.param(n, marks=pytest.mark.slow) for n in ("vgg11", "densenet121", "swin_t"))]
)
def test_a_grey_image_as_one_channel_or_three_gives_the_same_features(name, tmp_path):
    path = saved(torchvision_model(name), tmp_path)
    grey = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        one = TorchvisionEncoder(name, in_channels=1, pretrained=path).eval()(grey)
        three = TorchvisionEncoder(name, in_channels=3, pretrained=path).eval()(grey.expand(-1, 3, -1, -1))
        six = TorchvisionEncoder(name, in_channels=6, pretrained=path).eval()(grey.expand(-1, 6, -1, -1))
    for a, b, c in zip(one, three, six, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(a, c, rtol=1e-4, atol=1e-5)


def test_a_stem_for_five_channels_repeats_the_colours_and_keeps_the_scale():
    weight = torch.tensor([[[[1.0]], [[2.0]], [[3.0]]]])
    assert adapt_stem(weight, 5).flatten().tolist() == pytest.approx([0.6, 1.2, 1.8, 0.6, 1.2])
    assert adapt_stem(weight, 1).flatten().tolist() == [6.0]


def test_a_file_whose_stem_has_the_images_channels_already_is_taken_as_it_is(tmp_path):
    model = torchvision_model("resnet18")
    model.conv1 = nn.Conv2d(2, 64, 7, bias=False)
    encoder = TorchvisionEncoder("resnet18", in_channels=2, pretrained=saved(model, tmp_path))
    assert torch.equal(encoder.trunk[0].conv1.weight, model.conv1.weight)


@pytest.mark.parametrize("name", ["vgg11", "regnet_y_400mf", "swin_t", "efficientnet_b0"])
def test_a_backbone_builds_on_the_meta_device_where_configs_are_tried(name):
    with torch.device("meta"):
        encoder = TorchvisionEncoder(name, in_channels=1)
    assert all(tensor.is_meta for tensor in encoder.state_dict().values()) and len(encoder.channels) >= 4


def test_unknown_names_list_the_nearest():
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet35': the nearest names are .*resnet34"):
        TorchvisionEncoder("resnet35")
    with pytest.raises(ValueError, match=r"unknown backbone 'alexnet'"):
        TorchvisionEncoder("alexnet")


def test_nothing_is_fetched_unless_asked(no_sockets, hub):
    for name in ("resnet18", "vgg11", "mobilenet_v2"):
        TorchvisionEncoder(name)
    assert not list(hub.iterdir())


def test_pretrained_without_a_network_says_how_to_place_the_file(monkeypatch, hub, caplog):
    def unreachable(*args, **kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(
        ValueError, match=r"Network is unreachable.*resnet18-[0-9a-f]+\.pth into .*checkpoints, or set pretrained: PATH"
    ) as error:
        TorchvisionEncoder("resnet18", pretrained=True)
    assert "\n" not in str(error.value) and str(hub) in str(error.value)
    assert "fetching the ImageNet weights of resnet18" in caplog.text


def test_pretrained_takes_a_file_placed_by_hand_without_asking_the_network(no_sockets, hub, caplog):
    model = torchvision_model("mobilenet_v2")
    url = torchvision.models.get_model_weights("mobilenet_v2").DEFAULT.url
    torch.save(model.state_dict(), hub / Path(urlparse(url).path).name)
    encoder = TorchvisionEncoder("mobilenet_v2", pretrained=True)
    assert torch.equal(encoder.trunk[0][0][0].weight, model.features[0][0].weight)
    assert "fetching" not in caplog.text


def test_pretrained_fetches_once_with_a_message(monkeypatch, hub, caplog):
    fetched = []

    def fetch(url, file, *args, **kwargs):
        fetched.append(url)
        torch.save(torchvision_model("shufflenet_v2_x0_5").state_dict(), file)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    TorchvisionEncoder("shufflenet_v2_x0_5", pretrained=True)
    TorchvisionEncoder("shufflenet_v2_x0_5", pretrained=True)
    assert len(fetched) == 1 and caplog.text.count(fetched[0]) == 1


def test_a_file_of_another_backbone_is_refused_with_what_differs(tmp_path):
    path = saved(torchvision_model("resnet18"), tmp_path)
    with pytest.raises(
        ValueError, match=r"weights.pth does not fit torchvision's resnet34: layer1.2.conv1.weight missing"
    ):
        TorchvisionEncoder("resnet34", pretrained=path)
    with pytest.raises(ValueError, match=r"conv1.weight \(64, 4, 7, 7\) instead of \(64, 2, 7, 7\)"):
        model = torchvision_model("resnet18")
        model.conv1 = nn.Conv2d(4, 64, 7, bias=False)
        TorchvisionEncoder("resnet18", in_channels=2, pretrained=saved(model, tmp_path))


def test_densenet_files_with_the_old_names_load(tmp_path):
    model = torchvision_model("densenet121")
    old = {
        name.replace("norm1", "norm.1")
        .replace("norm2", "norm.2")
        .replace("conv1", "conv.1")
        .replace("conv2", "conv.2"): value
        for name, value in model.state_dict().items()
    }
    torch.save(old, tmp_path / "old.pth")
    encoder = TorchvisionEncoder("densenet121", pretrained=str(tmp_path / "old.pth"))
    assert torch.equal(
        encoder.trunk[1].denseblock1.denselayer2.conv2.weight, model.features.denseblock1.denselayer2.conv2.weight
    )


def test_a_frozen_backbone_keeps_weights_and_statistics_in_training():
    encoder = TorchvisionEncoder("resnet18", freeze=True)
    wrapper = nn.Sequential(encoder).train()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    wrapper(torch.randn(2, 3, 32, 32))
    assert not encoder.trunk.training and not any(p.requires_grad for p in encoder.parameters())
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


def test_timm_backbones_by_name(tmp_path):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    model = timm.create_model("resnet18").eval()
    encoder = TorchvisionEncoder("timm:resnet18", in_channels=1, pretrained=saved(model, tmp_path)).eval()
    assert encoder.channels == (64, 64, 128, 256, 512) and encoder.reductions[0] == (2, 2)
    grey = torch.randn(1, 1, 64, 64)
    torch.testing.assert_close(
        encoder(grey)[-1], model.forward_features(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ValueError, match=r"unknown backbone 'timm:resnet19': the nearest names are .*timm:resnet1"):
        TorchvisionEncoder("timm:resnet19")
    with pytest.raises(ValueError, match="backbone timm:vit_tiny_patch16_224 takes no image of 256 x 256: give one"):
        TorchvisionEncoder("timm:vit_tiny_patch16_224")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n in ONE_OF_EACH_FAMILY if not n.startswith(tuple(LIMITS))] + ["vgg11_bn", "resnet18_deep_stem"]
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
