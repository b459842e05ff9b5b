"""A supervised classifier that predicts the class of views, to measure whether they keep the class of their image.

Shapes: n images, h x w pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

import pairdata
import sslzoo
from genviews.recipes import CIFAR_MEAN, CIFAR_STD
from pairdata import LabeledImages

SIZE = 32


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """A trained classifier of images of 32 x 32 px.

    Attributes:
        network: normalized images to logits.
        classes: sorted names of the class folders.
        device: device of the network.
    """

    network: nn.Module
    classes: tuple[str, ...]
    device: str

    def accuracy(self, test: Path) -> float:
        """Return the top-1 accuracy on labeled images in percent."""
        pixels, labels = _load(test, self.device)
        return float(100 * (self.predict(pixels) == labels).float().mean())

    def predict_views(self, images: Path, views: Path) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
        """Return the predicted class of each image's first view, and the class of the image."""
        index, views_index = pairdata.index_images(images), pairdata.ViewsIndex(views)
        paths, labels = [], []
        for row in range(len(index)):
            for path in views_index.paths(index.key(row))[:1]:
                paths.append(path)
                labels.append(int(index.labels[row]))
        mean, std = torch.tensor(CIFAR_MEAN).view(3, 1, 1), torch.tensor(CIFAR_STD).view(3, 1, 1)
        pixels = [np.asarray(pairdata.decode_rgb(views / path).resize((SIZE, SIZE))) for path in paths]
        values = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255
        return self.predict(((values - mean) / std).to(self.device)), torch.tensor(labels)

    @torch.no_grad()
    def predict(self, images: Float[Tensor, "n 3 h w"]) -> Int[Tensor, " n"]:
        """Return the most likely class of normalized images."""
        return torch.cat([self.network(part).argmax(1) for part in images.split(256)]).cpu()


def train_classifier(
    images: Path, *, device: str, epochs: int = 8, batch_size: int = 64, on_step: Callable[..., None] | None = None
) -> Oracle:
    """Train a small ResNet on labeled images with flips and shifts, by AdamW and a one-cycle schedule.

    Args:
        images: folder with one subfolder per class.
        device: device to train on.
        epochs: number of epochs.
        batch_size: images per step.
        on_step: called with (steps done, total steps).
    """
    pixels, labels = _load(images, device)
    classes = pairdata.index_images(images).classes
    draws = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = sslzoo.create_backbone("resnet10", cifar_stem=True, stem_stride=2, width=32)
        network = nn.Sequential(backbone, nn.LazyLinear(len(classes))).to(device)
        network(pixels[:2])
    steps = epochs * max(1, len(labels) // batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        rows = torch.randint(len(labels), (batch_size,), generator=draws)
        batch = _shift_and_flip(pixels[rows.to(device)], draws)
        loss = cross_entropy(network(batch), labels[rows].to(device), label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if on_step is not None:
            on_step(step + 1, steps)
    return Oracle(network=network.eval(), classes=classes, device=device)


def _shift_and_flip(images: Float[Tensor, "n 3 h w"], draws: torch.Generator) -> Float[Tensor, "n 3 h w"]:
    """Shift the whole batch by up to four pixels, and flip half of its images."""
    top, left = torch.randint(9, (2,), generator=draws).tolist()
    height, width = images.shape[2:]
    shifted = pad(images, (4, 4, 4, 4), mode="reflect")[:, :, top : top + height, left : left + width]
    mirrored = torch.rand(len(images), generator=draws).to(images.device) < 0.5
    return torch.where(mirrored[:, None, None, None], shifted.flip(3), shifted)


def _load(root: Path, device: str) -> tuple[Float[Tensor, "n 3 h w"], Int[Tensor, " n"]]:
    """Return all images of a folder, normalized, and their labels."""
    loader = LabeledImages(root, size=SIZE, mean=CIFAR_MEAN, std=CIFAR_STD, device=device)
    parts = [(pixels, labels) for pixels, labels, _ in loader]
    return torch.cat([pixels for pixels, _ in parts]), torch.cat([labels for _, labels in parts]).cpu()
