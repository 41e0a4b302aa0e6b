"""The decoder with any encoder's maps, and the options of the U-Nets."""

import math
from functools import partial

import pytest
import torch
from torch import nn

from r2seg.networks import build_network
from r2seg.networks.blocks import Unit, make_upsample
from r2seg.networks.conv_encoder import ConvEncoder
from r2seg.networks.unet import UNetDecoder


def decoder(encoder_channels, reductions, **options) -> UNetDecoder:
    makers = {"unit": partial(Unit, 2), "up": partial(make_upsample, 2)}
    return UNetDecoder(encoder_channels, reductions, **(makers | options))


def maps(channels, reductions, size, rounding):
    """An encoder's maps of an image of this size; ``rounding`` is what the encoder does with odd sizes."""
    return [
        torch.randn(2, width, *(rounding(length / factor) for length, factor in zip(size, reduction, strict=True)))
        for width, reduction in zip(channels, reductions, strict=True)
    ]


@pytest.mark.parametrize("size", [(32, 48), (37, 45)])
@pytest.mark.parametrize("rounding", [math.floor, math.ceil])
@pytest.mark.parametrize("reductions", [[1, 2, 4], [2, 4, 8], [4, 8, 32]])
def test_decoder_serves_any_encoder(size, rounding, reductions):
    channels = [4, 6, 8]
    reductions = [(factor, factor) for factor in reductions]
    given = maps(channels, reductions, size, rounding)
    built = decoder(channels, reductions)
    assert built(given).shape == given[0].shape
    assert built.out_channels == 4


@pytest.mark.parametrize("skip", ["concat", "add"])
def test_decoder_joins_the_skip_first(skip):
    built = decoder(
        [2, 3],
        [(1, 1), (2, 2)],
        unit=lambda *_: nn.Identity(),
        up=lambda *_: nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(3, 2, 1)),
        skip=skip,
    )
    finest, coarsest = torch.randn(1, 2, 4, 4), torch.randn(1, 3, 2, 2)
    up = built.stages[0].up(coarsest)
    expected = torch.cat([finest, up], 1) if skip == "concat" else finest + up
    assert torch.equal(built([finest, coarsest]), expected)


def test_decoder_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="reductions 3 x 3 and 2 x 2 of two neighbouring maps are not multiples"):
        decoder([4, 6], [(2, 2), (3, 3)])
    with pytest.raises(ValueError, match=r"skip is 'concatenate'.*: give one of concat, add"):
        decoder([4], [(1, 1)], skip="concatenate")


def test_anisotropic_strides_multiply_into_reductions():
    encoder = ConvEncoder(3, 1, [4, 5, 6, 7], [[1, 2, 2], 2, [1, 2, 1]], unit=partial(Unit, 3))
    assert encoder.channels == (4, 5, 6, 7)
    assert encoder.reductions == ((1, 1, 1), (1, 2, 2), (2, 4, 4), (2, 8, 4))
    shapes = [tuple(x.shape[1:]) for x in encoder(torch.randn(1, 1, 5, 17, 9))]
    assert shapes == [(4, 5, 17, 9), (5, 5, 8, 4), (6, 2, 4, 2), (7, 2, 2, 2)]


@pytest.mark.parametrize("name", ["PlainUNet", "AttentionUNet", "R2UNet", "AttentionR2UNet"])
def test_a_volume_of_one_slice_passes_where_strides_leave_its_axis_alone(name):
    network = build_network(
        name, spatial_dims=3, in_channels=1, out_channels=2, channels=[4, 5, 6], strides=[[1, 2, 2], [1, 3, 2]]
    )
    assert network.least_size == (1, 6, 4)
    assert network(torch.randn(2, 1, 1, 25, 11)).shape == (2, 2, 1, 25, 11)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("norm", ["batch", "instance", "group", "none"])
@pytest.mark.parametrize("upsample", ["deconv", "nearest", "linear"])
@pytest.mark.parametrize("skip", ["concat", "add"])
def test_every_combination_of_options_trains(dims, norm, upsample, skip):
    options = {"norm": norm, "upsample": upsample, "skip": skip, "act": "leaky_relu", "dropout": 0.1}
    network = build_network(
        "AttentionR2UNet", spatial_dims=dims, in_channels=1, out_channels=2, channels=[4, 6], steps=1, **options
    )
    logits = network(torch.randn(2, 1, *(9, 8, 7)[:dims]))
    logits.square().mean().backward()
    assert logits.isfinite().all()
    assert all(value.grad is not None for value in network.parameters())


def test_one_pixel_at_the_deepest_level_is_refused_where_the_norm_needs_two():
    sizes = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [4, 6, 8]}
    network = build_network("R2UNet", **sizes)
    with pytest.raises(ValueError, match=r"batch norm needs two there: give at least 4 x 8, or two images per batch"):
        network(torch.randn(1, 1, 7, 7))
    assert network(torch.randn(2, 1, 4, 4)).shape == (2, 2, 4, 4)
    assert network.eval()(torch.randn(1, 1, 4, 4)).shape == (1, 2, 4, 4)
    network = build_network("R2UNet", norm="instance", **sizes).eval()
    with pytest.raises(ValueError, match=r"instance norm needs two there: give at least 4 x 8$"):
        network(torch.randn(2, 1, 7, 7))
    assert network(torch.randn(1, 1, 4, 8)).shape == (1, 2, 4, 8)
    assert build_network("R2UNet", norm="group", **sizes)(torch.randn(1, 1, 4, 4)).shape == (1, 2, 4, 4)


@pytest.mark.parametrize("upsample", ["deconv", "nearest", "linear"])
def test_translation_by_the_deepest_reduction_translates_the_logits(upsample):
    """Odd sizes keep their pixels' places: what is cut off at the far end shifts nothing elsewhere."""
    torch.manual_seed(0)
    network = build_network(
        "PlainUNet", spatial_dims=2, in_channels=1, out_channels=1, channels=[4, 6, 8], upsample=upsample
    ).eval()
    image = torch.randn(1, 1, 63, 67)
    with torch.no_grad():
        whole, part = network(image), network(image[..., 8:, 4:])
    torch.testing.assert_close(whole[..., 30:40, 28:40], part[..., 22:32, 24:36], rtol=1e-4, atol=1e-5)


def test_maps_and_kernels_are_channels_last():
    network = build_network("R2UNet", spatial_dims=2, in_channels=1, out_channels=2, channels=[4, 6])
    assert network(torch.randn(2, 1, 8, 8)).is_contiguous(memory_format=torch.channels_last)
    assert network.encoder.units[1].layers[0].recurrent.weight.is_contiguous(memory_format=torch.channels_last)
