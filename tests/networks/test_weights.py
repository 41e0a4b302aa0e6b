"""Weights from files and from trained networks: what fits loads, what does not is named, nothing is ever fetched."""

import pickle
import socket

import pytest
import torch

from r2seg.networks import NETWORKS, BackbonedUNet, PlainUNet, build_network
from r2seg.networks.weights import load_weights, read_state_dict

BACKBONED = {"backbone": "shufflenet_v2_x0_5", "decoder_channels": [8, 8, 4, 4, 4]}


def trained(**options) -> PlainUNet:
    torch.manual_seed(7)
    return PlainUNet(2, 1, 3, channels=[4, 6], **options)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"network": s, "epoch": 3},
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
    ],
)
def test_a_file_gives_its_state_dict_with_or_without_wrappers(tmp_path, wrap):
    source = trained()
    torch.save(wrap(source.state_dict()), tmp_path / "a.pt")
    network = PlainUNet(2, 1, 3, channels=[4, 6])
    assert load_weights(network, tmp_path / "a.pt") == ()
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in network.state_dict().items())


def test_a_head_of_another_size_must_be_allowed_by_name():
    source = trained()
    network = PlainUNet(2, 1, 5, channels=[4, 6])
    before = {key: value.clone() for key, value in network.state_dict().items()}
    message = r"does not fit PlainUNet: head.weight is \(3, 4, 1, 1\) there but \(5, 4, 1, 1\) here, head.bias .*reset: \[head\]"
    with pytest.raises(ValueError, match=message):
        load_weights(network, source.state_dict())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())  # nothing half-loaded
    assert load_weights(network, source.state_dict(), reset=["head"]) == ("head.weight", "head.bias")
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key] if key.startswith("head.") else source.state_dict()[key])


def test_a_reset_layer_starts_anew_even_where_it_would_fit():
    network, source = PlainUNet(2, 1, 3, channels=[4, 6]), trained()
    head = network.head.weight.clone()
    load_weights(network, source.state_dict(), reset=["head"])
    assert torch.equal(network.head.weight, head) and not torch.equal(head, source.head.weight)


def test_another_architecture_is_distinguished_from_a_changed_layer():
    with pytest.raises(ValueError, match="this is another architecture: set the network's options"):
        load_weights(PlainUNet(2, 1, 3, channels=[4, 6, 8]), PlainUNet(2, 1, 3, channels=[5, 7]).state_dict())
    with pytest.raises(ValueError, match="reset 'haed' names no layer of PlainUNet: did you mean head"):
        load_weights(trained(), trained().state_dict(), reset=["haed"])


def test_fine_tuning_marks_the_backbone_as_pretrained_but_for_a_stem_that_was_reset():
    source = BackbonedUNet(2, 3, 2, **BACKBONED)
    network = BackbonedUNet(2, 1, 4, **BACKBONED)
    stem = "encoder.trunk.0.conv1.0"
    with pytest.raises(ValueError, match=rf"{stem}.weight is \(24, 3, 3, 3\) there.*reset: \[{stem}, head\]"):
        load_weights(network, source.state_dict())
    load_weights(network, source.state_dict(), reset=[stem, "head"])
    pretrained = {id(p) for p in network.pretrained_parameters()}
    assert pretrained == {id(p) for p in network.encoder.parameters()} - {id(network.encoder.trunk[0].conv1[0].weight)}
    assert len(pretrained) == len(list(network.encoder.parameters())) - 1


def test_files_that_hold_code_or_no_weights_are_refused_in_one_line(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"a": Evil()}))
    (tmp_path / "empty.pt").write_bytes(b"")
    (tmp_path / "text.pt").write_text("not weights")
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    for name, message in (
        ("evil", "not readable as weights"),
        ("empty", "not readable"),
        ("text", "not readable"),
        ("none", "no named tensors"),
        ("absent", "no such file"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            read_state_dict(tmp_path / f"{name}.pt")
        assert "\n" not in str(error.value) and f"{name}.pt" in str(error.value)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_network_opens_a_socket_unless_asked_for_pretrained_weights(name, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    for function in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, function, refuse)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    network = build_network(name, spatial_dims=2, in_channels=1, out_channels=2)
    load_weights(network, network.state_dict())
