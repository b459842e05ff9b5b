"""J and F against the official evaluation of DAVIS 2017."""

import numpy as np
import pytest

pytest.importorskip("scipy", reason="genviews-ssl-eval[images] is not installed")

from ssl_eval.video.davis_metrics import (
    ObjectScores,
    compare_masks,
    contour,
    contour_accuracy,
    davis_table,
    region_similarity,
    statistics,
)

# davisvideochallenge/davis2017-evaluation@ac7c43f: db_eval_iou, db_eval_boundary on `pairs()`, and db_statistics of
# the first n of their J, n = 1, 4, 7.
J = (1, 0.8657993837726806, 0.7463576158940397, 0.2383671139023694, 0.9592969472710453, 0, 0, 1, 0.1959027777777778, 1)
F = (1, 0.622874979098155, 0.27118644067796605, 0.0726832222895215, 1, 0, 0, 1, 0, 1)
STATISTICS = {
    1: (1, 1, 0),
    4: (0.7126310283922725, 0.75, 0.4405373269881358),
    7: (0.5442601515485908, 0.5714285714285714, 0.8707189998889069),
}


def disk(height: int, width: int, row: float, column: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return (rows - row) ** 2 + (columns - column) ** 2 <= radius**2


def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Disks that drift apart, that touch the border, and that are not there."""
    whole, none = np.ones((90, 160), bool), np.zeros((90, 160), bool)
    still = disk(90, 160, 45, 60, 30)
    moved = [disk(90, 160, 45 + step, 60 + 3 * step, 30 - step) for step in (0, 1, 2, 8)]
    return [
        *((still, other) for other in moved),
        (disk(90, 160, 80, 150, 25), disk(90, 160, 78, 149, 24)),
        (still, none),
        (none, still),
        (none, none),
        (whole, still),
        (whole, whole),
    ]


def test_regions_and_contours_are_the_official_ones():
    regions = np.array([region_similarity(*pair) for pair in pairs()])
    contours = [contour_accuracy(*pair) for pair in pairs()]
    assert regions == pytest.approx(J, abs=1e-9) and contours == pytest.approx(F, abs=1e-9)
    for count, official in STATISTICS.items():
        found = statistics(regions[:count])
        assert (found.mean, found.recall, found.decay) == pytest.approx(official, abs=1e-9)


def test_contours_are_matched_within_a_dilation():
    """Against every pair of pixels."""
    truth, found = disk(60, 80, 30, 40, 15), disk(60, 80, 33, 41, 14)
    lines = [np.argwhere(contour(mask)) for mask in (found, truth)]
    near = ((lines[0][:, None] - lines[1]) ** 2).sum(axis=2) <= 1  # ceil(0.008 * 100) pixels
    precision, recall = near.any(axis=1).mean(), near.any(axis=0).mean()
    assert contour_accuracy(truth, found) == pytest.approx(2 * precision * recall / (precision + recall))


def test_the_table_is_of_objects():
    truth, found = np.zeros((5, 40, 60), int), np.zeros((5, 40, 60), int)
    truth[:, 5:15, 5:25], truth[:, 25:35, 30:50] = 1, 2
    found[:, 5:15, 5:25] = 1
    first, second = compare_masks(truth, found, (1, 2))
    assert first.regions.tolist() == [1] * 5 and second.contours.tolist() == [0] * 5
    table = davis_table([first, second])
    assert list(table) == ["J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay"]
    assert list(table.values()) == [50, 50, 50, 0, 50, 50, 0]
    falling = ObjectScores(number=1, regions=np.linspace(1, 0, 9), contours=np.linspace(1, 0, 9))
    assert davis_table([falling])["J-Decay"] == pytest.approx(75)


def test_absent_object_numbers_are_ignored():
    """The official code counts absent numbers as perfectly segmented: F 71.59 and 97.76 instead of 14.76."""
    truth, found = np.zeros((5, 40, 60), int), np.zeros((5, 40, 60), int)
    truth[:, 5:15, 5:25], truth[:, 25:35, 30:50] = 1, 2
    found[:, 5:15, 8:25], found[:, 26:35, 30:55] = 1, 2
    usual = davis_table(compare_masks(truth, found, (1, 2)))
    assert 0 < usual["F-Mean"] < 100
    for first, second in ((1, 3), (3, 38), (200, 254)):
        numbers = np.array([0, first, second])
        followed = compare_masks(numbers[truth], numbers[found], (first, second))
        assert [each.number for each in followed] == [first, second] and davis_table(followed) == usual


def test_mistakes_are_named():
    masks = np.zeros((3, 8, 8), int)
    with pytest.raises(ValueError, match=r"of shape \[3, 8, 8\], got \[3, 8, 9\]"):
        compare_masks(masks, np.zeros((3, 8, 9), int), [1])
    with pytest.raises(ValueError, match="expected 0 and the objects 1, 3 in the predicted masks, got object 2"):
        compare_masks(masks, masks + 2, [1, 3])
