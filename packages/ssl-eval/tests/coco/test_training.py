"""torchvision's detector: stopped and resumed it is the same, it tells what is wrong, and it is measured."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("torchvision", reason="genviews-ssl-eval[coco] is not installed")
pytest.importorskip("faster_coco_eval", reason="genviews-ssl-eval[coco] is not installed")

from torchvision.models.resnet import BasicBlock, ResNet

from ssl_eval.coco import METRICS, Detectron2Backbone, average_precision, detect, load_instances, train_mask_rcnn


@pytest.fixture
def instances(coco):
    return load_instances(coco / "annotations" / "instances_train2017.json", coco / "train2017")


class Doubling(ResNet):
    """One whose forward pass is not that of its layers."""

    def forward(self, images):
        return super().forward(2 * images)


def stopping_at(step: int):
    def stop(done, losses):
        if done == step:
            raise KeyboardInterrupt

    return stop


@pytest.mark.parametrize("variant", ["fpn", "fpn-heads"])
def test_two_steps_and_two_more_are_four(variant, instances, small_recipe, small_resnet, tmp_path):
    recipe = small_recipe(variant, precise_norm=2 * (variant == "fpn-heads"))
    common = {"recipe": recipe, "backend": "torchvision", "save_every": 2}
    seen = []
    straight = train_mask_rcnn(
        small_resnet, instances, on_step=lambda done, losses: seen.append((done, losses)), **common
    )
    assert [done for done, _ in seen] == [1, 2, 3, 4]
    assert set(seen[0][1]) == {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"}
    resume = tmp_path / "folder" / "resume.pt"
    with pytest.raises(KeyboardInterrupt):
        train_mask_rcnn(small_resnet, instances, resume=resume, on_step=stopping_at(3), **common)
    torch.rand(3)  # what else is drawn does not matter
    resumed = train_mask_rcnn(small_resnet, instances, resume=resume, on_step=stopping_at(2), **common)
    ours, expected = resumed.network.state_dict(), straight.network.state_dict()
    assert ours.keys() == expected.keys() and all(torch.equal(ours[name], expected[name]) for name in ours)
    moved = (ours["backbone.body.conv1.weight"] - small_resnet.conv1.weight).abs().max()
    assert moved > 0  # FREEZE_AT 0
    with pytest.raises(ValueError, match="belongs to another training"):
        train_mask_rcnn(small_resnet, instances, resume=resume, seed=1, **common)

    found = detect(resumed, instances, recipe=recipe)
    assert found and {each["category_id"] for each in found} <= {3, 8}
    assert found == detect(resumed, instances, recipe=recipe, workers=1)
    measured = average_precision(instances.annotations, found)
    assert set(measured) == {"box", "mask"} and set(measured["box"]) <= set(METRICS)


def test_the_state_is_saved_when_asked_for(instances, small_recipe, small_resnet, tmp_path):
    path, answers = tmp_path / "resume.pt", iter([False, False, True, False])
    common = {"recipe": small_recipe(), "backend": "torchvision", "resume": path}
    with pytest.raises(KeyboardInterrupt):
        train_mask_rcnn(
            small_resnet, instances, save_now=lambda: next(answers), on_step=stopping_at(3), save_every=99, **common
        )
    assert torch.load(path, weights_only=True)["step"] == 3


def test_a_loss_that_is_no_number_ends_it(instances, small_recipe, small_resnet, tmp_path):
    common = {"backend": "torchvision", "resume": tmp_path / "resume.pt", "save_every": 1}
    recipe = small_recipe(learning_rate=1e12, warmup=0)
    with pytest.raises(ValueError, match=r"non-finite loss (nan|inf) at step [1-3]; .*resume.pt keeps") as error:
        train_mask_rcnn(small_resnet, instances, recipe=recipe, **common)
    assert "\n" not in str(error.value)
    assert torch.load(tmp_path / "resume.pt", weights_only=True)["step"] >= 1


def test_the_learning_rates_and_decays_are_the_recipes(instances, small_recipe, small_resnet, monkeypatch):
    """Batch norms have no weight decay, everything else has detectron2's."""
    rates = []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            rates.append([part["lr"] for part in self.param_groups])
            norms = sum(each.numel() for each in self.param_groups[1]["params"])
            assert [part["weight_decay"] for part in self.param_groups] == [1e-4, 0.0]
            assert norms == 2 * sum(part.num_features for part in network.modules() if hasattr(part, "running_mean"))
            return super().step(closure)

    recipe = small_recipe(warmup=2)
    from ssl_eval.coco.torchvision_detector import TorchvisionDetector

    network = TorchvisionDetector(small_resnet, 2, recipe).network
    monkeypatch.setattr(torch.optim, "SGD", Watched)
    train_mask_rcnn(small_resnet, instances, recipe=recipe, backend="torchvision")
    assert rates == [[recipe.rate(step)] * 2 for step in range(4)]


def test_what_does_not_fit_is_told(instances, small_recipe, small_resnet):
    def message(backbone, **options):
        with pytest.raises(ValueError) as error:
            train_mask_rcnn(backbone, instances, **{"recipe": small_recipe(), "backend": "torchvision", **options})
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "got 'mmdetection'" in message(small_resnet, backend="mmdetection")
    assert "got c4" in message(small_resnet, recipe=replace(small_recipe(), variant="c4"))
    assert "expected a Detectron2Backbone" in message(small_resnet, backend="detectron2")
    assert "got a Detectron2Backbone" in message(Detectron2Backbone(settings={}, weights={}))
    assert "stages layer1 to layer4" in message(torch.nn.Linear(2, 2))
    small_resnet.conv1.stride, small_resnet.maxpool = (1, 1), torch.nn.Identity()
    assert "got (1, 2, 4, 8)" in message(small_resnet)
    assert "applies its layers in order" in message(Doubling(BasicBlock, [1, 1, 1, 1]))
