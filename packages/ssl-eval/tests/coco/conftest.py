"""A small COCO: rectangles and triangles on noise, and the smallest detector that learns them."""

import json
from pathlib import Path

import numpy as np
import pytest

COLOURS = {3: (220, 40, 40), 8: (40, 60, 230)}
"""By category: rectangles and triangles; the ids have a gap, as COCO's."""


@pytest.fixture
def write_coco():
    """write_coco(folder, images): a folder like COCO's, the same images in train2017 and val2017."""
    return _write


def _write(folder: Path, images: int = 6) -> Path:
    from PIL import Image, ImageDraw

    rng = np.random.default_rng(0)
    pictures, annotations = [], []
    for number in range(images):
        width, height = (96, 72) if number % 3 else (72, 96)
        pixels = Image.fromarray(rng.integers(0, 90, (height, width, 3), dtype=np.uint8))
        pictures.append({"id": 100 + number, "file_name": f"{number:03}.png", "width": width, "height": height})
        for place, category in enumerate(COLOURS):
            side = int(rng.integers(24, 34))
            left = int(rng.integers(2, width // 2 - side)) if width // 2 - side > 2 else 1
            left, top = left + place * (width // 2), int(rng.integers(2, height - side))
            corners = [left, top, left + side, top, left + side, top + side, left, top + side]
            if category == 8:
                corners = [left, top + side, left + side, top + side, left + side // 2, top]
            ImageDraw.Draw(pixels).polygon(corners, fill=COLOURS[category])
            area = side * side if category == 3 else side * side / 2
            annotations.append(
                {"id": len(annotations) + 1, "image_id": 100 + number, "category_id": category, "iscrowd": 0,
                 "area": area, "bbox": [left, top, side, side], "segmentation": [[float(x) for x in corners]]}
            )  # fmt: skip
        for split in ("train2017", "val2017"):
            (folder / split).mkdir(parents=True, exist_ok=True)
            pixels.save(folder / split / f"{number:03}.png")
    categories = [{"id": 8, "name": "triangle"}, {"id": 3, "name": "rectangle"}]
    (folder / "annotations").mkdir()
    for split in ("train2017", "val2017"):
        content = {"images": pictures, "annotations": annotations, "categories": categories}
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def coco(tmp_path) -> Path:
    return _write(tmp_path / "coco")


@pytest.fixture
def small_recipe():
    """small_recipe(**changes): a narrow detector of small images."""
    from dataclasses import replace

    from ssl_eval.coco import detection_config

    def small_recipe(variant: str = "fpn", **changes):
        small = {"iterations": 4, "batch_size": 2, "short_edge": 64, "channels": 16, "rois_per_image": 16}
        return replace(detection_config(variant, **small), **changes)

    return small_recipe


@pytest.fixture
def small_resnet():
    """The shallowest ResNet with torchvision's names, of random weights."""
    import torch
    from torchvision.models.resnet import BasicBlock, ResNet

    torch.manual_seed(0)
    network = ResNet(BasicBlock, [1, 1, 1, 1])
    network.fc = torch.nn.Identity()
    return network
