"""R2U-Net and its kin: how the named networks follow from one another, and what they weigh."""

import pytest
import torch

from r2seg.networks import build_network


def network(name: str, dims: int = 2, **options) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_network(name, spatial_dims=dims, in_channels=1, out_channels=2, **({"channels": [4, 6, 8]} | options))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(
    ("name", "options", "other"),
    [
        ("R2UNet", {"steps": 0}, "ResidualUNet"),
        ("RUNet", {"steps": 0}, "PlainUNet"),
        ("R2UNet", {"steps": 0, "residual": False}, "PlainUNet"),
        ("AttentionR2UNet", {"steps": 0, "residual": False}, "AttentionUNet"),
        ("R2UNet", {"residual": False}, "RUNet"),
    ],
)
def test_networks_of_the_family_agree_where_their_options_do(dims, name, options, other):
    one, two = network(name, dims, **options), network(other, dims)
    two.load_state_dict(one.state_dict())
    image = torch.randn(2, 1, *(13, 9, 8)[:dims])
    assert torch.equal(one(image), two(image))


def unit_parameters(c_in: int, c: int, steps: int) -> int:
    projection = c_in * c + c
    layer = 9 * c * c * (2 if steps else 1) + 2 * c * (steps + 1)
    return projection + 2 * layer


@pytest.mark.parametrize("steps", [0, 2, 3])
def test_parameter_count_is_the_one_counted_by_hand(steps):
    widths = [64, 128, 256, 512, 1024]
    down = sum(unit_parameters(c_in, c, steps) for c_in, c in zip([1, *widths], widths, strict=False))
    up = sum(unit_parameters(2 * c, c, steps) + 4 * c * 2 * c + c for c in widths[:-1])
    with torch.device("meta"):
        built = build_network("R2UNet", spatial_dims=2, in_channels=1, out_channels=2, steps=steps)
    assert sum(value.numel() for value in built.parameters()) == down + up + 64 * 2 + 2


def test_shared_recurrence_halves_the_convolutions_kernels():
    counts = {
        recurrence: sum(
            v.numel() for k, v in network("R2UNet", recurrence=recurrence).named_parameters() if "layers" in k
        )
        for recurrence in ("separate", "shared")
    }
    kernels = 2 * 9 * sum(c * c for c in (4, 6, 8, 6, 4))
    assert counts["separate"] - counts["shared"] == kernels


@pytest.mark.parametrize("recurrence", ["separate", "shared"])
@pytest.mark.parametrize("norm_per_step", [True, False])
def test_evaluation_follows_training_statistics(recurrence, norm_per_step):
    """With momentum 1 and one normalization per pass, evaluation on the last batch equals training on it."""
    built = network("R2UNet", recurrence=recurrence, norm_per_step=norm_per_step)
    for module in built.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    image = torch.randn(8, 1, 32, 32)
    with torch.no_grad():
        trained = built(image)
        evaluated = built.eval()(image)
    difference = (trained - evaluated).abs().max() / trained.std()
    assert (difference < 0.1) == norm_per_step


@pytest.mark.slow
@pytest.mark.parametrize("upsample", ["nearest", "linear"])
@pytest.mark.parametrize("norm", ["instance", "group"])
def test_other_options_export_to_onnx_too(upsample, norm, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    built = network("AttentionR2UNet", recurrence="shared", norm=norm, upsample=upsample, skip="add").eval()
    shapes = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    path = tmp_path / "network.onnx"
    torch.onnx.export(built, (torch.randn(2, 1, 16, 24),), path, dynamo=True, dynamic_shapes=(shapes,))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    image = torch.randn(3, 1, 21, 35)
    (logits,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), built(image).detach(), rtol=1e-4, atol=1e-4)
