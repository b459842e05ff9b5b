"""From a backbone's folder to average precisions, with a small COCO of drawn shapes."""

import json
import multiprocessing
import os
import signal
import socket
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import ssl_eval
import sslzoo
from genviews_core.distributed import destroy_process_group

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def coco(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    pictures, annotations = [], []
    for number in range(4):
        pixels = Image.fromarray(rng.integers(0, 90, (64, 80, 3), dtype=np.uint8))
        left, top = (int(place) for place in rng.integers(2, 30, 2))
        ImageDraw.Draw(pixels).rectangle([left, top, left + 30, top + 30], fill=(230, 200, 40))
        corners = [left, top, left + 31, top, left + 31, top + 31, left, top + 31]
        pictures.append({"id": number, "file_name": f"{number}.png", "width": 80, "height": 64})
        annotations.append(
            {"id": number + 1, "image_id": number, "category_id": 1, "iscrowd": 0, "area": 961,
             "bbox": [left, top, 31, 31], "segmentation": [corners]}
        )  # fmt: skip
        for split in ("train2017", "val2017"):
            (tmp_path / "coco" / split).mkdir(parents=True, exist_ok=True)
            pixels.save(tmp_path / "coco" / split / f"{number}.png")
    content = {"images": pictures, "annotations": annotations, "categories": [{"id": 1, "name": "square"}]}
    (tmp_path / "coco" / "annotations").mkdir()
    for split in ("train2017", "val2017"):
        (tmp_path / "coco" / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return tmp_path / "coco"


@pytest.fixture
def backbone(tmp_path) -> Path:
    torch.manual_seed(0)
    architecture = {"name": "resnet10", "width": 8}
    recipe = {"image_size": 64, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    network = sslzoo.create_backbone(**architecture)
    folder = tmp_path / "backbone"
    sslzoo.save_backbone(folder, network, architecture=architecture, method="none", recipe=recipe, epoch=0, data="none")
    return folder


PROGRAM = "benchmarks/coco_transfer"
SHORT = ["--iterations", 4, "--batch-size", 2, "--short-edge", 64, "--channels", 16, "--rois-per-image", 16]
LABEL = "iterations=4 batch=2 edge=64 channels=16 regions=16"


@pytest.fixture
def arguments(coco, backbone, tmp_path):
    """arguments(backend): of a training that takes seconds."""

    def arguments(backend: str = "torchvision", variant: str = "fpn") -> list:
        places = ["--results", tmp_path / "results.jsonl", "--resume", tmp_path / "resume"]
        kind = ["--backend", backend, "--variant", variant, "--device", "cpu", "--save-every", 2]
        return [*SHORT, *kind, "--backbone", backbone, "--coco", coco, *places]

    return arguments


def test_a_backbone_is_measured_and_goes_on_where_it_was(programs, arguments, tmp_path):
    printed = programs(PROGRAM, *arguments(), "--name", "untrained")
    assert "step 4/4: loss" in printed and "mask AP in percent, torchvision fpn iterations=" in printed
    found = ssl_eval.read_results(tmp_path / "results.jsonl")
    assert {each.task for each in found} == {"coco box", "coco mask"}
    assert {each.metric for each in found} >= {"AP", "AP50", "AP75"} and {each.data for each in found} == {"coco"}
    assert {each.protocol for each in found} == {f"torchvision fpn {LABEL}"}
    assert {each.backbone for each in found} == {ssl_eval.backbone_hash(sslzoo.load_backbone(tmp_path / "backbone"))}
    (table,) = tmp_path.glob("torchvision fpn*.md")
    assert "| untrained |" in table.read_text() and "| AP50 |" in table.read_text()
    (kept,) = (tmp_path / "resume").iterdir()
    assert torch.load(kept, weights_only=True)["step"] == 4
    again = programs(PROGRAM, *arguments(), "--name", "again", "--evaluator", "pycocotools")
    assert "step" not in again and "untrained" in again  # trained already; a row a name
    values = [
        {(each.task, each.metric): each.value for each in several}
        for several in (found, ssl_eval.read_results(tmp_path / "results.jsonl"))
    ]
    assert values[1] == pytest.approx(values[0], abs=1e-9)


@pytest.fixture
def module():
    """Return the program's main module."""
    from benchmarks.coco_transfer import __main__

    return __main__


@pytest.fixture
def options(module, coco, backbone, tmp_path):
    """options(iterations=2, ...): of the imported program."""
    return partial(
        module.CocoTransfer, backbone=str(backbone), coco=coco, backend="torchvision", batch_size=2, short_edge=64,
        channels=16, rois_per_image=16, device="cpu", results=tmp_path / "results.jsonl", resume=tmp_path / "resume",
    )  # fmt: skip


def test_a_signal_ends_a_training_after_a_whole_step(module, options, tmp_path, monkeypatch):
    """Sent to the processes that read as well, as schedulers do."""
    train = module.train_mask_rcnn

    def signalled(*arguments, on_step, **named):
        def step(done, losses):
            for process in multiprocessing.active_children() if done == 1 else ():
                os.kill(process.pid, signal.SIGTERM)
            if done == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            on_step(done, losses)

        return train(*arguments, on_step=step, **named)

    with monkeypatch.context() as patched, pytest.raises(sslzoo.TrainingInterrupted, match="SIGTERM after step 2"):
        patched.setattr(module, "train_mask_rcnn", signalled)
        module.run(options(iterations=3, workers=1))
    (kept,) = (tmp_path / "resume").iterdir()
    assert torch.load(kept, weights_only=True)["step"] == 2
    module.run(options(iterations=3))
    assert torch.load(kept, weights_only=True)["step"] == 3
    assert ssl_eval.read_results(tmp_path / "results.jsonl")


def test_the_small_schedule_is_one_of_minutes_that_may_be_changed(module, options):
    small = module._recipe(module.CocoTransfer(backbone="b", coco=Path("c"), schedule="small", rois_per_image=7))
    assert (small.iterations, small.batch_size, small.short_edges, small.rois_per_image) == (20, 2, (96,), 7)
    assert module._recipe(module.CocoTransfer(backbone="b", coco=Path("c"), schedule="2x")).iterations == 180_000
    with pytest.raises(ValueError, match="expected --save-every of 1 step or more, got 0"):
        module.run(options(save_every=0))


def test_two_processes_share_each_batch(module, options, tmp_path):
    """Forked, so that torch is imported once; they join by the variables that torchrun sets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=one_of_two, args=(rank, port, module, options(iterations=2))) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=300)
    assert [worker.exitcode for worker in workers] == [0, 0]
    (kept,) = (tmp_path / "resume").iterdir()
    assert torch.load(kept, weights_only=True)["step"] == 2
    assert {each.metric for each in ssl_eval.read_results(tmp_path / "results.jsonl")} >= {"AP", "AP50", "AP75"}


def one_of_two(rank: int, port: str, module, options) -> None:
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "GLOO_SOCKET_IFNAME": "lo"}
    os.environ.update(place | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port})
    torch.set_num_threads(1)
    trained, train = [], module.train_mask_rcnn
    module.train_mask_rcnn = lambda *arguments, **named: trained.append(train(*arguments, **named)) or trained[0]
    module.run(options)
    state, states = trained[0].network.state_dict(), [None, None]
    torch.distributed.all_gather_object(states, state)
    # Gradients and statistics were of both processes' images: a network each, the same.
    assert all(torch.equal(states[0][name], states[1][name]) for name in state)
    destroy_process_group()


def test_a_mistake_is_one_line(programs, arguments, coco):
    printed = programs(PROGRAM, *arguments("detectron2"), expect=1)
    assert printed.startswith("error: expected a ResNet of 18, 34") and printed.count("\n") == 1
    (coco / "val2017" / "2.png").unlink()
    printed = programs(PROGRAM, *arguments(), expect=1)
    assert "2.png, image 2 of" in printed and "is missing" in printed and printed.count("\n") == 1


def test_a_test_set_without_annotations_is_refused_before_the_first_step(module, options, coco, monkeypatch):
    path = coco / "annotations" / "instances_val2017.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"annotations": []}))
    monkeypatch.setattr(module, "train_mask_rcnn", None)
    with pytest.raises(ValueError, match=r"expected annotated objects to test on, got none in .*instances_val2017"):
        module.run(options())


def test_published_figures_stand_beside_those_measured_alike():
    from benchmarks.coco_transfer import grids

    rows = grids.cells("detectron2 fpn-heads 1x", "mask", ["BYOL + GenView", "ours"])
    assert [row.encoder for row in rows] == [*grids.GENVIEW, "ours"]
    figures = {row.encoder: row.published for row in rows}
    assert (figures["BYOL + GenView"]["AP"], figures["ours"]["AP"]) == (37.0, None)
    assert figures["MoCo v2 + FreeATM"]["AP"] is None and figures["DenseCL"]["APs"] is None
    others = grids.cells("detectron2 fpn-heads 1x", "mask", ["ours"], halves=("train2017", "test-dev2017"))
    assert [row.encoder for row in others] == ["ours"]
    for protocol in ("torchvision fpn-heads 1x", "detectron2 fpn 1x", "detectron2 fpn-heads 1x batch=8"):
        assert [row.encoder for row in grids.cells(protocol, "box", ["ours"])] == ["ours"]
