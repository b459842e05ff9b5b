"""SimSiam's augmentations of a batch: ours, torchvision v2 image by image, kornia on the batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import kornia.augmentation as K
import torch
from PIL import Image
from torchvision.transforms import v2

from benchmarks.throughput.timing import rates
from pairdata import Augment

WAYS = ("ours", "torchvision v2, PIL", "torchvision v2, tensor", "kornia")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class AugmentationBenchmark:
    """Images per second of SimSiam's augmentations, against torchvision v2 and kornia."""

    batch_size: int = 256
    per_image: bool = True
    """Also measure torchvision image by image, which is slow compared to the others on a GPU."""
    rounds: int = 5
    device: str = "cpu"


def measure_augmentation(options: AugmentationBenchmark) -> Iterator[tuple[str, ...]]:
    """Yield a row per size: images/s of each implementation, and our speedup over torchvision and kornia."""
    for stored, size in ((32, 32), (288, 224)):
        yield _measure(options, stored, size)


def _measure(options: AugmentationBenchmark, stored: int, size: int) -> tuple[str, ...]:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(options.batch_size, 3, stored // 8, stored // 8, generator=generator)
    images = (torch.nn.functional.interpolate(coarse, (stored, stored), mode="bicubic").clamp(0, 1) * 255).byte()
    images = images.contiguous(memory_format=torch.channels_last).to(options.device)
    sizes = torch.full((options.batch_size, 2), stored)
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images.cpu()]
    augment, on_pil, on_tensor, batched = Augment(size=size), *_torchvision(size), _kornia(size).to(options.device)
    work = {
        "ours": lambda: augment(images, sizes, generator),
        "torchvision v2, PIL": lambda: torch.stack([on_pil(picture) for picture in pictures]),
        "torchvision v2, tensor": lambda: torch.stack([on_tensor(image) for image in images]),
        "kornia": lambda: batched(images.float().div_(255)),
    }
    if not options.per_image:
        work = {name: work[name] for name in ("ours", "kornia")}
    measured = rates(work, items=options.batch_size, rounds=options.rounds, warmup=1)
    best = max((rate for name, rate in measured.items() if name.startswith("torchvision")), default=None)
    cells = [f"{measured[name]:.0f}" if name in measured else "" for name in WAYS]
    to_best = f"{measured['ours'] / best:.2f}x" if best else ""
    return (f"{stored} -> {size}", *cells, to_best, f"{measured['ours'] / measured['kornia']:.2f}x")


def _torchvision(size: int) -> tuple[v2.Transform, v2.Transform]:
    """Return torchvision's augmentations for PIL images and for uint8 tensors."""
    blur = v2.GaussianBlur(max(3, size // 10 | 1), (0.1, 2.0))
    shared = [
        v2.RandomResizedCrop(size, scale=(0.2, 1.0), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        v2.RandomGrayscale(0.2),
        v2.RandomApply([blur], p=0.5),
    ]
    last = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    return v2.Compose([*shared, v2.ToImage(), *last]), v2.Compose([*shared, *last])


def _kornia(size: int) -> torch.nn.Module:
    """Return kornia's augmentations, with parameters drawn per image."""
    return torch.nn.Sequential(
        K.RandomResizedCrop((size, size), scale=(0.2, 1.0)),
        K.RandomHorizontalFlip(),
        K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        K.RandomGrayscale(p=0.2),
        K.RandomGaussianBlur(max(3, size // 10 | 1), (0.1, 2.0), p=0.5),
        K.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    )
