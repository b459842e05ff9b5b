"""Small data sets in the official layouts, and a small vision transformer, the same wherever they are drawn."""

import pickle
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

PATCH, NATIVE, WIDTH = 8, 32, 24


class _Patches(nn.Module):
    """As timm's: refuses images of another size unless it is told not to insist."""

    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.patch_size, self.grid_size, self.strict_img_size = (PATCH, PATCH), (NATIVE // PATCH,) * 2, True

    def forward(self, images):
        assert not self.strict_img_size or images.shape[-2:] == (NATIVE, NATIVE)
        assert images.shape[-2] % PATCH == 0 and images.shape[-1] % PATCH == 0
        return self.proj(images).flatten(2).transpose(1, 2)


class SmallTransformer(nn.Module):
    """[class token; patches] through two blocks and a norm; its output is the class token."""

    def __init__(self):
        super().__init__()
        self.patch_embed = _Patches()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (NATIVE // PATCH) ** 2, WIDTH))
        block = {"dropout": 0.0, "activation": "gelu", "layer_norm_eps": 1e-6, "batch_first": True, "norm_first": True}
        self.blocks = nn.Sequential(*(nn.TransformerEncoderLayer(WIDTH, 3, 2 * WIDTH, **block) for _ in range(2)))
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)
        self.num_prefix_tokens = 1
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)

    def forward(self, images):
        tokens = self.patch_embed(images)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.pos_embed
        return self.norm(self.blocks(tokens))[:, 0]


def texture(seed: int, width: int, height: int, cells: int = 5) -> np.ndarray:
    """Smooth colours."""
    colours = np.random.default_rng(seed).integers(0, 256, (cells, cells, 3), np.uint8)
    return np.asarray(Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC))


def save(path: Path, pixels: np.ndarray) -> None:
    """Without loss, whatever the name says: decoders look at the content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="PNG")


def draw_revisited(folder: Path, landmarks: int = 5, distractors: int = 12) -> Path:
    """Each landmark: one query, two easy images, two hard ones, one of junk; then images of nothing."""
    names, gnd = [], []
    for landmark in range(landmarks):
        width, height = (90, 60) if landmark % 2 else (50, 80)
        kinds = {}
        for kind, count, noise in (("easy", 2, 0.45), ("hard", 2, 0.6), ("junk", 1, 0.3)):
            kinds[kind] = np.arange(len(names), len(names) + count)
            for _ in range(count):
                other = texture(1000 + len(names), width, height, 9)
                mixed = (1 - noise) * texture(landmark, width, height) + noise * other
                save(folder / f"jpg/image_{len(names):03}.jpg", mixed.astype(np.uint8))
                names.append(f"image_{len(names):03}")
        gnd.append({"bbx": [4.0, 6.0, width - 6.0, height - 2.0], **kinds})
        query = 0.8 * texture(landmark, width, height) + 0.2 * texture(2000 + landmark, width, height, 9)
        save(folder / f"jpg/query_{landmark}.jpg", query.astype(np.uint8))
    for number in range(distractors):
        save(folder / f"jpg/image_{len(names):03}.jpg", texture(3000 + number, 70, 70))
        names.append(f"image_{len(names):03}")
    truth = {"imlist": names, "qimlist": [f"query_{landmark}" for landmark in range(landmarks)], "gnd": gnd}
    (folder / f"gnd_{folder.name}.pkl").write_bytes(pickle.dumps(truth, protocol=2))
    return folder


def draw_copydays(folder: Path, originals: int = 8) -> Path:
    """Originals, two strong copies of each, and one compressed (here: coarse) copy of each."""
    for number in range(originals):
        pixels = texture(4000 + number, 96, 64)
        save(folder / f"original/20{number:02}00.jpg", pixels)
        save(folder / f"jpegqual/3/20{number:02}00.jpg", pixels // 64 * 64)
        for copy in (1, 2):
            cut = pixels[6 * copy : 58, 10 * copy : 90] // copy
            noise = texture(5000 + 10 * number + copy, cut.shape[1], cut.shape[0], 12)
            save(folder / f"strong/20{number:02}0{copy}.jpg", (0.75 * cut + 0.25 * noise).astype(np.uint8))
    for name, first, count in (("distractors", 6000, 30), ("whitening", 7000, 60)):
        for number in range(count):
            save(folder / f"{name}/{number:03}.png", texture(first + number, 96, 64))
    return folder


def draw_davis(folder: Path, frames: int = 8) -> Path:
    """Two objects that move over a texture: in a wide video and in a tall one."""
    palette = [value for number in range(256) for value in (number, 255 - number, number // 2)]
    for video, (width, height) in (("slide", (192, 96)), ("rise", (100, 140))):
        background = texture(8000, width, height, 12)
        for frame in range(frames):
            pixels, mask = background.copy(), np.zeros((height, width), np.uint8)
            placed = ((46, 10 + 3 * frame, 8 + frame), (34, width - 44 - 2 * frame, height - 46))
            for number, (side, left, top) in enumerate(placed, start=1):
                place = (slice(top, top + side), slice(left, left + side))
                pixels[place] = texture(9000 + number, side, side)
                mask[place] = number
            save(folder / f"JPEGImages/480p/{video}/{frame:05}.jpg", pixels)
            annotation = Image.fromarray(mask)
            annotation.putpalette(palette)
            path = folder / f"Annotations/480p/{video}/{frame:05}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            annotation.save(path)
    listing = folder / "ImageSets/2017/val.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("slide\nrise\n")
    return folder
