"""The procedural image set."""

import numpy as np
import pytest
from PIL import Image

from pairdata import SCENE_CLASSES, draw_scene, index_images, write_scenes


def _files(root):
    return {path.relative_to(root): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_images_and_masks_stand_side_by_side(tmp_path):
    write_scenes(tmp_path, count=25, size=32)
    images, masks = index_images(tmp_path / "images"), index_images(tmp_path / "masks")
    assert len(images) == 25
    assert list(images.keys) == list(masks.keys)
    assert images.classes == tuple(sorted(SCENE_CLASSES))
    assert np.bincount(images.labels).tolist() == [3] * 5 + [2] * 5
    for i in range(25):
        with Image.open(images.path(i)) as image, Image.open(masks.path(i)) as mask:
            assert (image.size, image.mode) == ((32, 32), "RGB")
            assert (mask.size, mask.mode) == ((32, 32), "L")
            assert 0.02 < np.asarray(mask).mean() / 255 < 0.6


def test_a_set_grows_and_resumes_to_the_same_files(tmp_path):
    write_scenes(tmp_path / "once", count=40, seed=3)
    write_scenes(tmp_path / "grown", count=15, seed=3)
    (tmp_path / "grown" / "images" / SCENE_CLASSES[4] / "000000.png").unlink()
    (tmp_path / "grown" / "images" / SCENE_CLASSES[2] / "000003.png.tmp").write_bytes(b"torn")
    write_scenes(tmp_path / "grown", count=40, seed=3)
    assert _files(tmp_path / "once") == _files(tmp_path / "grown")
    write_scenes(tmp_path / "other", count=40, seed=4)
    assert not set(_files(tmp_path / "once").values()) & set(_files(tmp_path / "other").values())


def test_the_object_differs_from_its_ground_where_the_mask_says():
    contrast = []
    for name in SCENE_CLASSES:
        for number in range(20):
            image, mask = (np.asarray(part, float) for part in draw_scene(f"{name}/{number:06d}.png"))
            contrast.append(np.abs(image[mask > 250].mean(0) - image[mask < 5].mean(0)).sum())
    assert np.mean(np.array(contrast) > 60) > 0.9


def _differences_between_classes(habit):
    """The range of class means, in units of the spread, of the ground's color and of the object's center."""
    traits = {}
    for name in SCENE_CLASSES:
        rows = []
        for number in range(100):
            image, mask = (np.asarray(part, float) for part in draw_scene(f"{name}/{number:06d}.png", habit=habit))
            center = [np.average(axis, weights=mask) for axis in np.indices(mask.shape)]
            rows.append([*image[mask < 5].mean(0), *center])
        traits[name] = np.array(rows)
    spread = np.concatenate(list(traits.values())).std(0)
    means = np.array([rows.mean(0) for rows in traits.values()])
    return np.ptp(means, axis=0) / spread


def test_without_habits_colour_and_place_do_not_tell_the_classes_apart():
    assert _differences_between_classes(0.0).max() < 0.75  # 0.31 expected from 100 draws each; centres differ a little


def test_habits_are_of_colour_and_not_of_place():
    *colors, down, across = _differences_between_classes(0.5)
    assert min(colors) > 0.75
    assert max(down, across) < 0.75


def test_any_size_can_be_drawn():
    small, large = (draw_scene("star/000003.png", size=size)[1] for size in (32, 128))
    reduced = np.asarray(large.reduce(4), float)
    assert np.abs(reduced - np.asarray(small)).mean() < 3


@pytest.mark.parametrize("classes", [0, 11])
def test_an_impossible_number_of_classes_is_refused(tmp_path, classes):
    with pytest.raises(ValueError, match=f"got {classes}"):
        write_scenes(tmp_path, count=1, classes=classes)


def test_plain_grounds_are_gradients():
    def curvature(plain):
        """The mean second difference of the grounds, which is that of the grain alone on a gradient."""
        found = []
        for name in SCENE_CLASSES:
            image, mask = (np.asarray(part, float) for part in draw_scene(f"{name}/000001.png", habit=0.0, plain=plain))
            ground = np.where(mask < 1, image.mean(2), np.nan)
            found.append(np.nanmean(np.abs(ground[:, 8:] - 2 * ground[:, 4:-4] + ground[:, :-8])))
        return np.mean(found)

    assert curvature(True) < 0.8 * curvature(False)
