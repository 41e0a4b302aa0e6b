"""State dicts from files, and starting a network from the weights of a trained one. Nothing is fetched here, see ``pretrained``."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from r2seg.errors import closest, some

_WRAPPERS = (
    "network",
    "state_dict",
    "model",
    "model_state_dict",
    "net",
    "weights",
)  # keys under which checkpoints have it
_PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Return the state dict in a file of ``torch.save``, bare or as an entry of a checkpoint; only tensors are ever unpickled.

    Prefixes that DataParallel and torch.compile put before every name are dropped. Tensors are on the CPU.

    Raises:
        ValueError: There is no such file, or it does not load with ``weights_only=True`` or holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file of weights")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path} is not readable as weights ({type(error).__name__}): give a file that torch.save wrote and "
            "torch.load(..., weights_only=True) reads, such as that of torch.save(network.state_dict(), path)"
        ) from error
    return plain_state_dict(content, str(path))


def plain_state_dict(content: object, source: str = "the state dict") -> dict[str, Tensor]:
    """Return the names and tensors in a checkpoint or state dict, without wrappers and the prefixes of DataParallel and compile.

    State dicts side by side, {"encoder": ..., "decoder": ...}, become one with dotted names.

    Raises:
        ValueError: It holds no tensor with a name.
    """
    while isinstance(content, Mapping):
        wrapped = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if wrapped is None:
            break
        content = wrapped
    if isinstance(content, Mapping) and content and all(isinstance(part, Mapping) for part in content.values()):
        parts = {name: plain_state_dict(part, source) for name, part in content.items()}
        return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.items()}
    tensors = (
        {name: value for name, value in content.items() if isinstance(value, Tensor)}
        if isinstance(content, Mapping)
        else {}
    )
    if not tensors:
        raise ValueError(
            f"{source} holds no named tensors: give a state dict, or a checkpoint with one under {', '.join(_WRAPPERS)}"
        )
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def load_weights(
    network: nn.Module, source: str | Path | Mapping[str, Tensor], *, reset: Sequence[str] = ()
) -> tuple[str, ...]:
    """Start ``network`` from the weights of a trained one: the same architecture, up to the layers named in ``reset``.

    If the network's ``encoder`` takes part in ``pretrained_parameters()``, what was loaded into it counts as pretrained.

    Args:
        network: Changed in place, and only if everything fits.
        source: A file that ``read_state_dict`` reads, or a state dict.
        reset: Modules or parameters that keep the values ``network`` has now, by their dotted names: "head" is all of head.

    Returns:
        The names of the entries that kept their values.

    Raises:
        ValueError: An entry outside ``reset`` is missing, superfluous or of another shape, or a name in ``reset`` that the
            network does not have; one line with the layers, the shapes and what to put into ``reset``.
    """
    label = "the state dict" if isinstance(source, Mapping) else str(source)
    given = plain_state_dict(source, label) if isinstance(source, Mapping) else read_state_dict(source)
    own = network.state_dict()
    for name in reset:
        if not any(_is_in(key, name) for key in own):
            modules = [key for key, _ in network.named_modules() if key]
            parts = [key for key, _ in network.named_children()]
            candidates = closest(name, [*modules, *own], 4) or parts
            raise ValueError(
                f"reset {name!r} names no layer of {type(network).__name__}: did you mean {' or '.join(candidates)}?"
            )
    kept = tuple(key for key in own if any(_is_in(key, name) for name in reset))
    wanted = {key: tensor for key, tensor in own.items() if key not in set(kept)}
    differing = {
        key: f"{key} is {tuple(given[key].shape)} there but {tuple(tensor.shape)} here"
        for key, tensor in wanted.items()
        if key in given and given[key].shape != tensor.shape
    }
    # Files from before PyTorch counted batches lack the counter; no layer with a momentum uses it.
    absent = {
        key: f"{key} is missing there" for key in wanted if key not in given and not key.endswith("num_batches_tracked")
    }
    extra = {
        key: f"{key} is unknown here"
        for key in given
        if key not in own and not any(_is_in(key, name) for name in reset)
    }
    misfits = differing | absent | extra
    if misfits:
        layers = sorted({key.rpartition(".")[0] or key for key in (*differing, *absent)})
        if len(misfits) == len(extra) or len(layers) > 0.5 * len({key.rpartition(".")[0] for key in own}):
            remedy = "this is another architecture: set the network's options to those it was trained with"
        else:
            remedy = f"set the options it was trained with, or allow a fresh start of these layers with reset: [{', '.join(layers)}]"
        shown = some(list(misfits.values()), 4)
        raise ValueError(f"{label} does not fit {type(network).__name__}: {shown}: {remedy}")
    with torch.no_grad():
        for key, tensor in wanted.items():
            if key in given:
                tensor.copy_(given[key])
    encoder = getattr(network, "encoder", None)
    if encoder is not None and hasattr(encoder, "pretrained_names"):
        encoder.pretrained_names = [name for name, _ in encoder.named_parameters() if f"encoder.{name}" not in kept]
    return kept


def _is_in(key: str, name: str) -> bool:
    return key == name or key.startswith(f"{name}.")
