"""The published schedule, and smaller ones of its shape."""

import pytest

pytest.importorskip("torchvision", reason="genviews-ssl-eval[coco] is not installed")
pytest.importorskip("faster_coco_eval", reason="genviews-ssl-eval[coco] is not installed")

from ssl_eval.coco import VARIANTS, detection_config


def test_the_published_schedule():
    recipe = detection_config()
    assert recipe.lr_milestones == (60_000, 80_000) and detection_config(schedule="2x").lr_milestones == (
        120_000,
        160_000,
    )
    rates = {0: 2e-5, 500: 0.01001, 1000: 0.02, 59_999: 0.02, 60_000: 0.002, 79_999: 0.002, 80_000: 2e-4, 89_999: 2e-4}
    for step, rate in rates.items():
        assert recipe.rate(step) == pytest.approx(rate)
    assert [detection_config(variant).label for variant in VARIANTS] == ["fpn 1x", "fpn-heads 1x", "c4 1x"]


def test_a_small_one_keeps_its_shape():
    recipe = detection_config("fpn-heads", iterations=90, batch_size=2, short_edge=160)
    assert (recipe.lr_milestones, recipe.warmup, recipe.precise_norm) == ((60, 80), 9, 90)
    assert (recipe.learning_rate, recipe.short_edges, recipe.long_edge) == (0.0025, (160,), 267)
    assert recipe.label == "fpn-heads iterations=90 batch=2 edge=160"
    assert detection_config(learning_rate=0.01).label == "fpn 1x rate=0.01"


@pytest.mark.parametrize("wrong", [{"variant": "c5"}, {"schedule": "9x"}, {"iterations": 0}, {"batch_size": 0}])
def test_what_there_is_not(wrong):
    with pytest.raises(ValueError, match=r"expected a|1 or more"):
        detection_config(**wrong)
