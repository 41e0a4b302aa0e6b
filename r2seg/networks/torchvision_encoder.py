"""Torchvision's classification backbones (and timm's, where it is installed) as encoders, with ImageNet weights or without.

A backbone is cut where its maps shrink: each stage ends with the last map of one size, so every map is the deepest of its scale.
Channels and reductions are read off shapes on the meta device: no weight and no BatchNorm statistic is touched.

Intensities are not normalised in here. A network sees what preprocessing made, in training, inference and export alike, and an
image of CT or MR has no ImageNet mean. Pretrained stems were trained on channels of mean 0 and standard deviation 1: a z-score
in preprocessing, or ImageNet's mean and deviation for colour photographs, serves them best.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
import torchvision.models
from torch import Tensor, nn
from torchvision.models import resnet, vgg

from r2seg.networks.base import SegmentationNetwork, by
from r2seg.networks.blocks import Norm
from r2seg.networks.weights import read_state_dict

logger = logging.getLogger(__name__)

Chain = list[tuple[str, nn.Module]]  # (path in torchvision's model, module), in the order of the forward pass


def _children(model: nn.Module, path: str, drop_last: int = 0) -> Chain:
    children = [(f"{path}.{name}", child) for name, child in model.get_submodule(path).named_children()]
    return children[: len(children) - drop_last]


def _attributes(*paths: str) -> Callable[[nn.Module], Chain]:
    return lambda model: [(path, model.get_submodule(path)) for path in paths]


def _features(drop_last: int) -> Callable[[nn.Module], Chain]:
    return lambda model: _children(model, "features", drop_last)


_LAYERS = ("maxpool", "layer1", "layer2", "layer3", "layer4")
_resnet = _attributes("conv1", "bn1", "relu", *_LAYERS)
_deep_stem_resnet = _attributes(*(f"{kind}{i}" for i in (1, 2, 3) for kind in ("conv", "bn", "relu")), *_LAYERS)
# What comes after the last map, and is left out: DenseNet's final norm, and the 1x1 convolution that feeds the classifier.
_CHAINS: dict[str, Callable[[nn.Module], Chain]] = {
    "vgg": _features(0),
    "resnet": _resnet,
    "resnext": _resnet,
    "wide_resnet": _resnet,
    "densenet": _features(1),
    "efficientnet": _features(1),
    "mobilenet": _features(1),
    "convnext": _features(0),
    "regnet": _attributes("stem", *(f"trunk_output.block{i}" for i in range(1, 5))),
    "mnasnet": lambda model: _children(model, "layers", drop_last=3),
    "shufflenet": _attributes("conv1", "maxpool", "stage2", "stage3", "stage4"),
    "swin": _features(0),
}


# What a backbone cannot do, by the beginning of its name; all others do all of it at any size.
LIMITS: dict[str, dict[str, str]] = {
    "swin": {
        "trace": "which levels shift their windows depends on the image's size and is recorded as it was: other sizes come out wrong",
        "export": "holds only at sizes at which the same levels shift their windows (a guard refuses the others)",
        "onnx": "holds only at sizes at which the same levels shift their windows",
    }
}

# ResNets whose stem is three 3x3 convolutions (64, 64, 128), as CSAIL's semantic-segmentation-pytorch trains them: their weights
# fit no model of torchvision. Each is named after the model that it is but for the stem.
_DEEP_STEMS = {f"{name}_deep_stem": name for name in ("resnet18", "resnet50", "resnet101", "resnext101_32x4d")}


def backbone_names() -> list[str]:
    """Names that ``TorchvisionEncoder`` takes, sorted; ``timm:NAME`` comes on top where timm is installed.

    ``resnet50_deep_stem`` and its kin are CSAIL's variants, for which torchvision has no weights.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    return sorted([name for name in known if name.startswith(tuple(_CHAINS))] + list(_DEEP_STEMS))


class TorchvisionEncoder(nn.Module):
    """A classification backbone without its classifier: image to one map per scale, the finest first.

    Args:
        backbone: A name of ``backbone_names()``, such as "resnet50", or "timm:NAME".
        in_channels: Image channels C. A pretrained stem is adapted, see ``adapt_stem``.
        pretrained: False: random weights, and nothing is ever fetched. True: torchvision's (timm's) default weights, fetched once
            into torch's hub folder. A path: a state dict of the same torchvision (timm) model in a local file.
        freeze: Keep the weights as they are and the backbone in evaluation mode, so that BatchNorm statistics stay as well.

    Attributes:
        channels, reductions: The contract of ``Encoder``.
        least_size: Least rows and columns of an image, those that leave the deepest map one pixel.
        pretrained_names: Names of the parameters that hold trained weights: all or none, but for ``load_weights`` with resets.

    Shape: (B, C, H, W) -> [(B, channels[i], about H / reductions[i], about W / reductions[i])].

    Raises:
        ValueError: An unknown name (with the nearest ones), weights that cannot be had or do not fit, or, from the forward pass,
            an image smaller than ``least_size``.
    """

    def __init__(
        self, backbone: str, *, in_channels: int = 3, pretrained: bool | str = False, freeze: bool = False
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.freeze = freeze
        if backbone.startswith("timm:"):
            self.trunk = _timm_trunk(backbone.removeprefix("timm:"), in_channels, pretrained)
        else:
            self.trunk = _torchvision_trunk(backbone, in_channels)
            if pretrained:
                file = None if pretrained is True else Path(pretrained)
                state = _fetch(backbone) if file is None else read_state_dict(file)
                self._load(state, str(file or "torchvision's file"), in_channels)
        self.pretrained_names: list[str] = [name for name, _ in self.named_parameters()] if pretrained else []
        shapes = _map_shapes(self.trunk, in_channels, 256)
        if shapes is None:
            raise ValueError(f"backbone {backbone} takes no image of 256 x 256: give one that is not tied to one size")
        self.channels: tuple[int, ...] = tuple(shape[1] for shape in shapes)
        self.reductions: tuple[tuple[int, ...], ...] = tuple((256 // shape[2], 256 // shape[3]) for shape in shapes)
        if any(finer[0] >= coarser[0] for finer, coarser in pairwise(self.reductions)):
            raise ValueError(
                f"backbone {backbone} has maps at reductions {self.reductions}: give one whose maps shrink"
            )
        self.least_size = _least_size(self.trunk, in_channels, self.reductions[-1][0])
        if freeze:
            self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> TorchvisionEncoder:
        """As usual, except that a frozen backbone stays in evaluation mode."""
        return super().train(mode and not self.freeze)

    def forward(self, image: Tensor) -> list[Tensor]:
        if not torch.jit.is_scripting():
            self.check_size(image)
        return self.trunk(image)

    @torch.jit.unused
    def check_size(self, image: Tensor) -> None:
        """Refuse an image below ``least_size``, unless a trace records it: sizes are tensors there."""
        if not torch.jit.is_tracing() and min(image.shape[2], image.shape[3]) < self.least_size:
            raise ValueError(
                f"image is {by(image.shape[2:])} pixels: {self.backbone} needs at least {by([self.least_size] * 2)}"
            )

    def torchvision_names(self) -> dict[str, str]:
        """Own state dict key -> that of torchvision's model: "trunk.1.layer1.0.conv1.weight" -> "layer1.0.conv1.weight"."""
        names = {}
        for key in self.state_dict():
            _, stage, child, *rest = key.split(".")
            names[key] = ".".join([self.trunk.paths[f"{stage}.{child}"], *rest])
        return names

    def _load(self, state: dict[str, Tensor], source: str, in_channels: int) -> None:
        state = current_names(state)
        own, names = self.state_dict(), self.torchvision_names()
        stem = next(key for key, tensor in own.items() if tensor.ndim == 4)
        values = {key: state[name] for key, name in names.items() if name in state}
        if stem in values and values[stem].shape[1] == 3:
            values[stem] = adapt_stem(values[stem], in_channels)
        misfits = [
            f"{names[key]} {tuple(values[key].shape)} instead of {tuple(tensor.shape)}"
            if key in values
            else f"{names[key]} missing"
            for key, tensor in own.items()
            if not ((key in values and values[key].shape == tensor.shape) or key.endswith("num_batches_tracked"))
        ]
        if misfits:
            raise ValueError(
                f"{source} does not fit torchvision's {self.backbone}: {'; '.join(misfits[:3])} ({len(misfits)} in all): "
                f"give a state dict of torchvision.models.{self.backbone}"
            )
        with torch.no_grad():  # not load_state_dict: a plain dict lacks the version that MNASNet asks for
            for key, value in values.items():
                own[key].copy_(value)


class BackboneNetwork(SegmentationNetwork):
    """A 2-D network on an ``encoder`` that may hold trained weights: parameters in two groups, for two learning rates."""

    # With a type: TorchScript would read the base class's annotations otherwise, and fails on them.
    supported_spatial_dims: tuple[int, ...] = (2,)

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        if spatial_dims != 2:
            raise ValueError(f"spatial_dims is {spatial_dims}: {type(self).__name__} is 2-D only, set spatial_dims: 2")
        super().__init__(spatial_dims, in_channels, out_channels)

    def _finish(self, *, deepest_norm: Norm = "none") -> None:
        """To be called when all parts are there; ``deepest_norm`` is what the decoder applies to the deepest map."""
        least = getattr(self.encoder, "least_size", self.encoder.reductions[-1][0])
        self.least_size = (least, least)
        trained = not getattr(self.encoder, "freeze", False)
        if trained and any(isinstance(module, nn.BatchNorm2d) for module in self.encoder.modules()):
            deepest_norm = "instance" if deepest_norm == "instance" else "batch"
        self.deepest_norm = deepest_norm
        self.to(memory_format=torch.channels_last)

    @torch.jit.unused
    def check_image(self, image: Tensor) -> None:
        """Refuse what the base class refuses, and a deepest map with a single value to normalize over."""
        super().check_image(image)
        if torch.jit.is_tracing() or not (
            self.deepest_norm == "instance" or (self.deepest_norm == "batch" and self.training)
        ):
            return
        # least_size leaves the deepest map one pixel, and another comes with each further reduction.
        least, reduction = self.least_size[0], self.encoder.reductions[-1][0]
        num_values = 1 if self.deepest_norm == "instance" else image.shape[0]
        for size in image.shape[2:]:
            num_values *= 1 + (size - least) // reduction
        if num_values < 2:
            batch = "" if self.deepest_norm == "instance" else ", or two images a batch"
            raise ValueError(
                f"image is {by(image.shape[2:])} pixels, one in the deepest map, and {self.deepest_norm} norm needs two "
                f"there: give at least {by((least, least + reduction))}{batch}"
            )

    def pretrained_parameters(self) -> Iterator[nn.Parameter]:
        """Those of the encoder that hold trained weights, frozen or not; none where it started at random.

        An adapted stem is among them, as it was derived from the trained one; a stem that ``load_weights`` was told to reset is not.
        """
        names = set(getattr(self.encoder, "pretrained_names", ()))
        yield from (parameter for name, parameter in self.encoder.named_parameters() if name in names)

    def new_parameters(self) -> Iterator[nn.Parameter]:
        """All the others."""
        pretrained = {id(parameter) for parameter in self.pretrained_parameters()}
        yield from (parameter for parameter in self.parameters() if id(parameter) not in pretrained)


def current_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A torchvision state dict under today's names: files of DenseNets are older than the code, where norm.1 became norm1."""
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", name): value for name, value in state.items()}


def adapt_stem(weight: Tensor, in_channels: int) -> Tensor:
    """The first convolution's weights of a network trained on RGB, for images of another number of channels.

    One channel: summed over RGB, so that a grey image gives the features that three equal channels gave. Others: repeated in
    turn and scaled by 3 / in_channels, so that the sum keeps its size.

    Shape: (K, 3, *kernel) -> (K, in_channels, *kernel).
    """
    if in_channels == 1:
        return weight.sum(1, keepdim=True)
    if in_channels == 3:
        return weight
    return weight[:, [channel % 3 for channel in range(in_channels)]] * (3 / in_channels)


class _Trunk(nn.ModuleList):
    """Stages in a row, each giving a map; ``paths`` tells where in torchvision's model a child of a stage was."""

    def __init__(self, stages: list[Chain], channels_last: bool) -> None:
        # Names in torchvision's manner stay readable in a state dict; a dot may not be in one.
        super().__init__(
            nn.Sequential(OrderedDict((path.rpartition(".")[2], module) for path, module in stage)) for stage in stages
        )
        self.paths = {f"{i}.{path.rpartition('.')[2]}": path for i, stage in enumerate(stages) for path, _ in stage}
        self.channels_last = channels_last

    def forward(self, image: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for stage in self:
            image = stage(image)
            maps.append(image.permute(0, 3, 1, 2) if self.channels_last else image)
        return maps


class _TimmTrunk(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = self.model(image)
        return [x.permute(0, 3, 1, 2) for x in maps] if self.channels_last else maps


def _torchvision_trunk(name: str, in_channels: int) -> _Trunk:
    names = backbone_names()
    if name not in names:
        raise _unknown(name, names)
    family = next(prefix for prefix in _CHAINS if name.startswith(prefix))
    # VGG's classifier, 90 % of its weights, is left out before it is built. RegNet and Swin compute their widths with tensors,
    # which a default device of "meta" would leave without values.
    device = torch.get_default_device()
    if family == "vgg":
        model = _vgg(name)
    elif name in _DEEP_STEMS:
        model = _make_deep_stem_resnet(_DEEP_STEMS[name])
    else:
        with torch.device("cpu" if family in ("regnet", "swin") else device):
            model = torchvision.models.get_model(name, weights=None).to(device)
    if in_channels != 3:
        path, conv = next((path, module) for path, module in model.named_modules() if isinstance(module, nn.Conv2d))
        stem = nn.Conv2d(
            in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, bias=conv.bias is not None
        )
        _init_convs(stem)
        model.set_submodule(path, stem)
    chain = _deep_stem_resnet(model) if name in _DEEP_STEMS else _CHAINS[family](model)
    return _cut(chain, in_channels, channels_last=family == "swin")


def _vgg(name: str) -> nn.Module:
    letter = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}[name.removesuffix("_bn")]
    model = nn.Module()
    model.features = vgg.make_layers(vgg.cfgs[letter], batch_norm=name.endswith("_bn"))
    _init_convs(model)
    return model


def _make_deep_stem_resnet(name: str) -> nn.Module:
    is_resnext = name.startswith("resnext")
    if is_resnext:
        model = resnet.ResNet(resnet.Bottleneck, [3, 4, 23, 3], groups=32, width_per_group=4)
    else:
        model = torchvision.models.get_model(name, weights=None)
    for index, (before, width, stride) in enumerate([(3, 64, 2), (64, 64, 1), (64, 128, 1)], start=1):
        model.add_module(f"conv{index}", nn.Conv2d(before, width, 3, stride, padding=1, bias=False))
        model.add_module(f"bn{index}", nn.BatchNorm2d(width))
        model.add_module(f"relu{index}", nn.ReLU(inplace=True))
    # The wider stem changes the first block only: its input has 128 channels, so its shortcut is projected.
    block = type(model.layer1[0])
    width = 64 * block.expansion
    shortcut = nn.Sequential(nn.Conv2d(128, width, 1, bias=False), nn.BatchNorm2d(width))
    model.layer1[0] = block(
        128, 64, downsample=shortcut, groups=32 if is_resnext else 1, base_width=4 if is_resnext else 64
    )
    _init_convs(model)
    return model


def _init_convs(module: nn.Module) -> None:
    """As torchvision does: no other weights than convolutions' are drawn at random here."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)


def _cut(chain: Chain, in_channels: int, channels_last: bool) -> _Trunk:
    x = torch.empty(1, in_channels, 256, 256, device="meta")
    stages: list[Chain] = [[]]
    size = 0
    for path, module in chain:
        x = _on_meta(module, x)
        rows = x.shape[1] if channels_last else x.shape[2]
        if rows < size:
            stages.append([])
        stages[-1].append((path, module))
        size = rows
    return _Trunk(stages, channels_last)


def _on_meta(module: nn.Module, x: Tensor) -> Any:
    """What ``module`` gives for the shape of ``x`` in evaluation mode, computed with stand-ins for its weights and statistics."""
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    stand_ins = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    with torch.no_grad():
        return torch.func.functional_call(module.eval(), stand_ins, (x,))


def _map_shapes(trunk: nn.Module, in_channels: int, size: int) -> list[torch.Size] | None:
    """Shapes of the maps of a square image, or None where it is too small for the deepest."""
    try:
        shapes = [x.shape for x in _on_meta(trunk, torch.empty(1, in_channels, size, size, device="meta"))]
    except (RuntimeError, AssertionError):
        return None
    return shapes if all(min(shape) > 0 for shape in shapes) else None


def _least_size(trunk: nn.Module, in_channels: int, enough: int) -> int:
    too_small = 0
    while enough - too_small > 1:
        # Backbones that pad take one pixel, the others nearly what the deepest map reduces: the first guess settles many.
        middle = 1 if too_small == 0 else (too_small + enough) // 2
        if _map_shapes(trunk, in_channels, middle) is None:
            too_small = middle
        else:
            enough = middle
    return enough


def _fetch(name: str) -> dict[str, Tensor]:
    """Torchvision's default weights of a backbone, from torch's hub folder or, once, from their address."""
    if name in _DEEP_STEMS:
        raise ValueError(
            f"torchvision has no weights of {name}: set pretrained: PATH to a file of CSAIL's, or to false"
        )
    weights = torchvision.models.get_model_weights(name).DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name
    if not file.exists():
        # A warning, so that it is seen where no logging is set up: a download must not come as a surprise.
        logger.warning("fetching the ImageNet weights of %s, %s, once into %s", name, weights.url, file.parent)
        try:
            weights.get_state_dict(progress=False, check_hash=True, weights_only=True, map_location="cpu")
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"the weights of {name} could not be fetched ({error}): download {weights.url} where there is a network and "
                f"put the file {file.name} into {file.parent}, or set pretrained: PATH to where it lies"
            ) from error
    return read_state_dict(file)


def _timm_trunk(name: str, in_channels: int, pretrained: bool | str) -> _TimmTrunk:
    try:
        import timm
    except ImportError as error:
        raise ValueError(f"backbone timm:{name} needs timm: pip install timm") from error
    if not timm.is_model(name):
        raise _unknown(f"timm:{name}", [f"timm:{known}" for known in timm.list_models()])
    # timm adapts the stem by the rule of adapt_stem, and loads by its own names.
    file = (
        {} if isinstance(pretrained, bool) else {"pretrained_cfg_overlay": {"state_dict": read_state_dict(pretrained)}}
    )
    if pretrained is True:
        logger.warning("timm fetches the weights of %s unless its cache holds them", name)
    try:
        with torch.device("cpu"):
            model = timm.create_model(
                name, pretrained=bool(pretrained), features_only=True, in_chans=in_channels, **file
            )
    except (OSError, RuntimeError, ValueError) as error:
        remedy = (
            "set pretrained: PATH to a state dict of this model" if pretrained is True else "choose another backbone"
        )
        raise ValueError(f"timm made no backbone of {name} ({str(error).splitlines()[0]}): {remedy}") from error
    return _TimmTrunk(model.to(torch.get_default_device()))


def _unknown(name: str, names: list[str]) -> ValueError:
    nearest = difflib.get_close_matches(name, names, n=4, cutoff=0.3) or names
    return ValueError(f"unknown backbone {name!r}: the nearest names are {', '.join(nearest)}")
