"""Copy detection, from folders that the tests draw in Copydays' layout."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

pytest.importorskip("PIL", reason="genviews-ssl-eval[images] is not installed")

from ssl_eval.image_files import ReaderConfig, images_in
from ssl_eval.retrieval.copydays import (
    CopyDescriptor,
    Whitening,
    copy_precision,
    evaluate_copydays,
    generalized_mean,
    read_copydays,
)

sys.path.insert(0, str(Path(__file__).parent))
from drawn_layouts import SmallTransformer, draw_copydays

# eval_copy_detection.py of facebookresearch/dino@7c446df on `draw_copydays` at 64 px, with the weights of
# SmallTransformer in its VisionTransformer: mAP of original, strong and jpegqual/3.
OFFICIAL = {
    (False, False): (100, 57.421875, 38.75),
    (True, False): (100, 31.228840603840602, 18.516483516483518),
    (False, True): (100, 66.36160714285714, 100),
    (True, True): (100, 47.137086004273506, 89.0625),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return draw_copydays(tmp_path_factory.mktemp("data") / "copydays")


@pytest.mark.parametrize(("distract", "whiten"), OFFICIAL)
def test_it_measures_what_dino_measures(folder, distract, whiten):
    found = evaluate_copydays(
        SmallTransformer(),
        read_copydays(folder),
        ReaderConfig(batch_size=7),
        size=64,
        distractors=images_in(folder / "distractors") if distract else [],
        whitening=images_in(folder / "whitening") if whiten else [],
    )
    assert list(found) == ["original", "strong", "jpegqual/3"]
    assert list(found.values()) == pytest.approx(OFFICIAL[distract, whiten], abs=1e-6)


def test_descriptors():
    network, images = SmallTransformer().eval(), torch.randn(3, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = CopyDescriptor(network)(images)
    assert found.shape == (3, 48)
    map_ = torch.tensor([[[[-5.0, 1.0], [2.0, 3.0]]]])
    assert float(generalized_mean(map_)) == pytest.approx((98 / 4) ** 0.25)
    residual = nn.Sequential()
    residual.layer4, residual.pool = nn.Conv2d(3, 5, 3, 2), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert CopyDescriptor(residual)(images).shape == (3, 10)
    with pytest.raises(ValueError, match="expected a backbone with patch tokens or a map, got Linear"):
        CopyDescriptor(nn.Linear(3, 4))


def test_whitened_features_have_unit_second_moments():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(400, 6, generator=generator) @ torch.randn(6, 6, generator=generator) + 3
    uncentred = Whitening(torch.zeros(6), Whitening.fit(features).directions)(features)
    torch.testing.assert_close(uncentred.T @ uncentred / 400, torch.eye(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(Whitening.fit(features)(features).mean(dim=0), torch.zeros(6), atol=1e-4, rtol=0)


def test_copies_beyond_the_nearest_twenty_are_never_found():
    database = torch.eye(30)[:, :2] + torch.tensor([1.0, 0.0])
    query = torch.tensor([[1.0, 0.0]])
    first, last = (copy_precision(query, database, [torch.tensor([row])])[0] for row in (0, 1))
    assert first == 1 and last == 0
    assert copy_precision(query, database[:2], [torch.tensor([1])])[0] == 0.25


def test_mistakes_are_named(folder, tmp_path):
    with pytest.raises(ValueError, match=r"original is missing; give the folder that contains original and strong"):
        read_copydays(tmp_path)
    place = tmp_path / "copydays"
    shutil.copytree(folder, place)
    (place / "jpegqual/3/200000.jpg").unlink()
    with pytest.raises(ValueError, match=r"expected 8 images, one per original, in .*jpegqual/3, got 7"):
        read_copydays(place)
    (place / "strong/990001.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"an original of .*990001\.jpg in .* that starts with 9900"):
        read_copydays(place)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"expected images .* in .*empty, got none"):
        images_in(tmp_path / "empty")
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        images_in(tmp_path / "nowhere")
