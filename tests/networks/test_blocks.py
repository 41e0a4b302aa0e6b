"""The pieces, held against their equations written out by hand."""

import pytest
import torch
import torch.nn.functional as F

from r2seg.networks.blocks import (
    AttentionGate,
    RecurrentConv,
    Unit,
    fit_to,
    make_act,
    make_conv_layer,
    make_norm,
    make_upsample,
)

CONV = {2: F.conv2d, 3: F.conv3d}


def image(dims: int, channels: int = 4) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(2, channels, *(6, 5, 4)[:dims])


def unrolled(layer: RecurrentConv, x: torch.Tensor, dims: int) -> torch.Tensor:
    """h_0 = f(w_f * x), h_t = f(w_f * x + w_r * h_{t-1}) with batch norm of training; or w * (x + h_{t-1}) where shared."""
    convolve = CONV[dims]
    norms = [layer.norm, *layer.step_norms] if layer.norm_per_step else [layer.norm] * (layer.steps + 1)

    def f(z, norm):
        axes = [0, *range(2, z.dim())]
        z = (z - z.mean(axes, keepdim=True)) / (z.var(axes, unbiased=False, keepdim=True) + norm.eps).sqrt()
        shape = (1, -1) + (1,) * dims
        return (z * norm.weight.view(shape) + norm.bias.view(shape)).relu()

    w_f = layer.feed_forward.weight
    h = f(convolve(x, w_f, padding=1), norms[0])
    for norm in norms[1:]:
        if layer.shared:
            z = convolve(x + h, w_f, padding=1)
        else:
            z = convolve(x, w_f, padding=1) + convolve(h, layer.recurrent.weight, padding=1)
        h = f(z, norm)
    return h


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("recurrence", ["separate", "shared"])
@pytest.mark.parametrize("norm_per_step", [True, False])
def test_recurrent_layer_and_its_gradients_equal_the_unrolled_equation(dims, recurrence, norm_per_step):
    layer = RecurrentConv(dims, 4, 4, steps=3, recurrence=recurrence, norm_per_step=norm_per_step)
    for parameter in layer.parameters():
        torch.nn.init.uniform_(parameter, -0.5, 0.5)
    parameters = list(layer.parameters())
    ours, theirs = layer(image(dims)), unrolled(layer, image(dims), dims)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    weights = torch.randn_like(ours)
    for given, expected in zip(
        torch.autograd.grad(ours, parameters, weights), torch.autograd.grad(theirs, parameters, weights), strict=True
    ):
        torch.testing.assert_close(given, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("recurrence", ["separate", "shared"])
def test_recurrent_layer_without_normalization_keeps_its_drive(recurrence):
    layer = RecurrentConv(2, 4, 4, steps=2, recurrence=recurrence, norm="none")
    x, w, b = image(2), layer.feed_forward.weight, layer.feed_forward.bias
    w_r = w if recurrence == "shared" else layer.recurrent.weight
    drive = F.conv2d(x, w, b, padding=1)
    h = drive.relu()
    for _ in range(2):
        h = (drive + F.conv2d(h, w_r, padding=1)).relu()
    torch.testing.assert_close(layer(x), h)


def test_feed_forward_map_is_computed_once_however_many_steps():
    layer, calls = RecurrentConv(2, 4, 4, steps=5), []
    layer.feed_forward.register_forward_hook(lambda *_: calls.append(1))
    layer(image(2))
    assert len(calls) == 1


def test_zero_steps_is_a_plain_convolution_layer():
    layer = RecurrentConv(2, 4, 7, steps=0)
    plain = make_conv_layer(2, 4, 7)
    plain[0].weight = layer.feed_forward.weight
    torch.testing.assert_close(layer(image(2)), plain(image(2)))
    assert sum(p.numel() for p in layer.parameters()) == 9 * 4 * 7 + 2 * 7


def test_each_step_has_its_own_running_statistics_by_default():
    for norm_per_step, updates in ((True, [1, 1, 1]), (False, [3])):
        layer = RecurrentConv(2, 4, 4, steps=2, norm_per_step=norm_per_step)
        layer(image(2))
        assert [int(norm.num_batches_tracked) for norm in (layer.norm, *layer.step_norms)] == updates


def test_shared_kernel_needs_equal_channels():
    with pytest.raises(ValueError, match="adds 3 input channels to 4 state channels"):
        RecurrentConv(2, 3, 4, steps=1, recurrence="shared")
    with pytest.raises(ValueError, match="recurrence is 'both': give one of separate, shared"):
        RecurrentConv(2, 4, 4, recurrence="both")


@pytest.mark.parametrize("dims", [2, 3])
def test_residual_unit_adds_the_projected_input(dims):
    unit = Unit(dims, 4, 6, steps=1, residual=True).eval()
    x = image(dims)
    projected = CONV[dims](x, unit.projection.weight, unit.projection.bias)
    torch.testing.assert_close(unit(x), projected + unit.layers(projected))


def test_plain_unit_has_no_projection_and_a_shared_kernel_has_one():
    assert not list(Unit(2, 4, 6, steps=2).projection.parameters())
    assert Unit(2, 4, 6, steps=2, recurrence="shared").projection.weight.shape == (6, 4, 1, 1)


def test_dropout_zeroes_whole_channels_in_training_only():
    unit = Unit(2, 4, 64, dropout=0.5, act="gelu")
    dead = (unit(image(2)) == 0).flatten(2)
    assert dead.all(-1).any() and torch.equal(dead.all(-1), dead.any(-1))
    assert not (unit.eval()(image(2)) == 0).flatten(2).all(-1).any()


@pytest.mark.parametrize("dims", [2, 3])
def test_attention_gate_weighs_the_skip_by_both_signals(dims):
    gate = AttentionGate(dims, 5, 4, norm="none")
    g, x = image(dims, 5), image(dims, 4)
    convolve = CONV[dims]
    hidden = convolve(g, gate.gate[0].weight, gate.gate[0].bias) + convolve(x, gate.skip[0].weight, gate.skip[0].bias)
    weights = convolve(hidden.relu(), gate.psi[0].weight, gate.psi[0].bias).sigmoid()
    assert weights.shape[1] == 1
    torch.testing.assert_close(gate(g, x), x * weights)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("upsample", ["deconv", "nearest", "linear"])
def test_upsampling_multiplies_each_axis_by_its_stride(dims, upsample):
    stride = (1, 2, 3)[:dims]
    up = make_upsample(dims, 4, 6, stride, upsample=upsample)
    assert up(image(dims)).shape == (2, 6, *(s * n for s, n in zip(stride, image(dims).shape[2:], strict=True)))


def test_fit_to_cuts_or_continues_the_far_ends_and_moves_no_pixel():
    x = torch.arange(6.0).view(1, 1, 2, 3)
    assert fit_to(x, torch.zeros(1, 1, 3, 2)).tolist() == [[[[0, 1], [3, 4], [3, 4]]]]
    assert fit_to(x, torch.zeros(1, 9, 2, 3)) is x


@pytest.mark.parametrize("dims", [2, 3])
def test_normalizations_are_the_named_ones(dims):
    x = 3 * image(dims, 16) + 1
    for norm, axes in (("batch", (0, *range(2, dims + 2))), ("instance", tuple(range(2, dims + 2)))):
        assert make_norm(dims, 16, norm)(x).mean(axes).abs().max() < 1e-5
    assert make_norm(dims, 16, "group")(x).view(2, 8, -1).mean(-1).abs().max() < 1e-5
    assert [make_norm(dims, channels, "group").num_groups for channels in (1, 4, 12, 24)] == [1, 2, 6, 8]
    assert make_norm(dims, 16, "none")(x) is x


@pytest.mark.parametrize("act", ["relu", "leaky_relu", "elu", "gelu", "silu", "prelu"])
def test_every_activation_trains_after_a_normalization(act):
    layer = RecurrentConv(2, 4, 4, steps=1, act=act)
    layer(image(2)).square().sum().backward()
    assert all(parameter.grad.any() for parameter in layer.parameters())


def test_unknown_choices_name_the_known():
    with pytest.raises(ValueError, match=r"act is 'swish'.*: give one of relu, leaky_relu"):
        make_act("swish")
    with pytest.raises(ValueError, match="norm is 'layer': give one of batch, instance, group, none"):
        make_norm(2, 4, "layer")
    with pytest.raises(ValueError, match="upsample is 'cubic': give one of deconv, nearest, linear"):
        make_upsample(2, 4, 4, (2, 2), upsample="cubic")
