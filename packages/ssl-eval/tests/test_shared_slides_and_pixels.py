"""Slides embedded, and a segmentation head trained, by two processes: this one and `python THIS_FILE FOLDER`."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from genviews_core.distributed import destroy_process_group
from ssl_eval.segmentation.inference import segmentation_confusion
from ssl_eval.segmentation.training import SegmentationProtocol, train_segmentation
from ssl_eval.slides.slide_sets import Slide, tiles_of
from ssl_eval.slides.tile_embeddings import embed_slides, read_bag

PROTOCOL = SegmentationProtocol(steps=12, batch_size=4, learning_rate=0.02, crop=16, short=16, stride=11)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU())


def squares(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    masks = (torch.rand(4, 16, 16, generator=generator) < 0.5).long()
    masks[0, :, : 3 * seed % 16] = 255  # so that the halves of a batch count different numbers of pixels
    return torch.randn(4, 3, 16, 16, generator=generator) + masks[:, None].clamp(max=1), masks


def batches(rank: int, size: int):
    mine = slice(4 * rank // size, 4 * (rank + 1) // size)
    return lambda first, last: (tuple(each[mine] for each in squares(step)) for step in range(first, last))


def read(slide: Slide):
    for tile in tiles_of(slide.place):
        if tile.read_text() == "broken":
            raise ValueError(f"{tile} cannot be read")
        yield torch.full((1, 3, 2, 2), float(tile.read_text()))


def everything(folder: Path, rank: int, size: int, group: dist.ProcessGroup | None) -> dict:
    net = network()
    head = train_segmentation(net, batches(rank, size), protocol=PROTOCOL, num_classes=2, group=group)
    images, masks = squares(99)
    test = list(zip(images[rank::size], masks[rank::size], strict=True))
    counts = segmentation_confusion(net, head, test, protocol=replace(PROTOCOL, crop=12), num_classes=2, group=group)
    slides = [Slide(name=place.name, place=place, label=0) for place in sorted((folder / "tiles").iterdir())]
    embed = {"about": {"backbone": "flat"}, "group": group}
    embedded: list[int] = []
    kept = folder / f"kept{size}"
    embed_slides(nn.Flatten(), slides[:3], read, kept, on_slide=lambda done, _: embedded.append(done), **embed)
    told = ""
    try:
        embed_slides(nn.Flatten(), slides, read, kept, **embed)
    except ValueError as error:
        told = str(error)
    return {"head": head.state_dict(), "counts": counts, "embedded": len(embedded), "told": told}


def joined(folder: Path, rank: int) -> dict:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        return everything(folder, rank, 2, dist.group.WORLD)
    finally:
        destroy_process_group()


@pytest.fixture
def folder(tmp_path) -> Path:
    for number, tiles in enumerate(["12", "3", "456", "x"]):
        for tile in tiles:
            path = tmp_path / f"tiles/slide{number}/{tile}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("broken" if tile == "x" else tile)
    return tmp_path


def test_two_processes_find_what_one_does(folder):
    other = subprocess.Popen([sys.executable, __file__, str(folder)])
    alone = everything(folder, 0, 1, None)
    mine = joined(folder, 0)
    assert other.wait(timeout=120) == 0
    theirs = torch.load(folder / "other.pt", weights_only=True)
    assert (alone["embedded"], mine["embedded"], theirs["embedded"]) == (3, 2, 1)
    for found in (mine, theirs):
        assert torch.equal(found["counts"], alone["counts"]) and "slide3/x.png cannot be read" in found["told"]
        for name, tensor in alone["head"].items():
            torch.testing.assert_close(found["head"][name], tensor, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(mine["head"][name], theirs["head"][name]) for name in mine["head"])
    for slide in ("slide0", "slide1", "slide2"):
        one, two = (read_bag(folder / f"kept{size}/{slide}.safetensors", backbone="flat") for size in (1, 2))
        assert torch.equal(one, two)


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.save(joined(Path(sys.argv[1]), 1), Path(sys.argv[1]) / "other.pt")
