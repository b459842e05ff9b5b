"""Evaluation batches: in order, center-cropped, normalized."""

import pytest
import torch
from PIL import Image

from pairdata import LabeledImages


def _write(path, color, size=(40, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def test_images_come_once_in_order_with_their_class_and_normalised(tmp_path):
    for name, color in (("b/0.png", (0, 255, 0)), ("a/1.png", (255, 0, 0)), ("a/0.png", (51, 102, 153))):
        _write(tmp_path / name, color)
    loader = LabeledImages(tmp_path, size=16, batch_size=2, mean=(0.2, 0.4, 0.6), std=(0.5, 0.5, 0.5))
    images, labels, index = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert loader.classes == ("a", "b")
    assert labels.tolist() == [0, 0, 1]
    assert index.tolist() == [0, 1, 2]
    assert images.shape == (3, 3, 16, 16)
    torch.testing.assert_close(images[0], torch.zeros(3, 16, 16), atol=1e-6, rtol=0)
    torch.testing.assert_close(images[1, :, 0, 0], torch.tensor([1.6, -0.8, -1.2]))


def test_images_without_a_class_are_refused(tmp_path):
    _write(tmp_path / "lonely.png", (0, 0, 0))
    with pytest.raises(ValueError, match="<class>/<image>, got images outside"):
        LabeledImages(tmp_path, size=16)
