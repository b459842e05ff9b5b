"""Embeddings of tiles: kept, gone on with, made anew where they must be."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ssl_eval.slides.slide_sets import Slide, tiles_of
from ssl_eval.slides.tile_embeddings import CachedBags, embed_slides, embedding_path, read_bag

ABOUT = {"backbone": "abc", "tile": "whole"}


def slides(folder: Path, counts: tuple[int, ...]) -> list[Slide]:
    for number, count in enumerate(counts):
        for tile in range(count):
            path = folder / f"tiles/s{number}/{tile}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{number}{tile}")
    return [Slide(name=f"s{number}", place=folder / f"tiles/s{number}", label=0) for number in range(len(counts))]


class Reader:
    """Tiles of one value each, told by the file; two a batch. Counts what is read."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def __call__(self, slide: Slide):
        tiles = tiles_of(slide.place)
        for start in range(0, len(tiles), 2):
            batch = tiles[start : start + 2]
            self.read += [tile.read_text() for tile in batch]
            yield torch.stack([torch.full((3, 4, 4), float(tile.read_text())) for tile in batch])


class Means(nn.Module):
    def forward(self, images):
        return images.mean(dim=(2, 3))


def test_each_slide_is_one_bag(tmp_path):
    every, reader = slides(tmp_path, (3, 1, 5)), Reader()
    backbone = nn.Sequential(Means(), nn.Dropout(0.9)).train()
    embed_slides(backbone, every, reader, tmp_path / "kept", about=ABOUT)
    bags = CachedBags(every, tmp_path / "kept", backbone="abc")
    assert [len(bag) for bag in bags] == [3, 1, 5] and backbone[1].training
    assert bags[2].dtype == torch.float32 and bags[2][:, 0].tolist() == [20, 21, 22, 23, 24]
    assert len(reader.read) == 9


def test_a_stopped_embedding_goes_on(tmp_path):
    every, first, second = slides(tmp_path, (2, 2, 2)), Reader(), Reader()

    def stop(done: int, count: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_slides(Means(), every, first, tmp_path / "kept", about=ABOUT, on_slide=stop)
    embedding_path(tmp_path / "kept", every[1]).write_bytes(b"torn")
    embed_slides(Means(), every, second, tmp_path / "kept", about=ABOUT)
    assert second.read == ["10", "11", "20", "21"]


def test_changed_tiles_and_other_preparation_are_embedded_anew(tmp_path):
    every, reader = slides(tmp_path, (2, 2)), Reader()
    embed_slides(Means(), every, reader, tmp_path / "kept", about=ABOUT)
    (tmp_path / "tiles/s1/2.png").write_text("7")
    embed_slides(Means(), every, reader, tmp_path / "kept", about=ABOUT)
    assert reader.read[4:] == ["10", "11", "7"]
    embed_slides(Means(), every, reader, tmp_path / "kept", about=ABOUT | {"tile": "centre"})
    assert len(reader.read) == 7 + 5
    assert not list((tmp_path / "kept").glob("*.part"))


def test_embeddings_of_ones_own_and_mistakes(tmp_path):
    own = tmp_path / "own.safetensors"
    place = Slide(name="own", place=own, label=0)
    save_file({"features": torch.eye(3)}, own)
    embed_slides(Means(), [place], Reader(), tmp_path / "kept", about=ABOUT)
    assert torch.equal(CachedBags([place], tmp_path / "kept", backbone="abc")[0], torch.eye(3))
    save_file({"features": torch.eye(3)}, own, metadata={"backbone": "xyz"})
    with pytest.raises(ValueError, match=r"of the backbone abc in .*, got xyz"):
        read_bag(own, backbone="abc")
    save_file({"features": torch.zeros(0, 3)}, own)
    with pytest.raises(ValueError, match="at least one tile"):
        read_bag(own, backbone="abc")
    save_file({"other": torch.eye(3)}, own)
    with pytest.raises(ValueError, match=r"named features in .*, got none"):
        read_bag(own, backbone="abc")
    with pytest.raises(ValueError, match=r"got \[2, 3, 4, 4\]"):
        embed_slides(nn.Identity(), slides(tmp_path, (2,)), Reader(), tmp_path / "kept", about=ABOUT)
    with pytest.raises(ValueError, match=r"finite features for tiles of .*s0"):
        infinite = nn.Sequential(Means(), nn.Threshold(1e9, float("inf")))
        embed_slides(infinite, slides(tmp_path, (2,)), Reader(), tmp_path / "kept", about=ABOUT)


def test_longest_slide_name_is_cached(tmp_path):
    every = [Slide(name=f"a/{letter * 255}", place=tmp_path, label=0) for letter in "xy"]
    (tmp_path / "0.png").write_text("3")
    embed_slides(Means(), every, Reader(), tmp_path / "kept", about=ABOUT)
    assert embedding_path(tmp_path / "kept", every[0]) != embedding_path(tmp_path / "kept", every[1])
    assert CachedBags(every, tmp_path / "kept", backbone="abc")[1].tolist() == [[3.0] * 3]
