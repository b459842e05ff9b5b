"""A small network and small images, for every test that trains; also run as one of two processes.

python evaluated.py RANK FOLDER
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from genviews_core.distributed import destroy_process_group
from ssl_eval import (
    Cosine,
    Features,
    FineTuneProtocol,
    LinearProtocol,
    extract_features,
    finetune,
    knn_predictions,
    linear_evaluation,
    linear_probe,
)

LINEAR = LinearProtocol(source="", epochs=4, batch_size=12, learning_rate=0.5, weight_decay=1e-3)
SEMI = FineTuneProtocol(
    source="", percent=10, epochs=4, batch_size=12, head_lr=0.1, backbone_lr=0.01, schedule=Cosine(per_step=True)
)
RATES = (0.05, 0.5, 2.0)


def backbone(*, batch_norm: bool = False, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6) if batch_norm else nn.GroupNorm(2, 6)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(dropout)
    )


def draw(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (count,), generator=generator)
    return torch.randn(count, 3, 6, 6, generator=generator) + 0.6 * labels[:, None, None, None] - 0.6, labels


class Epochs:
    """Other batches every epoch; the last one is smaller. Processes take turns image by image."""

    def __init__(self, rank: int = 0, size: int = 1):
        self.rank, self.size = rank, size
        self.images, self.labels = draw(44, 1)

    def __len__(self) -> int:
        return 4

    def epoch(self, epoch: int):
        generator = torch.Generator().manual_seed(epoch)
        order = torch.randperm(44, generator=generator)
        noise = 0.1 * torch.randn(44, 3, 6, 6, generator=generator)
        for rows in order.split(12):
            mine = rows[self.rank :: self.size]
            yield self.images[mine] + noise[mine], self.labels[mine]


class Torn(Epochs):
    """The second process cannot read an image of its second batch."""

    def __init__(self, rank: int):
        super().__init__(rank, 2)

    def epoch(self, epoch: int):
        for number, batch in enumerate(super().epoch(epoch)):
            if (self.rank, number) == (1, 1):
                raise ValueError("x.jpg is broken")
            yield batch


def tests(rank: int = 0, size: int = 1) -> list[tuple[torch.Tensor, torch.Tensor]]:
    images, labels = draw(61, 2)
    return list(zip(images[rank::size].split(16), labels[rank::size].split(16), strict=True))


def held_out(rank: int = 0, size: int = 1) -> list[tuple[torch.Tensor, torch.Tensor]]:
    images, labels = draw(31, 3)
    return [(images[rank::size], labels[rank::size])]


def feature_sets() -> tuple[Features, Features]:
    return tuple(Features(images.flatten(1), labels) for images, labels in (draw(90, 1), draw(41, 2)))


def _shares(rank: int, size: int) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Nine images on two processes: one is met twice, as samplers repeat it, and the batches are unequal."""
    images, labels = draw(9, 4)
    mine = torch.arange(9) if size == 1 else torch.tensor([[0, 2, 4, 6, 8], [1, 3, 5, 7, 0]][rank])
    return [(images[rows], labels[rows], rows) for rows in mine.split(2 + rank)]


def everything(rank: int, size: int, group: dist.ProcessGroup | None, folder: Path) -> dict:
    """All that processes can share."""
    train, test = feature_sets()
    common = {"num_classes": 3, "group": group}
    linear = linear_evaluation(
        backbone(), Epochs(rank, size), tests(rank, size), protocol=LINEAR, learning_rates=RATES,
        held_out=held_out(rank, size), resume=folder / "linear.pt", **common,
    )  # fmt: skip
    semi = finetune(
        backbone(), Epochs(rank, size), tests(rank, size), protocol=SEMI, resume=folder / "semi.pt", **common
    )
    extracted = extract_features(backbone(), _shares(rank, size), group=group)
    return {
        "extracted": (extracted.features, extracted.labels),
        "knn": knn_predictions(train, test, k=[1, 5], group=group),
        "probe": linear_probe(train, test, epochs=4, learning_rates=RATES, group=group).__dict__,
        "linear": linear.__dict__,
        "semi": semi.__dict__,
    }


if __name__ == "__main__":
    number, place = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{place}/store", rank=number, world_size=2)
    torch.save(everything(number, 2, dist.group.WORLD, place / "shared"), place / f"{number}.pt")
    uneven, told = ([(torch.zeros(2, 3, 6, 6), torch.zeros(2, dtype=torch.long))] * (2 + number), "")
    try:
        finetune(backbone(), uneven, tests(), protocol=SEMI, num_classes=3, group=dist.group.WORLD)
    except ValueError as error:
        told = str(error)
    try:
        finetune(backbone(batch_norm=True), uneven, tests(), protocol=SEMI, num_classes=3, group=dist.group.WORLD)
    except ValueError as error:
        told += str(error)
    try:
        finetune(backbone(), Torn(number), tests(), protocol=SEMI, num_classes=3, group=dist.group.WORLD)
    except ValueError as error:
        told += str(error)
    (place / f"{number}.txt").write_text(told)
    destroy_process_group()
