"""What every network of ``NETWORKS`` promises, in every number of spatial dimensions it supports."""

import copy
import functools
import importlib
import inspect
import io
import json

import pytest
import torch
from imports import imported_anew
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.inferers import SliceInferer, SlidingWindowInferer
from monai.networks import utils as monai_utils
from torch.export import Dim

from r2seg.networks import NETWORKS, build_network, network_options

IN_CHANNELS, OUT_CHANNELS = 2, 3

# Options that make a network small; one that is not named here is built with its defaults.
SMALL: dict[str, dict] = {}
for _name in NETWORKS:
    if "channels" in network_options(_name):
        SMALL.setdefault(_name, {"channels": [4, 6, 8]})
SMALL["BackbonedUNet"] = {"backbone": "resnet18", "decoder_channels": [16, 8, 8, 4, 4]}
SMALL["TernausNet"] = {"num_filters": 4}
SMALL["UPerNet"] = {"backbone": "resnet18", "pyramid_channels": 16, "pool_channels": 8, "auxiliary": True}

# What a network cannot do, with the reason; docs/networks.md lists the same.
CANNOT: dict[str, dict[str, str]] = {}

CASES = [(name, dims) for name, network in NETWORKS.items() for dims in network.supported_spatial_dims]
every_network = pytest.mark.parametrize(("name", "dims"), CASES, ids=[f"{name}-{dims}d" for name, dims in CASES])


def built(name: str, dims: int, **options) -> torch.nn.Module:
    torch.manual_seed(0)
    sizes = {"spatial_dims": dims, "in_channels": IN_CHANNELS, "out_channels": OUT_CHANNELS}
    return build_network(name, **sizes, **(SMALL.get(name, {}) | options))


@functools.cache
def _built_once(name: str, dims: int) -> torch.nn.Module:
    return built(name, dims)


def small(name: str, dims: int) -> torch.nn.Module:
    """A copy of the network: building those with a backbone takes longer than most tests of them."""
    return copy.deepcopy(_built_once(name, dims))


def image_for(network: torch.nn.Module, *more: int, batch: int = 2) -> torch.Tensor:
    """A random image of two pixels in the deepest map, plus ``more`` pixels along the first axes."""
    torch.manual_seed(1)
    size = [
        2 * reduction + extra
        for reduction, extra in zip(network.encoder.reductions[-1], (*more, 0, 0, 0), strict=False)
    ]
    return torch.randn(batch, IN_CHANNELS, *size)


def small_with_two_images(name: str, dims: int) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    """A network in evaluation mode, an image to export it with, and one of another batch and size."""
    network = small(name, dims).eval()
    return network, image_for(network), image_for(network, 1, 3, 2, batch=3)


def skip_what_cannot(name: str, what: str) -> None:
    if reason := CANNOT.get(name, {}).get(what):
        pytest.skip(reason)


def test_there_are_networks():
    assert len(CASES) >= 12


@every_network
def test_builds_from_the_three_sizes_alone(name, dims):
    options = network_options(name)
    assert all(option.default is not inspect.Parameter.empty for option in options.values())
    with torch.device("meta"):
        NETWORKS[name](dims, 1, 2)


@every_network
def test_logits_lie_on_the_image_grid_for_any_size(name, dims):
    network = small(name, dims).eval()
    for more in ([0, 0, 0], [1, 0, 3], [3, 5, 1], [2, 7, 2]):
        image = image_for(network, *more[:dims])
        with torch.no_grad():
            logits = network(image)
        assert type(logits) is torch.Tensor
        assert logits.shape == (2, OUT_CHANNELS, *image.shape[2:])
        assert logits.isfinite().all()


@every_network
def test_logits_are_no_probabilities(name, dims):
    network = small(name, dims).eval()
    logits = network(1e4 * image_for(network)).detach()
    assert logits.min() < 0 or logits.max() > 1


@every_network
def test_least_size_passes_and_one_pixel_less_names_it(name, dims):
    network = small(name, dims).eval()
    least = network.least_size
    assert network(torch.randn(1, IN_CHANNELS, *least)).shape[2:] == least
    words = " x ".join(map(str, least))
    for axis in range(dims):
        size = list(least)
        size[axis] -= 1
        if size[axis]:
            with pytest.raises(ValueError, match=f"needs at least {words}"):
                network(torch.randn(1, IN_CHANNELS, *size))


@every_network
def test_wrong_channels_and_axes_are_named(name, dims):
    network = small(name, dims).eval()
    image = image_for(network)
    with pytest.raises(ValueError, match=r"3 channels .* in_channels 2"):
        network(torch.cat([image, image[:, :1]], dim=1))
    with pytest.raises(ValueError, match=f"{dims + 1} axes"):
        network(image[0])


@every_network
def test_auxiliary_logits_follow_the_networks_own_on_the_same_grid(name, dims):
    network = small(name, dims).eval()
    image = image_for(network, 1)
    with torch.no_grad():
        logits, *auxiliary = network.forward_with_auxiliary(image)
        assert torch.equal(logits, network(image))
    assert [x.shape for x in auxiliary] == [logits.shape] * bool(SMALL[name].get("auxiliary"))


@every_network
def test_gradients_reach_every_parameter(name, dims):
    network = small(name, dims)
    torch.manual_seed(2)
    network(image_for(network, 3, 2, 1)).square().mean().backward()
    silent = [key for key, value in network.named_parameters() if value.grad is None or not value.grad.any()]
    assert [key for key in silent if "auxiliary" not in key] == []


@every_network
def test_batch_entries_are_independent_in_evaluation(name, dims):
    network = small(name, dims).eval()
    image = image_for(network)
    with torch.no_grad():
        torch.testing.assert_close(network(image)[:1], network(image[:1]), rtol=1e-4, atol=1e-5)


@every_network
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
def test_autocast_is_finite_in_training_and_evaluation(name, dims, dtype):
    network = small(name, dims)
    # Three pixels in the deepest map: with two, torch's own 3-D weight gradient in bf16 on a CPU is wrong (devices.py).
    image = image_for(network, *(network.encoder.reductions[-1] if dims == 3 else ()))
    for train in (True, False):
        network.train(train)
        with torch.autocast("cpu", dtype):
            logits = network(image)
        assert logits.isfinite().all()
        logits.float().square().mean().backward()
    assert all(value.grad.isfinite().all() for value in network.parameters() if value.grad is not None)


@every_network
def test_deepcopy_and_state_dict_give_the_same_logits(name, dims):
    network = built(name, dims).eval()
    image = image_for(network, 1)
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    buffer.seek(0)
    fresh = built(name, dims, **({"pretrained": False} if "pretrained" in network_options(name) else {})).eval()
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    with torch.no_grad():
        expected = network(image)
        assert torch.equal(copy.deepcopy(network)(image), expected)
        assert torch.equal(fresh(image), expected)


@every_network
def test_monai_config_parser_builds_it(name, dims):
    sizes = {"spatial_dims": dims, "in_channels": IN_CHANNELS, "out_channels": OUT_CHANNELS}
    config = {"network": {"_target_": f"r2seg.networks.{name}", **sizes, **SMALL.get(name, {})}}
    parser = ConfigParser(json.loads(json.dumps(config)))
    assert type(parser.get_parsed_content("network")) is NETWORKS[name]


@every_network
def test_metatensor_gives_the_same_logits(name, dims):
    network = small(name, dims).eval()
    image = image_for(network, 1)
    with torch.no_grad():
        logits = network(MetaTensor(image))
        torch.testing.assert_close(torch.as_tensor(logits), network(image), rtol=0, atol=0, check_stride=False)


@every_network
def test_monai_inferers_take_it(name, dims):
    network = small(name, dims).eval()
    window = tuple(image_for(network).shape[2:])
    with torch.no_grad():
        image = torch.randn(1, IN_CHANNELS, *(side + 5 for side in window))
        logits = SlidingWindowInferer(window, sw_batch_size=2, overlap=0.25)(image, network)
        assert logits.shape == (1, OUT_CHANNELS, *image.shape[2:])
        if dims == 2:
            volume = torch.randn(1, IN_CHANNELS, 3, *window)
            logits = SliceInferer(roi_size=window, spatial_dim=0)(volume, network)
            assert logits.shape == (1, OUT_CHANNELS, 3, *window)
            torch.testing.assert_close(logits[:, :, 1], network(volume[:, :, 1]), rtol=1e-4, atol=1e-5)


@every_network
def test_monai_copies_its_weights(name, dims):
    network, other = small(name, dims).eval(), small(name, dims).eval()
    for value in other.parameters():
        value.data.add_(1)
    _, changed, unchanged = monai_utils.copy_model_state(other, network)
    assert unchanged == [] and changed
    image = image_for(network)
    with torch.no_grad():
        assert torch.equal(other(image), network(image))


@pytest.mark.slow
@every_network
def test_scripted_and_traced_modules_agree_at_another_size(name, dims):
    skip_what_cannot(name, "script")
    network, image, other = small_with_two_images(name, dims)
    with torch.no_grad():
        for module in (torch.jit.script(network), torch.jit.trace(network, image)):
            torch.testing.assert_close(module(image), network(image), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(module(other), network(other), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@every_network
def test_exported_program_holds_at_another_batch_and_size(name, dims):
    skip_what_cannot(name, "export")
    network, image, other = small_with_two_images(name, dims)
    shapes = {0: Dim.AUTO, **{axis: Dim.AUTO for axis in range(2, dims + 2)}}
    with torch.no_grad():
        program = torch.export.export(network, (image,), dynamic_shapes=(shapes,)).module()
        torch.testing.assert_close(program(image), network(image), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(program(other), network(other), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@every_network
def test_onnx_agrees_at_another_batch_and_size(name, dims, tmp_path):
    skip_what_cannot(name, "onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network, image, other = small_with_two_images(name, dims)
    shapes = {0: Dim.DYNAMIC, **{axis: Dim.DYNAMIC for axis in range(2, dims + 2)}}
    path = tmp_path / "network.onnx"
    torch.onnx.export(
        network, (image,), path, dynamo=True, dynamic_shapes=(shapes,), input_names=["image"], output_names=["logits"]
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for given in (image, other):
        (logits,) = session.run(None, {"image": given.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(logits), network(given), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@every_network
def test_monai_converts_it(name, dims):
    skip_what_cannot(name, "script")
    network = small(name, dims).eval()
    image = image_for(network)
    for use_trace in (False, True):
        module = monai_utils.convert_to_torchscript(network, inputs=[image], verify=True, use_trace=use_trace)
        with torch.no_grad():
            torch.testing.assert_close(module(image), network(image), rtol=1e-4, atol=1e-5)
    if "onnx" not in CANNOT.get(name, {}):
        pytest.importorskip("onnxruntime")
        monai_utils.convert_to_onnx(network, inputs=[image], verify=True, use_ort=True, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@every_network
@pytest.mark.parametrize("train", [True, False], ids=["training", "evaluation"])
def test_compiles_without_a_graph_break(name, dims, train):
    torch._dynamo.reset()
    network = small(name, dims).train(train)
    compiled = torch.compile(copy.deepcopy(network), backend="eager", fullgraph=True)
    for more in ((0, 0, 0), (1, 3, 2)):
        image = image_for(network, *more[:dims])
        torch.testing.assert_close(compiled(image), network(image), rtol=1e-4, atol=1e-5)


def test_importing_the_networks_loads_no_monai():
    with imported_anew(without=("monai", "pydantic", "r2seg.config")):
        networks = importlib.import_module("r2seg.networks")
    assert networks.NETWORKS is not NETWORKS and list(networks.NETWORKS) == list(NETWORKS)


@pytest.mark.parametrize(("key", "value"), [("spatial_dims", 4), ("in_channels", 0), ("out_channels", 0)])
def test_wrong_sizes_are_named(key, value):
    sizes = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2} | {key: value}
    with pytest.raises(ValueError, match=f"{key} is {value}"):
        build_network("PlainUNet", **sizes)
