"""Instances followed through videos that the tests draw in DAVIS' layout."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

pytest.importorskip("PIL", reason="genviews-ssl-eval[images] is not installed")
pytest.importorskip("scipy", reason="genviews-ssl-eval[images] is not installed")
from PIL import Image

from ssl_eval.feature_maps import OutputAndFeatureMap
from ssl_eval.video import mask_propagation
from ssl_eval.video.davis import Video, evaluate_davis, read_davis, read_mask, segment_video, unusual_masks
from ssl_eval.video.davis_metrics import davis_table
from ssl_eval.video.mask_propagation import Frames, PropagationConfig, network_size, propagate

sys.path.insert(0, str(Path(__file__).parent))
from drawn_layouts import SmallTransformer, draw_davis

FRAMES = Frames(mean=(0.485, 0.456, 0.406), std=(0.228, 0.224, 0.225), short_side=96)
OPTIONS = PropagationConfig(frames=3, radius=4, neighbors=5)
# eval_video_segmentation.py of facebookresearch/dino@7c446df on `draw_davis`, with the weights of SmallTransformer in
# its VisionTransformer and the options above: pixels of both objects in every frame.
PIXELS = {
    "slide": (
        (2116, 1156), (1896, 656), (1718, 276), (1472, 344), (1262, 842), (1590, 722), (1686, 382), (1803, 492)
    ),
    "rise": (
        (2116, 1156), (1833, 856), (1614, 505), (1562, 500), (1581, 1008), (1448, 652), (1255, 409), (1046, 592)
    ),
}  # fmt: skip
# davisvideochallenge/davis2017-evaluation@ac7c43f on those masks, in percent.
TABLE = {
    "J&F-Mean": 41.0776, "J-Mean": 50.3034, "J-Recall": 62.5, "J-Decay": 5.3635, "F-Mean": 31.8518, "F-Recall": 0,
    "F-Decay": 3.703,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return draw_davis(tmp_path_factory.mktemp("data") / "DAVIS")


def test_it_follows_and_measures_as_the_official_scripts_do(folder, tmp_path):
    videos, seen = read_davis(folder), []
    followed = evaluate_davis(
        SmallTransformer(), videos, FRAMES, OPTIONS, masks=tmp_path, on_video=lambda name, _: seen.append(name)
    )
    for video in videos:
        masks = [read_mask(tmp_path / video.name / path.name) for path in video.masks]
        assert np.array_equal(masks[0], read_mask(video.masks[0]))
        pixels = [[int((mask == number).sum()) for number in (1, 2)] for mask in masks]
        # frames of `rise` are resized, where OpenCV rounds its weights
        assert np.abs(np.array(pixels) - PIXELS[video.name]).max() <= {"slide": 3, "rise": 40}[video.name]
    assert davis_table(followed) == pytest.approx(TABLE, abs=0.5)
    assert seen == ["slide", "rise"] and len(followed) == 4


def test_labels_are_carried_as_a_loop_over_places_does(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    target, *sources = torch.randn(4, 6, 5, 7, generator=generator)
    labels = list(torch.rand(3, 2, 5, 7, generator=generator))
    for options in (
        PropagationConfig(radius=2, neighbors=4),
        PropagationConfig(radius=None, neighbors=3, temperature=0.5),
    ):
        expected = torch.zeros(2, 5, 7)
        for row, column in np.ndindex(5, 7):
            near = []
            for source, label in zip(sources, labels, strict=True):
                for y, x in np.ndindex(5, 7):
                    if options.radius is None or max(abs(y - row), abs(x - column)) <= options.radius:
                        pair = normalize(torch.stack([target[:, row, column], source[:, y, x]]), dim=1)
                        near.append((float((pair[0] * pair[1]).sum() / options.temperature), label[:, y, x]))
            near = sorted(near, key=lambda each: -each[0])[: options.neighbors]
            weights = torch.tensor([score for score, _ in near]).softmax(dim=0)
            expected[:, row, column] = sum(weight * label for weight, (_, label) in zip(weights, near, strict=True))
        for at_once in (2**25, 3 * 35 * 4):
            monkeypatch.setattr(mask_propagation, "MAX_SIMILARITIES", at_once)
            torch.testing.assert_close(propagate(target, sources, labels, options), expected)


def test_maps_of_resnets_are_followed_too(folder):
    residual = nn.Sequential()
    residual.layer4, residual.pool = nn.Conv2d(3, 8, 8, 8), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    masks = segment_video(OutputAndFeatureMap(residual), read_davis(folder)[1], FRAMES, OPTIONS)
    assert {mask.shape for mask in masks} == {(140, 100)} and set(np.unique(masks[-1])) == {0, 1, 2}


def renumbered(folder: Path, place: Path, numbers: dict[int, int]) -> list[Video]:
    """Copy the videos with other object numbers."""
    shutil.copytree(folder, place)
    table = np.array([numbers.get(each, each) for each in range(256)], np.uint8)
    for path in place.glob("Annotations/480p/*/*.png"):
        Image.fromarray(table[np.array(Image.open(path))]).save(path)
    return read_davis(place)


@pytest.mark.parametrize("numbers", [{1: 3, 2: 38}, {1: 9, 2: 4}, {2: 254}])
def test_metrics_do_not_depend_on_object_numbers(folder, tmp_path, numbers):
    videos = renumbered(folder, tmp_path / "DAVIS", numbers)
    usual, other = (
        {each.number: each for each in evaluate_davis(SmallTransformer(), [each[1]], FRAMES, OPTIONS)}
        for each in (read_davis(folder), videos)
    )
    assert len(other) == 2
    for number, followed in usual.items():
        same = other[numbers.get(number, number)]
        assert np.array_equal(followed.regions, same.regions) and np.array_equal(followed.contours, same.contours)
    listed = ", ".join(str(each) for each in sorted(other))
    assert [each.removeprefix("slide: ").removeprefix("rise: ") for each in unusual_masks(videos)] == [
        f"the objects' numbers have gaps; {listed} are measured, and no others"
    ] * 2


def test_void_is_not_an_object(folder, tmp_path):
    videos = renumbered(folder, tmp_path / "some", {2: 255})
    assert unusual_masks(videos)[0] == "slide: 255 in the first mask is void and counts as background"
    assert [each.number for each in evaluate_davis(SmallTransformer(), videos[:1], FRAMES, OPTIONS)] == [1]
    assert unusual_masks(read_davis(folder)) == []
    binary = renumbered(folder, tmp_path / "all", {1: 255, 2: 255})  # like the single object of DAVIS 2016
    said = r"objects numbered 1 to 254 in .*00000\.png, got 0 and 255, which is void"
    with pytest.raises(ValueError, match=said):
        unusual_masks(binary)
    with pytest.raises(ValueError, match=said):
        evaluate_davis(SmallTransformer(), binary, FRAMES, OPTIONS)


def test_sizes():
    assert network_size((480, 854), 480, (16, 16)) == (480, 832)  # of DAVIS
    assert network_size((854, 480), 480, (8, 8)) == (832, 480)
    assert network_size((480, 854), 480, (14, 14)) == (476, 826)
    assert network_size((300, 300), 480, None) == (480, 448)


def test_mistakes_are_named(folder, tmp_path):
    with pytest.raises(ValueError, match=r"val\.txt is missing; give DAVIS' folder, with ImageSets"):
        read_davis(tmp_path)
    place = tmp_path / "DAVIS"
    shutil.copytree(folder, place)
    slide, network = place / "Annotations/480p/slide", OutputAndFeatureMap(SmallTransformer())
    video = read_davis(place)[0]
    Image.fromarray(np.ones((96, 190), np.uint8)).save(slide / "00003.png")
    with pytest.raises(ValueError, match=r"first one of slide, got another size in .*00003\.png"):
        evaluate_davis(SmallTransformer(), [video], FRAMES, OPTIONS)
    (slide / "00003.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 8 masks of slide are missing, first .*00003\.png"):
        read_davis(place)
    Image.fromarray(np.ones((90, 192), np.uint8)).save(slide / "00000.png")
    with pytest.raises(ValueError, match=r"slide: expected a mask of the frames' size \[96, 192\], got \[90, 192\]"):
        segment_video(network, video, FRAMES, OPTIONS)
    Image.fromarray(np.zeros((96, 192), np.uint8)).save(slide / "00000.png")
    with pytest.raises(ValueError, match=r"expected objects numbered 1 to 254 in .*00000\.png"):
        segment_video(network, video, FRAMES, OPTIONS)
    Image.fromarray(np.zeros((96, 192, 3), np.uint8)).save(slide / "00000.png")
    with pytest.raises(ValueError, match=r"00000\.png': expected one channel of 8 bits, numbers and not their colors"):
        segment_video(network, video, FRAMES, OPTIONS)
    with pytest.raises(ValueError, match="expected a backbone with patch tokens or a map"):
        evaluate_davis(nn.Linear(3, 4), [video], FRAMES, OPTIONS)
    with pytest.raises(ValueError, match=r"expected frames of .*, got 32"):
        Frames(mean=FRAMES.mean, std=FRAMES.std, short_side=32)
    with pytest.raises(ValueError, match="neighbors and radius of 1 or more"):
        PropagationConfig(neighbors=0)
