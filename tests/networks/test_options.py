"""Options: signatures show every option of every network, and wrong names and values are refused with the right ones."""

import copy
import inspect
import io
import json
import pickle
from typing import Any, Literal, get_type_hints

import pytest
import torch
from monai.bundle import ConfigParser

from r2seg.networks import NETWORKS, R2UNet, RUNet, SegmentationNetwork, build_network, check_options, network_options
from r2seg.networks.blocks import RecurrentConv, Unit
from r2seg.networks.options import check_values, choose, own_options, takes_options_of

UNET_OPTIONS = {
    "channels": (64, 128, 256, 512, 1024),
    "strides": None,
    "act": "relu",
    "norm": "batch",
    "dropout": 0.0,
    "upsample": "deconv",
    "skip": "concat",
    "checkpoint_activations": False,
}
R2UNET_OPTIONS = UNET_OPTIONS | {"steps": 2, "recurrence": "separate", "norm_per_step": True, "residual": True}
BACKBONE_OPTIONS = {"pretrained": False, "freeze_backbone": False}
OPTIONS = {
    "PlainUNet": UNET_OPTIONS,
    "ResidualUNet": UNET_OPTIONS,
    "AttentionUNet": UNET_OPTIONS,
    "RUNet": R2UNET_OPTIONS | {"residual": False},
    "R2UNet": R2UNET_OPTIONS,
    "AttentionR2UNet": R2UNET_OPTIONS,
    "BackbonedUNet": {
        "backbone": "resnet34",
        **BACKBONE_OPTIONS,
        "decoder_channels": (256, 128, 64, 32, 16),
        "upsample": "deconv",
        "decoder_norm": "batch",
        "skips": None,
    },
    "TernausNet": {"backbone": "vgg11", **BACKBONE_OPTIONS, "num_filters": 32, "upsample": "deconv"},
    "UPerNet": {
        "backbone": "resnet50",
        **BACKBONE_OPTIONS,
        "backbone_options": None,
        "finest": 4,
        "pyramid_channels": 256,
        "pool_channels": 512,
        "pool_sizes": (1, 2, 3, 6),
        "norm": "batch",
        "auxiliary": False,
    },
}
SIZES = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}


def small(name: str, **options) -> SegmentationNetwork:
    torch.manual_seed(0)
    return NETWORKS[name](2, 1, 2, channels=[4, 6], **options)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_signature_shows_every_option_with_its_default(name):
    for signature in (inspect.signature(NETWORKS[name]), inspect.signature(NETWORKS[name].__init__)):
        parameters = {key: each for key, each in signature.parameters.items() if key != "self"}
        assert list(parameters) == [*SIZES, *OPTIONS[name]]
        assert {key: parameters[key].default for key in OPTIONS[name]} == OPTIONS[name]
        assert all(parameters[key].kind is inspect.Parameter.KEYWORD_ONLY for key in OPTIONS[name])
    assert {key: option.default for key, option in network_options(name).items()} == OPTIONS[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_argument_has_a_type(name):
    hints = get_type_hints(NETWORKS[name].__init__)
    assert set(hints) == {*SIZES, *OPTIONS[name], "return"}
    assert not any(isinstance(hint, str) or hint is Any for hint in hints.values())
    assert {key: option.annotation for key, option in network_options(name).items()} == {
        key: hints[key] for key in OPTIONS[name]
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_defaults_are_json_plain_and_pass_the_check(name):
    defaults = {option: parameter.default for option, parameter in network_options(name).items()}
    check_options(name, json.loads(json.dumps(defaults)))


@pytest.mark.parametrize(("name", "residual"), [("RUNet", False), ("R2UNet", True), ("AttentionR2UNet", True)])
def test_each_recurrent_network_has_its_own_default_residual_and_takes_the_other(name, residual):
    assert small(name).encoder.units[0].residual is residual
    assert small(name, residual=not residual).encoder.units[0].residual is not residual


@pytest.mark.parametrize("name", ["PlainUNet", "RUNet", "R2UNet"])
def test_given_options_are_those_of_the_call_and_survive_copies(name):
    network = small(name, act="elu").eval()
    assert network.given_options == {"channels": [4, 6], "act": "elu"}
    image = torch.randn(1, 1, 8, 8)
    buffer = io.BytesIO()
    torch.save(network, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=False)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network)), saved):
        assert type(other) is NETWORKS[name] and other.given_options == network.given_options
        assert torch.equal(other(image), network(image))


@pytest.mark.parametrize("name", ["PlainUNet", "RUNet", "R2UNet"])
def test_networks_with_derived_signatures_script(name):
    network = small(name).eval()
    image = torch.randn(2, 1, 9, 8)
    torch.testing.assert_close(torch.jit.script(network)(image), network(image))


def test_config_parser_gives_every_option_by_name():
    options = json.loads(json.dumps(R2UNET_OPTIONS | {"channels": [4, 6], "residual": True, "steps": 1}))
    parser = ConfigParser({"network": {"_target_": "r2seg.networks.RUNet", **SIZES, **options}})
    network = parser.get_parsed_content("network")
    assert type(network) is RUNet and network.given_options == options
    assert network.encoder.units[0].residual and network.encoder.units[0].layers[0].steps == 1


def test_options_that_a_class_fixes_cannot_be_given():
    with pytest.raises(TypeError, match="unexpected keyword argument 'residual'"):
        NETWORKS["PlainUNet"](2, 1, 2, residual=True)
    with pytest.raises(TypeError, match="unexpected keyword argument 'unit_options'"):
        NETWORKS["UPerNet"](2, 1, 2, unit_options={})


def test_a_networks_own_subclass_scripts_and_takes_over_its_options():
    class Deeper(R2UNet):
        @takes_options_of(R2UNet)
        def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, *, steps: int = 3, **options: Any):
            super().__init__(spatial_dims, in_channels, out_channels, steps=steps, **options)

    parameters = inspect.signature(Deeper).parameters
    assert list(parameters) == list(inspect.signature(R2UNet).parameters)
    assert parameters["steps"].default == 3 and parameters["norm"].default == "batch"
    network = Deeper(2, 1, 2, channels=[4, 6]).eval()
    assert network.encoder.units[0].layers[0].steps == 3
    torch.jit.script(network)


def test_a_unit_shows_the_options_of_its_layers():
    layer, unit = inspect.signature(RecurrentConv).parameters, inspect.signature(Unit).parameters
    assert set(unit) == {*layer, "residual", "dropout", "checkpoint_activations"}
    assert unit["steps"].default == 0 and unit["norm_per_step"].default is True
    assert get_type_hints(Unit.__init__)["recurrence"] == Literal["separate", "shared"]
    with pytest.raises(TypeError, match="unexpected keyword argument 'stepz'"):
        Unit(2, 4, 4, stepz=1)


def test_an_option_without_a_type_takes_any_value():
    class Untyped:
        def __init__(self, spatial_dims, in_channels, out_channels, *, width=3): ...

    known = own_options(Untyped)
    check_values("Untyped", known, {"width": "wide"})
    with pytest.raises(ValueError, match=r"Untyped has no option 'widht' \(did you mean width\?\): it has width"):
        check_values("Untyped", known, {"widht": 3})


def test_a_choice_that_is_not_in_its_table_names_the_nearest_and_all():
    assert choose("norm", "batch", {"batch": 1, "group": 2}) == 1
    with pytest.raises(ValueError, match=r"^norm is 'Btach' \(did you mean batch\?\): give one of batch, group$"):
        choose("norm", "Btach", {"batch": 1, "group": 2})
    with pytest.raises(ValueError, match=r"^norm is 'x': give one of batch, group$"):
        choose("norm", "x", {"batch": 1, "group": 2})
    with pytest.raises(ValueError, match=r"^norm is 3: give one of batch, group$"):
        choose("norm", 3, {"batch": 1, "group": 2})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("R2Unet", {}, r"network is 'R2Unet' \(did you mean R2UNet\?\): give one of PlainUNet, ResidualUNet"),
        (
            "R2UNet",
            {"stepz": 3},
            r"R2UNet has no option 'stepz' \(did you mean steps.*it has channels, strides, .*, steps, recurrence",
        ),
        ("PlainUNet", {"steps": 3}, r"PlainUNet has no option 'steps'.*it has channels, strides"),
        ("R2UNet", {"steps": 1.5}, r"R2UNet's option steps is 1.5: give a whole number"),
        ("R2UNet", {"steps": True}, r"option steps is True"),
        ("R2UNet", {"channels": 16}, r"option channels is 16: give a list"),
        ("R2UNet", {"norm": "bach"}, r"option norm is 'bach' \(did you mean batch\?\): give one of batch, instance"),
        ("R2UNet", {"strides": [[2, "a"], 2]}, r"option strides is \[\[2, 'a'\], 2\]"),
        ("R2UNet", {"steps": -1}, r"steps is -1"),
        ("R2UNet", {"dropout": 1.0}, r"dropout is 1.0"),
        ("PlainUNet", {"channels": []}, r"channels is \[\]"),
        ("PlainUNet", {"channels": [4, 0]}, r"channels is \[4, 0\]"),
        ("PlainUNet", {"channels": [4, 8], "strides": [2, 2]}, r"strides has 2 entries but channels has 2 levels"),
        ("PlainUNet", {"channels": [4, 8], "strides": [[2, 2, 2]]}, r"strides holds 2 x 2 x 2"),
    ],
)
def test_wrong_name_or_option_is_named_with_its_remedy(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_network(name, spatial_dims=2, in_channels=1, out_channels=2, **options)


SAME = [
    ({"act": "leaky_relu"}, {"act": ("leakyrelu", {"negative_slope": 0.01})}),
    ({"act": "leaky_relu"}, {"act": ["LEAKYRELU", {"negative_slope": 0.01, "inplace": True}]}),
    ({"act": "leaky_relu"}, {"act": "LeakyReLU"}),
    ({"act": "prelu"}, {"act": ("prelu", {"init": 0.25})}),
    ({"act": "elu"}, {"act": ["ELU", {}]}),
    ({"act": "silu"}, {"act": ["SiLU"]}),
    ({"norm": "none"}, {"norm": None}),
    ({"norm": "instance"}, {"norm": ("INSTANCE", {"affine": True})}),
    ({"norm": "group"}, {"norm": ("GROUP", {})}),
    ({"norm": "batch"}, {"norm": ("Batch", {"eps": 1e-5, "momentum": 0.1})}),
]


@pytest.mark.parametrize(("ours", "monai"), SAME)
def test_monais_forms_of_activation_and_normalization_give_the_same_network(ours, monai):
    for name in ("PlainUNet", "AttentionR2UNet"):
        check_options(name, monai)
        check_options(name, json.loads(json.dumps(monai)))  # as YAML gives them
        one, other = small(name, **ours), small(name, **monai)
        assert str(one) == str(other)
        image = torch.randn(2, 1, 16, 16)
        for expected, found in zip(one.state_dict().values(), other.state_dict().values(), strict=True):
            assert torch.equal(expected, found)
        assert torch.equal(one(image), other(image))


def test_the_arguments_of_monais_forms_are_those_of_torch():
    network = small(
        "PlainUNet", act=("leakyrelu", {"negative_slope": 0.2}), norm=("group", {"num_groups": 1, "eps": 0.1})
    )
    slopes = {part.negative_slope for part in network.modules() if isinstance(part, torch.nn.LeakyReLU)}
    groups = {(part.num_groups, part.eps) for part in network.modules() if isinstance(part, torch.nn.GroupNorm)}
    assert (slopes, groups) == ({0.2}, {(1, 0.1)})
    image = torch.randn(1, 1, 8, 8)
    script = torch.jit.script(network.eval())
    assert torch.allclose(script(image), network(image))


def test_monais_forms_work_in_the_decoders_of_backbones_too():
    for name, option in (("UPerNet", "norm"), ("BackbonedUNet", "decoder_norm")):
        given = {option: ["GROUP", {"num_groups": 1}], "backbone": "resnet18"}
        check_options(name, given)
        network = build_network(name, **SIZES, **given)
        assert any(isinstance(part, torch.nn.GroupNorm) for part in network.decoder.modules())
        assert network(torch.randn(2, 1, 64, 64)).shape == (2, 2, 64, 64)


@pytest.mark.parametrize("name", ["PlainUNet", "AttentionUNet", "AttentionR2UNet"])
def test_groups_that_fit_the_channels_fit_every_network(name):
    network = build_network(name, **SIZES, channels=[8, 16], norm=["group", {"num_groups": 4}])
    groups = {
        (part.num_groups, part.num_channels) for part in network.modules() if isinstance(part, torch.nn.GroupNorm)
    }
    # The map of a gate's weights has one channel.
    assert groups == {(4, 8), (4, 16)} | ({(4, 4), (1, 1)} if name.startswith("Attention") else set())
    assert network(torch.randn(1, 1, 16, 16)).shape == (1, 2, 16, 16)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"norm": ("group", {"num_groups": 5})}, "norm group does not take {'num_groups': 5}"),
        ({"act": ("relu", {"slope": 1})}, "act relu does not take {'slope': 1}"),
        ({"act": ("mish", {"inplace": True})}, "act is 'mish'"),
        ({"norm": ("layer", {})}, "norm is 'layer'"),
    ],
)
def test_forms_that_do_not_fit_are_refused_with_the_option(options, text):
    with pytest.raises(ValueError) as caught:
        small("PlainUNet", **options)
    assert str(caught.value).startswith(text)


def test_an_unknown_activation_is_refused_before_anything_is_built():
    with pytest.raises(
        ValueError, match=r"PlainUNet's option act is 'rulu' \(did you mean relu\?\): give one of relu, "
    ):
        check_options("PlainUNet", {"act": "rulu"})
