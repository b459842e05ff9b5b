"""Properties that must also hold on a GPU; tests that are meaningful on a CPU also run there at tiny size.

`uv run pytest -m gpu` runs the GPU's part alone; benchmarks/gpu checks does so first of all.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import sslzoo
from pairdata import Augment, FolderLoader
from pairdata.crops import crop_by_matrices, crop_each, sample_crops
from sslzoo import methods
from sslzoo.methods import Method
from tests.nccl_rank import loss_and_gradient, simclr, views
from viewgen import ImageEncoder, embed_images
from viewgen.eldm import ELDMGenerator, preset, train_eldm

ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is visible")]
GPU = pytest.param("cuda", marks=ON_GPU)
EVERYWHERE = pytest.mark.parametrize("device", ["cpu", GPU])
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def images() -> torch.Tensor:
    """Smooth random 48 px images."""
    coarse = torch.rand(16, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return (nn.functional.interpolate(coarse, (48, 48), mode="bicubic").clamp(0, 1) * 255).byte()


@EVERYWHERE
def test_crops_match_the_cpu(images, device):
    sizes = torch.full((16, 2), 48)
    boxes = sample_crops(sizes, generator=torch.Generator().manual_seed(0))
    rows, flip = torch.arange(16), torch.arange(16) % 2 == 0
    wanted = crop_each(images, boxes, 32, rows, flip).float()
    found = crop_by_matrices(images.to(device), boxes, 32, rows, flip).cpu().float()
    assert (found - wanted).abs().mean() < 1.5  # boxes are rounded to whole pixels only on a CPU


@EVERYWHERE
def test_augmentations_match_the_cpu(images, device):
    sizes, augment = (
        torch.full((16, 2), 48),
        Augment(size=32, solarize_p=0.2, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0)),
    )
    draws = augment.draw(sizes, torch.Generator().manual_seed(0))
    wanted, found = augment.apply(images, draws), augment.apply(images.to(device), draws)
    assert found.device.type == device
    assert (found.cpu() - wanted).abs().mean() < 0.02
    assert torch.equal(augment(images, sizes, torch.Generator().manual_seed(0)), wanted)


METHODS = {
    "simclr": methods.SimCLR,
    "moco-v2": lambda encoder: methods.MoCoV2(encoder, queue_size=16, shuffle=False),
    "moco-v3": lambda encoder: methods.MoCoV3(encoder, hidden_dim=32, projection_dim=16),
    "simsiam": lambda encoder: methods.SimSiam(encoder, projection_dim=32, prediction_dim=16),
    "byol": lambda encoder: methods.BYOL(encoder, hidden_dim=32, projection_dim=16),
    "swav": lambda encoder: methods.SwAV(encoder, prototypes=8, hidden_dim=32),
    "vicreg": lambda encoder: methods.VICReg(encoder, expander=(32, 32)),
    "barlow-twins": lambda encoder: methods.BarlowTwins(encoder, projector=(32, 32)),
    "dino": lambda encoder: methods.DINO(encoder, out_dim=16, hidden_dim=32),
    "gen-dino": lambda encoder: methods.GenDINO(encoder, out_dim=16, hidden_dim=32),
}
WAYS = {"float32": None, "channels_last": None, "compiled": None, "bf16": torch.bfloat16, "fp16": torch.float16}
ON_CPU = [("simclr", "float32"), ("byol", "bf16"), ("dino", "channels_last")]
CASES = [pytest.param(name, way, "cpu", id=f"{name}-{way}-cpu") for name, way in ON_CPU] + [
    pytest.param(name, way, "cuda", id=f"{name}-{way}-cuda", marks=ON_GPU) for name in METHODS for way in WAYS
]


@pytest.mark.parametrize(("name", "way", "device"), CASES)
def test_step_in_every_precision_gives_finite_weights(name, way, device):
    method = build(name, device)
    if way == "channels_last":
        method = method.to(memory_format=torch.channels_last)
    before = next(method.backbone.parameters()).detach().clone()
    seen = [view.to(device) for view in torch.randn(2, 8, 3, 16, 16)]
    if way == "compiled":
        method.backbone.compile()
    optimizer = sslzoo.build_optimizer("sgd", method, lr=0.05, weight_decay=1e-4)
    scaler = torch.amp.GradScaler(device, enabled=way == "fp16", init_scale=2.0**8)
    for step in (1, 2):
        with torch.autocast(device, WAYS[way], enabled=WAYS[way] is not None):
            loss = method(seen)["loss"]
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        method.after_step(step / 2)
    assert torch.isfinite(loss) and sslzoo.all_finite(method.parameters())
    assert not torch.equal(before, next(method.backbone.parameters()))


def build(name: str, device: str) -> Method:
    torch.manual_seed(0)
    return METHODS[name](sslzoo.create_backbone("resnet10", cifar_stem=True, width=8)).to(device)


@EVERYWHERE
def test_resumed_training_matches_uninterrupted_training(tmp_path, monkeypatch, device):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)

    def trained(steps, start=None):
        method = build("moco-v2", device)
        optimizer = sslzoo.build_optimizer("adamw", method, lr=1e-3, weight_decay=0.1)
        first = sslzoo.load_resume(start, method, optimizer, {}).step if start else 0
        for step in range(first, steps):
            seen = torch.randn(2, 8, 3, 16, 16, generator=torch.Generator().manual_seed(step)).to(device)
            optimizer.zero_grad()
            method(list(seen))["loss"].backward()
            optimizer.step()
            method.after_step((step + 1) / 4)
        return method, optimizer

    method, optimizer = trained(2)
    sslzoo.save_resume(tmp_path / "resume.pt", step=2, method=method, optimizer=optimizer, recipe={})
    resumed, whole = trained(4, tmp_path / "resume.pt")[0].state_dict(), trained(4)[0].state_dict()
    tolerance = 0 if device == "cpu" else 1e-4  # the order of some sums varies on a GPU
    tensors = [name for name in whole if torch.is_tensor(whole[name])]
    assert all(torch.allclose(resumed[name].float(), whole[name].float(), atol=tolerance) for name in tensors)


@pytest.mark.gpu
@pytest.mark.parametrize("processes", [1, 2])
def test_nccl_processes_match_a_single_process(tmp_path, processes):
    if torch.cuda.device_count() < processes:
        pytest.skip(f"needs {processes} CUDA devices, {torch.cuda.device_count()} are visible")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    subprocess.run([*launcher, ROOT / "tests" / "nccl_rank.py", tmp_path / "found"], check=True, timeout=120)
    found = torch.load(tmp_path / "found", weights_only=True)
    device = torch.device("cuda")
    alone = loss_and_gradient(simclr(device), views(device))
    assert found["backend"] == "nccl"
    assert torch.allclose(found["loss"], alone["loss"], rtol=1e-3)
    assert (found["gradient"] - alone["gradient"]).norm() < 0.01 * alone["gradient"].norm()


@pytest.fixture
def folder(images, tmp_path) -> Path:
    (tmp_path / "images").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "images" / f"{number:02}.png")
    return tmp_path / "images"


@EVERYWHERE
def test_a_diffusion_model_learns_and_generates(folder, tmp_path, device):
    encoder = ImageEncoder(nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(48, 8)), size=16, device=device)
    embeddings = embed_images(folder, tmp_path / "embedded", encoder)
    sizes = {"resolution": 16, "channels": (16, 16), "head_dim": 16, "norm_groups": 8, "cross_dim": 16}
    config = replace(preset("32-small"), **sizes, steps=3, batch_size=4, bf16=device == "cuda", warmup_steps=1)
    model = train_eldm(folder, embeddings, tmp_path / "eldm", config, device=device)
    vectors = torch.from_numpy(embeddings.vectors[:4].astype("float32"))
    generated = [
        ELDMGenerator(model, steps=3, device=place).generate(vectors, seeds=range(4)) for place in (device, "cpu")
    ]
    assert generated[0].shape == (4, 3, 16, 16)
    assert (generated[0].float() - generated[1].float()).abs().mean() < 2


@EVERYWHERE
def test_batches_on_the_device_equal_the_files(folder, device):
    words = {"batch_size": 4, "size": 32, "seed": 1}
    plain = FolderLoader(folder, **words).epoch(0)
    for wanted, batch in zip(plain, FolderLoader(folder, **words, device=device, workers=1).epoch(0), strict=True):
        assert batch.real.device.type == device and torch.equal(batch.real.cpu(), wanted.real)
        assert torch.equal(batch.index.cpu(), wanted.index)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is visible")
def test_peak_flops_of_this_gpu():
    """A large matrix product reaches a good fraction of the peak and does not exceed it."""
    peak = sslzoo.peak_flops(torch.device("cuda"))
    assert peak is not None, torch.cuda.get_device_name()
    matrix = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for _ in range(3):
        matrix @ matrix
    begin.record()
    for _ in range(10):
        matrix @ matrix
    end.record()
    end.synchronize()
    assert 0.3 < 10 * 2 * 8192**3 / (begin.elapsed_time(end) / 1000) / peak < 1.05


@EVERYWHERE
def test_captured_step_matches_the_eager_step(device):
    from benchmarks.gpu.cuda_graphs import LossAndGradients

    found = []
    for capture in (False, device == "cuda"):
        method = build("simclr", device)
        step = LossAndGradients(
            lambda *seen, of=method: of(list(seen))["loss"], list(method.parameters()), capture=capture
        )
        losses = []
        for number in range(3):
            drawn = torch.randn(2, 8, 3, 16, 16, generator=torch.Generator().manual_seed(number)).to(device)
            losses.append(step(*drawn).item())
        found.append((losses, next(method.parameters()).grad.cpu().clone()))
    (losses, gradient), (recorded, again) = found
    assert losses == pytest.approx(recorded, rel=1e-3) and (gradient - again).norm() < 0.01 * gradient.norm()


@EVERYWHERE
def test_items_made_ahead_keep_their_order(device):
    from benchmarks.gpu.cuda_graphs import prefetch

    items = ((torch.full((1000,), float(number), device=device),) for number in range(20))
    assert [item.mean().item() for (item,) in prefetch(items, torch.device(device))] == list(range(20))
