"""Trained through detectron2 itself; and what of ours stands for a part of it agrees with that part."""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("torchvision", reason="genviews-ssl-eval[coco] is not installed")
pytest.importorskip("faster_coco_eval", reason="genviews-ssl-eval[coco] is not installed")

import torchvision

from ssl_eval.coco import Detectron2Backbone, detect, detection_config, load_instances, train_mask_rcnn
from ssl_eval.coco.detectron2_detector import STAGES, Detectron2Detector
from ssl_eval.coco.masks import paste
from ssl_eval.coco.sampler import read_example

missing = importlib.util.find_spec("detectron2") is None
with_detectron2 = pytest.mark.skipif(missing, reason="detectron2 is installed from its own repository")
NAMES = {"downsample.0": "shortcut", "downsample.1": "shortcut.norm", **{f"bn{n}": f"conv{n}.norm" for n in (1, 2, 3)}}
NAMES |= {f"layer{n}": f"res{n + 1}" for n in (1, 2, 3, 4)}


def in_detectron2s_names(network) -> dict[str, np.ndarray]:
    weights = {}
    for name, tensor in network.state_dict().items():
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        weights[name if name.startswith("res") else f"stem.{name}"] = tensor.numpy()
    return weights


@pytest.fixture
def resnet18():
    torch.manual_seed(0)
    network = torchvision.models.resnet18()
    network.fc = torch.nn.Identity()
    return network


@pytest.fixture
def backbone(resnet18):
    settings = {"MODEL.RESNETS.DEPTH": 18, "MODEL.RESNETS.RES2_OUT_CHANNELS": 64, "MODEL.RESNETS.STRIDE_IN_1X1": False}
    return Detectron2Backbone(settings=settings, weights=in_detectron2s_names(resnet18))


@pytest.fixture
def instances(coco):
    return load_instances(coco / "annotations" / "instances_train2017.json", coco / "train2017")


@pytest.mark.skipif(not missing, reason="detectron2 is installed")
def test_without_it_one_line_says_how_to_get_it(backbone, instances, small_recipe):
    with pytest.raises(
        ValueError, match=r"not installed: pip install 'setuptools<81', .*detectron2'; or choose"
    ) as error:
        train_mask_rcnn(backbone, instances, recipe=small_recipe(), backend="detectron2")
    assert "\n" not in str(error.value)


@with_detectron2
@pytest.mark.parametrize("variant", ["fpn", "fpn-heads"])
def test_the_backbone_in_the_detector_gives_torchvisions_maps(backbone, resnet18, small_recipe, variant):
    network = Detectron2Detector(backbone, 3, small_recipe(variant)).network.eval()
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    maps = {}
    for stage, layer in zip(STAGES, (resnet18.layer1, resnet18.layer2, resnet18.layer3, resnet18.layer4), strict=True):
        layer.register_forward_hook(lambda _, __, output, stage=stage: maps.update({stage: output}))
    with torch.no_grad():
        resnet18.eval()(images)
        found = network.backbone.bottom_up(images)
    assert all((found[stage] - maps[stage]).abs().max() < 1e-4 * maps[stage].abs().max() for stage in STAGES)


@with_detectron2
def test_two_steps_and_two_more_are_four(backbone, instances, small_recipe, tmp_path):
    recipe = small_recipe("fpn-heads", precise_norm=2)
    common = {"recipe": recipe, "backend": "detectron2", "save_every": 2}
    straight = train_mask_rcnn(backbone, instances, **common)

    def stop(done, losses):
        assert set(losses) == {"loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc"}
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_mask_rcnn(backbone, instances, resume=tmp_path / "resume.pt", on_step=stop, **common)
    resumed = train_mask_rcnn(backbone, instances, resume=tmp_path / "resume.pt", **common)
    ours, expected = resumed.network.state_dict(), straight.network.state_dict()
    assert all(torch.equal(ours[name], expected[name]) for name in expected)
    for each in detect(resumed, instances, recipe=recipe):
        assert each["category_id"] in (3, 8) and 0 <= each["score"] <= 1


@with_detectron2
def test_c4_has_the_backbones_last_stage_and_one_more_norm_in_its_head(instances, small_recipe):
    torch.manual_seed(0)
    network = torchvision.models.resnet50(width_per_group=4)
    network.fc = torch.nn.Identity()
    settings = {"MODEL.RESNETS.DEPTH": 50, "MODEL.RESNETS.WIDTH_PER_GROUP": 4, "MODEL.RESNETS.STRIDE_IN_1X1": False}
    settings["MODEL.RESNETS.RES2_OUT_CHANNELS"] = 256
    weights = in_detectron2s_names(network)
    recipe = replace(small_recipe("c4"), iterations=1, rois_per_image=4)
    detector = train_mask_rcnn(Detectron2Backbone(settings, weights), instances, recipe=recipe, backend="detectron2")
    head = detector.network.roi_heads.res5
    assert isinstance(head.norm, torch.nn.BatchNorm2d) and head.norm.num_features == 2048 and len(head) == 4
    assert np.abs(head[0].conv1.weight.detach().numpy() - weights["res5.0.conv1.weight"]).max() < 0.1
    shallow = Detectron2Backbone({"MODEL.RESNETS.DEPTH": 18}, {})
    with pytest.raises(ValueError, match="50 or more layers"):
        train_mask_rcnn(shallow, instances, recipe=recipe, backend="detectron2")


@with_detectron2
def test_weights_that_do_not_fit_are_told(backbone, small_recipe):
    weights = dict(backbone.weights)
    first = weights.pop("stem.conv1.weight")
    for wrong, message in (
        (weights, "missing weights of the backbone for detectron2's backbone.bottom_up.stem.conv1.weight"),
        (weights | {"stem.conv1.weight": first[:3]}, "stem.conv1.weight is"),
        (weights | {"stem.conv1.weight": first, "fc.weight": first}, "no place for the backbone's fc.weight"),
    ):
        with pytest.raises(ValueError, match=message):
            Detectron2Detector(Detectron2Backbone(backbone.settings, wrong), 3, small_recipe())


@with_detectron2
@pytest.mark.parametrize("schedule", ["1x", "2x"])
def test_the_learning_rate_is_detectron2s(schedule):
    from detectron2.config import get_cfg
    from detectron2.solver import build_lr_scheduler

    recipe = detection_config(schedule=schedule)
    config = get_cfg()
    for name, value in {"MAX_ITER": recipe.iterations, "STEPS": recipe.lr_milestones, "BASE_LR": 0.02}.items():
        config.merge_from_list([f"SOLVER.{name}", value])
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.02)
    scheduler = build_lr_scheduler(config, optimizer)
    for step in (
        0,
        1,
        500,
        999,
        1000,
        *(drop + near for drop in recipe.lr_milestones for near in (-1, 0)),
        recipe.iterations - 1,
    ):
        scheduler.last_epoch = step
        assert recipe.rate(step) == pytest.approx(scheduler.get_lr()[0], rel=1e-4), step


@with_detectron2
def test_the_settings_are_those_of_its_own_configuration(backbone):
    model_zoo = pytest.importorskip("detectron2.model_zoo", reason="detectron2's model_zoo needs setuptools < 81")
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    theirs = get_cfg()
    theirs.merge_from_file(model_zoo.get_config_file("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"))
    own = {"MODEL.DEVICE": "cpu", "MODEL.RESNETS.NORM": "BN", "MODEL.FPN.NORM": "BN", "MODEL.BACKBONE.FREEZE_AT": 0}
    for setting in (own | dict(backbone.settings)).items():
        theirs.merge_from_list(setting)
    expected = build_model(theirs)
    found = Detectron2Detector(backbone, 80, detection_config()).network

    def shapes(network) -> dict:
        return {name: tensor.shape for name, tensor in network.state_dict().items()}

    assert shapes(found) == shapes(expected)
    assert str(found.proposal_generator) == str(expected.proposal_generator)
    assert str(found.roi_heads) == str(expected.roi_heads)
    for name in ("pre_nms_topk", "post_nms_topk", "nms_thresh", "batch_size_per_image"):
        assert getattr(found.proposal_generator, name) == getattr(expected.proposal_generator, name)


@with_detectron2
@pytest.mark.parametrize("flip", [False, True])
def test_an_input_is_what_its_own_transforms_make(instances, flip):
    import detectron2.data.transforms as transforms
    from detectron2.data import detection_utils
    from detectron2.structures import BoxMode
    from PIL import Image

    example = read_example(instances, 1, 80, 400, flip=flip)
    pixels = np.asarray(Image.open(instances.images / "001.png"))
    steps = [transforms.ResizeShortestEdge((80,), 400, "choice"), transforms.RandomFlip(prob=float(flip))]
    image, moved = transforms.apply_transform_gens(steps, pixels)
    objects = instances.objects(1)
    told = [
        {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": label, "segmentation": outline}
        for box, label, outline in zip(objects.boxes, objects.labels, objects.segmentations, strict=True)
    ]
    told = [detection_utils.transform_instance_annotations(each, moved, image.shape[:2]) for each in told]
    expected = detection_utils.annotations_to_instances(told, image.shape[:2])
    found = Detectron2Detector.to_input(example)
    assert np.array_equal(found["image"].permute(1, 2, 0).numpy(), image)
    torch.testing.assert_close(found["instances"].gt_boxes.tensor, expected.gt_boxes.tensor.float())
    assert torch.equal(found["instances"].gt_classes, expected.gt_classes)
    for ours, theirs in zip(found["instances"].gt_masks, expected.gt_masks, strict=True):
        np.testing.assert_allclose(ours, theirs)


@with_detectron2
def test_masks_are_pasted_as_there():
    from detectron2.layers import paste_masks_in_image

    draws = torch.Generator().manual_seed(0)
    masks, corners = torch.rand(20, 28, 28, generator=draws), torch.rand(20, 2, generator=draws) * 30
    boxes = torch.cat([corners, corners + 1 + 20 * torch.rand(20, 2, generator=draws)], dim=1)
    assert torch.equal(paste(masks, boxes, (52, 60)), paste_masks_in_image(masks, boxes, (52, 60)))
