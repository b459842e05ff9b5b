"""The linear head of segmentation: its parts against torch's own and plain references, and what it learns."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from ssl_eval.feature_maps import FeatureMapExtractor
from ssl_eval.segmentation.inference import segment, segmentation_confusion
from ssl_eval.segmentation.mean_iou import class_ious, confusion_matrix, mean_iou, pixel_accuracy
from ssl_eval.segmentation.training import SegmentationHead, SegmentationProtocol, SyncBatchNorm, train_segmentation

SMALL = SegmentationProtocol(steps=60, batch_size=4, learning_rate=0.05, crop=32, short=32, stride=21)


def shapes(count: int, seed: int, side: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy red squares (class 1) and green bars (class 2) on grey; the outermost pixels have no class."""
    generator = torch.Generator().manual_seed(seed)
    images, masks = torch.zeros(count, 3, side, side), torch.zeros(count, side, side, dtype=torch.uint8)
    for image, mask in zip(images, masks, strict=True):
        top, left, bar = torch.randint(2, side - 12, (3,), generator=generator).tolist()
        for area, kind in ((mask[bar : bar + 6], 2), (mask[top : top + 10, left : left + 10], 1)):
            area.fill_(kind)
        for kind in (1, 2):
            image[kind - 1][mask == kind] = 1.0
        for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]):
            edge.fill_(255)
    return images + 0.2 * torch.randn(images.shape, generator=generator), masks


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())


def batches(first: int, last: int):
    return (shapes(SMALL.batch_size, seed=step) for step in range(first, last))


def test_batch_norm_is_torchs():
    generator = torch.Generator().manual_seed(0)
    ours, theirs = SyncBatchNorm(5), nn.BatchNorm2d(5)
    for module in (ours, theirs):
        with torch.no_grad():
            module.weight.copy_(torch.linspace(0.5, 2, 5))
            module.bias.copy_(torch.linspace(-1, 1, 5))
    for _ in range(3):
        maps = torch.randn(4, 5, 6, 7, generator=generator) * 3 + 10
        torch.testing.assert_close(ours(maps), theirs(maps))
        ours(maps).square().mean().backward()
        theirs(maps).square().mean().backward()
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    assert theirs.running_mean is not None and theirs.running_var is not None
    torch.testing.assert_close(ours.mean, theirs.running_mean)
    torch.testing.assert_close(ours.variance, theirs.running_var)
    torch.testing.assert_close(ours.eval()(maps), theirs.eval()(maps))


def test_the_rate_rises_and_falls():
    rates = [SegmentationProtocol().rate(step) for step in (0, 750, 1500, 20_000, 39_999)]
    warm = 1e-3 * (1 - 750 / 40_000) * (0.5 + 0.5e-6)
    assert rates == pytest.approx([1e-9, warm, 1e-3 * (1 - 1500 / 40_000), 5e-4, 2.5e-8])


def test_mean_iou_by_hand():
    truth = torch.tensor([[0, 0, 1, 1], [255, 2, 2, 255]])
    guess = torch.tensor([[0, 1, 1, 1], [3, 2, 0, 0]])
    counts = confusion_matrix(guess, truth, 5)
    assert class_ious(counts)[:3].tolist() == pytest.approx([1 / 3, 2 / 3, 1 / 2])
    assert class_ious(counts)[3:].isnan().all()  # a guess where nothing counts is no mistake
    assert mean_iou(counts) == pytest.approx(50) and pixel_accuracy(counts) == pytest.approx(100 * 4 / 6)
    with pytest.raises(ValueError, match="expected labeled pixels"):
        mean_iou(torch.zeros(3, 3, dtype=torch.long))


def scattered(number: int) -> torch.Tensor:
    """Values in [0, 1) that any machine makes alike."""
    return ((torch.arange(2000, dtype=torch.float64) * 12.9898 + number).sin() * 43758.5453).frac().abs().view(40, 50)


def test_mean_iou_is_torchmetrics():
    """torchmetrics 1.9.0's MulticlassJaccardIndex(21, ignore_index=255), which is slow to import, says 34.1030478."""
    truth, other = (scattered(0) * 18).long(), (scattered(2) * 20).long()
    truth[:3] = 255
    guess = torch.where(scattered(1) < 0.5, truth, other).clamp(max=20)
    assert mean_iou(confusion_matrix(guess, truth, 21)) == pytest.approx(34.1030478, abs=1e-5)


@torch.no_grad()
def test_windows_are_averaged_as_in_mmsegmentation():
    """By definition: open-mmlab/mmsegmentation@0067e6d mmseg/models/segmentors/encoder_decoder.py, slide_inference."""
    net, head = network().eval(), SegmentationHead(8, 3, seed=0).eval()
    image = torch.randn(3, 50, 32)
    total, seen = torch.zeros(3, 50, 32), torch.zeros(50, 32)
    for top in (0, 18):  # 21 would reach over the edge
        part = image[:, top : top + 32]
        total[:, top : top + 32] += interpolate(
            head.classify(head.norm(net(part[None]))), size=(32, 32), mode="bilinear"
        )[0]
        seen[top : top + 32] += 1
    torch.testing.assert_close(segment(net, head, image, window=32, stride=21), total / seen)
    whole = head(net(image[None, :, :20]), (20, 32))[0]
    torch.testing.assert_close(segment(net, head, image[:, :20], window=32, stride=21), whole)


def test_it_learns_shapes():
    net, (images, masks) = network(), shapes(12, seed=1000)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    head = train_segmentation(net, batches, protocol=SMALL, num_classes=3)
    test = list(zip(images, masks, strict=True))
    counts = segmentation_confusion(net, head, test, protocol=SMALL, num_classes=3)
    untrained = segmentation_confusion(net, SegmentationHead(8, 3, seed=0), test, protocol=SMALL, num_classes=3)
    assert int(counts.sum()) == int((masks != 255).sum())
    assert mean_iou(counts) > 75 > 40 > mean_iou(untrained)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items()) and net.training


def test_a_stopped_training_goes_on_to_the_same_head(tmp_path, monkeypatch):
    monkeypatch.setattr("ssl_eval.segmentation.training.SAVED_EVERY", 4)
    protocol = replace(SMALL, steps=10)
    straight = train_segmentation(network(), batches, protocol=protocol, num_classes=3, seed=1)

    def stop(done: int, loss: float) -> None:
        if done == 7:
            raise KeyboardInterrupt

    options = {"protocol": protocol, "num_classes": 3, "seed": 1, "resume": tmp_path / "head.pt"}
    with pytest.raises(KeyboardInterrupt):
        train_segmentation(network(), batches, on_step=stop, **options)
    started = []

    def counted(first: int, last: int):
        started.append(first)
        return batches(first, last)

    resumed = train_segmentation(network(), counted, **options)
    assert started == [4]
    for name, tensor in straight.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    with pytest.raises(ValueError, match="belongs to another training"):
        train_segmentation(network(), batches, **options | {"num_classes": 4})


def test_batches_without_any_counted_pixel_and_divergence():
    def nothing(first: int, last: int):
        return ((images, torch.full_like(masks, 255)) for images, masks in batches(first, last))

    head = train_segmentation(network(), nothing, protocol=replace(SMALL, steps=2), num_classes=3)
    assert all(parameter.isfinite().all() for parameter in head.parameters())

    def broken(first: int, last: int):
        return ((images * float("nan"), masks) for images, masks in batches(first, last))

    with pytest.raises(ValueError, match="training diverged at step 0"):
        train_segmentation(network(), broken, protocol=SMALL, num_classes=3)


class Staged(nn.Module):
    """Named as torchvision's ResNets."""

    def __init__(self) -> None:
        super().__init__()
        self.layer3, self.layer4 = nn.Conv2d(3, 4, 2, 2), nn.Conv2d(4, 6, 2, 2)

    def forward(self, images):
        return self.layer4(self.layer3(images)).mean(dim=(2, 3))


def test_maps_of_networks_of_all_kinds():
    images = torch.randn(2, 3, 32, 48)
    net = Staged()
    torch.testing.assert_close(FeatureMapExtractor(net)(images), net.layer4(net.layer3(images)))
    torch.testing.assert_close(FeatureMapExtractor(net, "layer3")(images), net.layer3(images))
    assert FeatureMapExtractor(network().eval())(images).shape == (2, 8, 16, 24)
    with pytest.raises(ValueError, match="expected a layer of layer3, layer4, got layer5"):
        FeatureMapExtractor(net, "layer5")
    with pytest.raises(ValueError, match=r"from Flatten, got \[2, 4608\]"):
        FeatureMapExtractor(nn.Flatten())(images)


@torch.no_grad()
def test_patch_tokens_are_laid_out_row_by_row():
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch.manual_seed(0)
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2, "num_classes": 0}
    for more in ({}, {"reg_tokens": 3}):
        vit = timm.create_model("vit_tiny_patch16_224", **options, **more).eval()
        images = torch.randn(2, 3, 32, 32)
        tokens = vit.forward_features(images)[:, vit.num_prefix_tokens :]
        found = FeatureMapExtractor(vit)(images)
        assert found.shape == (2, 24, 4, 4)
        torch.testing.assert_close(found[:, :, 1, 2], tokens[:, 6])
        assert FeatureMapExtractor(vit)(torch.randn(1, 3, 16, 40)).shape == (1, 24, 2, 5)
        with pytest.raises(ValueError, match="multiple of 8 px"):
            FeatureMapExtractor(vit)(torch.randn(1, 3, 36, 32))
    swin = timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1), num_heads=(1, 2), embed_dim=8, img_size=56)
    swin.reset_classifier(0)
    assert FeatureMapExtractor(swin.eval())(torch.randn(1, 3, 56, 56)).shape == (1, 16, 7, 7)
