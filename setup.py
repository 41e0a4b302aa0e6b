"""Metadata of r2seg: the only place where name, dependencies and commands are declared."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
README = (HERE / "README.md").read_text("utf-8")
# Outside the repository a relative link leads nowhere: the package index shows the text alone.
LONG_DESCRIPTION = re.sub(r"\[([^\]]+)\]\((?!https?://)[^)]*\)", r"\1", README)
VERSION = re.search(r'^__version__ = "(.+)"', (HERE / "r2seg/__init__.py").read_text("utf-8"), re.M).group(1)

ONNX = ["onnx>=1.17", "onnxscript>=0.3", "onnxruntime>=1.20"]
# highdicom brings pyjpegls, the decoder of JPEG-LS; JPEG and JPEG 2000 are decoded by SimpleITK.
DICOM = ["pydicom>=3.0.1", "highdicom>=0.26"]
TEST = [
    "pytest>=8",
    "setuptools>=77",
    "ruff~=0.17.0",
    "mypy~=2.4.0",
    "types-PyYAML",
    "scikit-learn>=1.5",
    "selenium>=4.20",
    "pylibjpeg>=2.0",  # writes the tests' JPEG 2000 series
    "pylibjpeg-openjpeg>=2.2",
    *ONNX,
    *DICOM,
]

setup(
    name="r2seg",
    version=VERSION,
    description="Medical image segmentation with R2U-Net and related networks, on MONAI",
    long_description=LONG_DESCRIPTION,
    long_description_content_type="text/markdown",
    author="The r2seg developers",
    keywords=[
        "medical image segmentation",
        "semantic segmentation",
        "deep learning",
        "U-Net",
        "R2U-Net",
        "UPerNet",
        "MONAI",
        "PyTorch",
        "CT",
        "MRI",
        "fundus",
        "dermoscopy",
    ],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Environment :: GPU :: NVIDIA CUDA",
        "Intended Audience :: Healthcare Industry",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Processing",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
        "Typing :: Typed",
    ],
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["r2seg", "r2seg.*"]),
    package_data={
        "r2seg": ["py.typed"],
        "r2seg.pictures": ["templates/*"],
        "r2seg.data_check": ["templates/*"],
        "r2seg.evaluation": ["templates/*"],
    },
    install_requires=[
        "torch>=2.8",
        "torchvision",
        "monai>=1.5",
        "pytorch-ignite>=0.5",
        "nibabel>=5.3",
        "isal>=1.7",
        "SimpleITK>=2.4",
        "scikit-image>=0.24",
        "pillow>=10",
        "tifffile>=2024.1",
        "scipy>=1.13",
        "numpy>=1.26",
        "pyyaml>=6",
        "pydantic>=2.9",
        "typer>=0.15",
        "rich>=13",
        "tensorboard>=2.17",
        "matplotlib>=3.9",
        "jinja2>=3.1",
    ],
    extras_require={"test": TEST, "onnx": ONNX, "dicom": DICOM, "timm": ["timm>=1.0"]},
    entry_points={
        "console_scripts": [
            "r2seg = r2seg.cli:main",
            "r2seg-train = r2seg.cli:train_main",
            "r2seg-infer = r2seg.cli:infer_main",
            "r2seg-evaluate = r2seg.cli:evaluate_main",
        ]
    },
)
