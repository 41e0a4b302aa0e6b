"""Recomputing activations: what it saves, and that it changes nothing else."""

import copy

import pytest
import torch

from r2seg.networks import NETWORKS, build_network, network_options

RECOMPUTING = [name for name in NETWORKS if "checkpoint_activations" in network_options(name)]
VARIANTS = [{}, {"norm_per_step": False}, {"recurrence": "shared"}, {"norm": "instance"}]
CASES = [(name, options) for name in RECOMPUTING for options in VARIANTS if set(options) <= set(network_options(name))]


def test_the_u_net_family_recomputes():
    assert {"PlainUNet", "R2UNet", "RUNet", "AttentionR2UNet"} <= set(RECOMPUTING)


def test_recomputed_r2unet_trains_in_the_memory_of_a_plain_unet(network_table):
    def peak(name, **options):
        with torch.device("meta"):
            network = build_network(name, spatial_dims=2, in_channels=1, out_channels=2, **options)
            return network_table.count_activation_bytes(network, torch.empty(2, 1, 256, 256))

    plain = peak("PlainUNet")
    assert peak("R2UNet", checkpoint_activations=True) / plain < 1.15
    assert 2.4 < peak("R2UNet") / plain < 2.8


def test_live_storages_count_what_a_step_holds(network_table):
    """Product and activation live together, then activation and gradient: twice 4 KiB, and the sum and its gradient."""
    network = torch.nn.Sequential(torch.nn.Linear(8, 128, bias=False), torch.nn.ReLU()).to("meta")
    assert network_table.count_activation_bytes(network, torch.empty(8, 8, device="meta")) == 2 * 8 * 128 * 4 + 2 * 4


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_one_step_leaves_the_same_weights_and_statistics(dims, name, options):
    torch.manual_seed(0)
    common = {
        "spatial_dims": dims,
        "in_channels": 1,
        "out_channels": 2,
        "channels": [4, 6, 8],
        "dropout": 0.2,
        **options,
    }
    kept = build_network(name, **common)
    recomputed = build_network(name, **common, checkpoint_activations=True)
    recomputed.load_state_dict(kept.state_dict())
    before = copy.deepcopy(kept.state_dict())
    image = torch.randn(2, 1, *(18, 13, 10)[:dims])
    for network in (kept, recomputed):
        optimizer = torch.optim.SGD(network.parameters(), 0.1)
        torch.manual_seed(1)  # dropout
        network(image).square().mean().backward()
        optimizer.step()
    after = recomputed.state_dict()
    for key, value in kept.state_dict().items():
        assert torch.equal(after[key], value), key
    statistics = [key for key in before if "running_mean" in key]
    assert bool(statistics) == (options.get("norm") != "instance")
    assert all(not torch.equal(before[key], after[key]) for key in statistics)


def test_recomputing_is_of_training_only():
    network = build_network(
        "R2UNet", spatial_dims=2, in_channels=1, out_channels=2, channels=[4, 6], checkpoint_activations=True
    )
    calls = []
    network.encoder.units[0].projection.register_forward_hook(lambda *_: calls.append(1))
    image = torch.randn(2, 1, 8, 8)
    network(image).sum().backward()
    assert len(calls) == 2
    network.eval()(image).sum().backward()
    with torch.no_grad():
        network.train()(image)
    assert len(calls) == 4


@pytest.mark.slow
def test_compiled_recomputing_network_trains_to_the_same_statistics():
    torch.manual_seed(0)
    sizes = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [4, 6]}
    network = build_network("R2UNet", **sizes, checkpoint_activations=True)
    other = copy.deepcopy(network)
    image = torch.randn(2, 1, 16, 16)
    torch._dynamo.reset()
    torch.compile(other, backend="aot_eager", fullgraph=True)(image).square().mean().backward()
    network(image).square().mean().backward()
    for key, value in network.state_dict().items():
        torch.testing.assert_close(other.state_dict()[key], value, msg=key)
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_recomputing_network_scripts_traces_and_exports():
    options = {"channels": [4, 6], "checkpoint_activations": True, "act": "prelu", "recurrence": "shared"}
    network = build_network("AttentionR2UNet", spatial_dims=3, in_channels=1, out_channels=2, **options).eval()
    image = torch.randn(2, 1, 9, 8, 7)
    exported = torch.export.export(network, (image,)).module()
    for module in (torch.jit.script(network), torch.jit.trace(network, image), exported):
        torch.testing.assert_close(module(image), network(image))
