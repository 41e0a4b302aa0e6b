"""From files to windows: reading images, finding and splitting cases, preprocessing, caching, sampling, augmentation.

For MONAI's users there are ``list_cases``, dictionary transforms and data sets, see docs/monai.md. Importing the package loads none
of it, and no MONAI; a name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from r2seg.data.datasets import (
        CHASEDB1,
        DRIVE,
        HRF,
        ISIC,
        LCTSC,
        MSD,
        STARE,
        VOC,
        CaseDataset,
        FolderDataset,
        KaggleLung,
        NnUNet,
        SliceDataset,
    )
    from r2seg.data.dictionary_transforms import (
        AdjustPictured,
        MeasureIntensityd,
        NormalizeCased,
        ToWorkingGridd,
        config_transforms,
    )
    from r2seg.data.layouts import list_cases
    from r2seg.data.load_cased import LoadCased

_HOMES = {
    "dictionary_transforms": (
        "AdjustPictured",
        "MeasureIntensityd",
        "NormalizeCased",
        "ToWorkingGridd",
        "config_transforms",
    ),
    "layouts": ("list_cases",),
    "load_cased": ("LoadCased",),
    "datasets": (
        "CHASEDB1",
        "DRIVE",
        "HRF",
        "ISIC",
        "LCTSC",
        "MSD",
        "STARE",
        "VOC",
        "CaseDataset",
        "FolderDataset",
        "KaggleLung",
        "NnUNet",
        "SliceDataset",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "CHASEDB1",
    "DRIVE",
    "HRF",
    "ISIC",
    "LCTSC",
    "MSD",
    "STARE",
    "VOC",
    "AdjustPictured",
    "CaseDataset",
    "FolderDataset",
    "KaggleLung",
    "LoadCased",
    "MeasureIntensityd",
    "NnUNet",
    "NormalizeCased",
    "SliceDataset",
    "ToWorkingGridd",
    "config_transforms",
    "list_cases",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
