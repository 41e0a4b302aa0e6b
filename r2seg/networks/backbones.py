"""Classification backbones of torchvision and, if it is installed, of timm, cut into stages: their names and their trunks.

A backbone is cut where its maps shrink: each stage ends with the last map of one size, so every map is the deepest of its scale.
Shapes are read off the meta device: no weight and no BatchNorm statistic is touched. Trained weights of torchvision are
loaded in ``pretrained``, the encoder is in ``torchvision_encoder``. A further family of torchvision is one line in ``_CHAINS``.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
import torchvision.models
from torch import Tensor, nn
from torchvision.models import resnet, vgg

from r2seg.errors import nearest
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
# Family, the beginning of a name -> its chain. What comes after the last map is left out: DenseNet's final norm, and the 1x1
# convolution that feeds the classifier.
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

# ResNets whose stem is three 3x3 convolutions (64, 64, 128), as CSAIL's semantic-segmentation-pytorch trains them: their weights
# fit no model of torchvision. Each is named after the model that it equals apart from the stem.
DEEP_STEMS = {f"{name}_deep_stem": name for name in ("resnet18", "resnet50", "resnet101", "resnext101_32x4d")}


def backbone_names() -> list[str]:
    """Return torchvision's names of the backbones known here, sorted; ``timm:NAME`` is for those of timm, if it is installed.

    ``resnet50_deep_stem`` and the like are CSAIL's variants, for which torchvision has no weights.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    return sorted([name for name in known if name.startswith(tuple(_CHAINS))] + list(DEEP_STEMS))


class Trunk(nn.ModuleList):
    """Stages one after the other, each returning a map.

    Attributes:
        paths: Where in torchvision's model a child of a stage was, by "STAGE.CHILD".

    Shape: (B, C, H, W) -> one (B, channels, h, w) per stage, the finest first.
    """

    def __init__(self, stages: list[Chain], channels_last: bool) -> None:
        # Torchvision's own names keep a state dict readable; a module's name must not contain a dot.
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

    def torchvision_names(self) -> dict[str, str]:
        """Return torchvision's key for each own one: "1.layer1.0.conv1.weight" -> "layer1.0.conv1.weight"."""
        names = {}
        for key in self.state_dict():
            stage, child, *rest = key.split(".")
            names[key] = ".".join([self.paths[f"{stage}.{child}"], *rest])
        return names


def torchvision_trunk(name: str, in_channels: int) -> Trunk:
    """Return a backbone of torchvision with random weights, cut into stages.

    Args:
        name: One of ``backbone_names()``.
        in_channels: Channels of the image; another number than 3 gets a new first convolution.

    Raises:
        ValueError: An unknown name; the nearest ones are named.
    """
    names = backbone_names()
    if name not in names:
        raise _unknown(name, names)
    family = next(prefix for prefix in _CHAINS if name.startswith(prefix))
    # VGG's classifier, 90 % of its weights, is never built. RegNet and Swin compute their widths with tensors, which would have
    # no values on a default device of "meta".
    device = torch.get_default_device()
    if family == "vgg":
        model = _vgg(name)
    elif name in DEEP_STEMS:
        model = _make_deep_stem_resnet(DEEP_STEMS[name])
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
    chain = _deep_stem_resnet(model) if name in DEEP_STEMS else _CHAINS[family](model)
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
    """Initialize convolutions as torchvision does; nothing else is drawn at random here."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)


def _cut(chain: Chain, in_channels: int, channels_last: bool) -> Trunk:
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
    return Trunk(stages, channels_last)


def _on_meta(module: nn.Module, x: Tensor) -> Any:
    """Return what ``module`` gives for ``x`` in evaluation mode, with meta tensors in place of its weights and statistics."""
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    stand_ins = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    with torch.no_grad():
        return torch.func.functional_call(module.eval(), stand_ins, (x,))


def map_shapes(trunk: nn.Module, in_channels: int, size: int) -> list[torch.Size] | None:
    """Return the shapes of the maps of a square image of ``size`` pixels, or None if it is too small for the deepest one."""
    try:
        shapes = [x.shape for x in _on_meta(trunk, torch.empty(1, in_channels, size, size, device="meta"))]
    except (RuntimeError, AssertionError):
        return None
    return shapes if all(min(shape) > 0 for shape in shapes) else None


def least_size(trunk: nn.Module, in_channels: int, enough: int) -> int:
    """Return the rows and columns of the smallest square image that has a deepest map; ``enough`` pixels are known to do."""
    too_small = 0
    while enough - too_small > 1:
        # Backbones that pad take one pixel, the others nearly the deepest map's reduction: the first guess settles many.
        middle = 1 if too_small == 0 else (too_small + enough) // 2
        if map_shapes(trunk, in_channels, middle) is None:
            too_small = middle
        else:
            enough = middle
    return enough


class TimmTrunk(nn.Module):
    """A model of timm that returns its maps, as (B, channels, h, w) each."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = self.model(image)
        return [x.permute(0, 3, 1, 2) for x in maps] if self.channels_last else maps


def timm_trunk(name: str, in_channels: int, pretrained: bool | str) -> TimmTrunk:
    """Return a backbone of timm, with timm's weights, those of a file, or random ones.

    Args:
        name: A model's name in timm.
        in_channels: Channels of the image; timm adapts the stem by the rule of ``pretrained.adapt_stem``.
        pretrained: As in ``TorchvisionEncoder``; a file holds timm's own names.

    Raises:
        ValueError: timm is not installed, does not know the name, or cannot make a backbone of it.
    """
    try:
        import timm
    except ImportError as error:
        raise ValueError(f"backbone timm:{name} needs timm: pip install timm") from error
    if not timm.is_model(name):
        raise _unknown(f"timm:{name}", [f"timm:{known}" for known in timm.list_models()])
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
        raise ValueError(f"timm cannot make a backbone of {name} ({str(error).splitlines()[0]}): {remedy}") from error
    return TimmTrunk(model.to(torch.get_default_device()))


def _unknown(name: str, names: list[str]) -> ValueError:
    return ValueError(f"unknown backbone {name!r}; {nearest(name, names, 4)}")
