"""R2U-Net on chest CT with plain MONAI: python docs/tutorial_monai.py [folder with images/ and labels/]"""

import sys
import tempfile

import torch
from monai.data import DataLoader, decollate_batch
from monai.inferers import SliceInferer
from monai.metrics import DiceMetric
from monai.transforms import AsDiscreted, Compose, Invertd, RandGaussianNoised, RandScaleIntensityd

from r2seg.data import FolderDataset, LoadCased, NormalizeCased, SliceDataset, ToWorkingGridd
from r2seg.networks import R2UNet
from r2seg.training.losses import SegmentationLoss

LABELS = {"lung": 1}
WINDOW = {"kind": "hu_window", "low": -1000, "high": 400}
SPLIT = {"labels": LABELS, "validation": 0.25, "test": 0.25, "seed": 0}  # by patient


def train(root: str, epochs: int = 20) -> torch.nn.Module:
    """R2U-Net trained on 96 x 96 windows of axial slices, half of which are certain to hold lung."""
    torch.manual_seed(0)
    change = Compose([RandScaleIntensityd("image", 0.1), RandGaussianNoised("image", 0.5, std=0.02)])
    drawn = {"size": (96, 96), "num_windows": 64, "preprocessing": {"intensity": WINDOW}, "transform": change}
    cases = FolderDataset(root, "training", **SPLIT, cache_rate=0).items
    windows = SliceDataset(cases, LABELS, cache_dir=tempfile.mkdtemp(), **drawn)
    network = R2UNet(2, 1, 2, channels=(16, 32, 64, 128))
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * 8)
    loss_function = SegmentationLoss("dice_ce", "softmax")  # leaves out label 255, beyond the border of small images
    for epoch in range(epochs):
        windows.set_epoch(epoch)
        for batch in DataLoader(windows, batch_size=8, num_workers=2):
            loss = loss_function(network(batch["image"]), batch["label"][:, 0])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    return network.eval()


def evaluate(root: str, network: torch.nn.Module, section: str = "test") -> float:
    """Mean Dice of whole volumes on the grids of their files."""
    chain = Compose([LoadCased(labels=LABELS), ToWorkingGridd("image"), NormalizeCased("image", **WINDOW)])
    back = Compose([Invertd("pred", chain, "image", nearest_interp=False), AsDiscreted("pred", argmax=True)])
    inferer, dice = SliceInferer(spatial_dim=2, roi_size=(96, 96), sw_batch_size=8, mode="gaussian"), DiceMetric()
    for batch in DataLoader(FolderDataset(root, section, chain, **SPLIT), batch_size=1):
        with torch.no_grad():
            batch["pred"] = inferer(batch["image"], network).softmax(1)
        for case in map(back, decollate_batch(batch)):
            dice(case["pred"][None], case["label"][None])
    return dice.aggregate().item()


if __name__ == "__main__":
    folder = sys.argv[1] if len(sys.argv) > 1 else "sample_data/lung"
    print(f"test Dice: {evaluate(folder, train(folder)):.4f}")
