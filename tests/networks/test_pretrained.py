"""Trained weights of torchvision's backbones: adapted to the image's channels, and never fetched by surprise."""

import socket
from pathlib import Path
from urllib.parse import urlparse

import pytest
import torch
import torchvision.models
from torch import nn

from r2seg.networks.pretrained import adapt_stem
from r2seg.networks.torchvision_encoder import TorchvisionEncoder


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


@pytest.mark.parametrize(
    "name", ["resnet18", *(pytest.param(n, marks=pytest.mark.slow) for n in ("vgg11", "densenet121", "swin_t"))]
)
def test_a_grey_image_as_one_channel_or_three_gives_the_same_features(name, torchvision_model, saved):
    path = saved(torchvision_model(name))
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


def test_a_file_whose_stem_has_the_images_channels_already_is_taken_as_it_is(torchvision_model, saved):
    model = torchvision_model("resnet18")
    model.conv1 = nn.Conv2d(2, 64, 7, bias=False)
    encoder = TorchvisionEncoder("resnet18", in_channels=2, pretrained=saved(model))
    assert torch.equal(encoder.trunk[0].conv1.weight, model.conv1.weight)


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


def test_pretrained_takes_a_file_placed_by_hand_without_asking_the_network(no_sockets, hub, caplog, torchvision_model):
    model = torchvision_model("mobilenet_v2")
    url = torchvision.models.get_model_weights("mobilenet_v2").DEFAULT.url
    torch.save(model.state_dict(), hub / Path(urlparse(url).path).name)
    encoder = TorchvisionEncoder("mobilenet_v2", pretrained=True)
    assert torch.equal(encoder.trunk[0][0][0].weight, model.features[0][0].weight)
    assert "fetching" not in caplog.text


def test_pretrained_fetches_once_with_a_message(monkeypatch, hub, caplog, torchvision_model):
    fetched = []

    def fetch(url, file, *args, **kwargs):
        fetched.append(url)
        torch.save(torchvision_model("shufflenet_v2_x0_5").state_dict(), file)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    TorchvisionEncoder("shufflenet_v2_x0_5", pretrained=True)
    TorchvisionEncoder("shufflenet_v2_x0_5", pretrained=True)
    assert len(fetched) == 1 and caplog.text.count(fetched[0]) == 1


def test_a_file_of_another_backbone_is_refused_with_what_differs(torchvision_model, saved):
    path = saved(torchvision_model("resnet18"))
    with pytest.raises(
        ValueError, match=r"weights.pth does not fit torchvision's resnet34: layer1.2.conv1.weight missing"
    ):
        TorchvisionEncoder("resnet34", pretrained=path)
    with pytest.raises(ValueError, match=r"conv1.weight \(64, 4, 7, 7\) instead of \(64, 2, 7, 7\)"):
        model = torchvision_model("resnet18")
        model.conv1 = nn.Conv2d(4, 64, 7, bias=False)
        TorchvisionEncoder("resnet18", in_channels=2, pretrained=saved(model))


def test_densenet_files_with_the_old_names_load(tmp_path, torchvision_model):
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
