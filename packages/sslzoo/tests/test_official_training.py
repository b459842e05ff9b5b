"""Several whole training steps, with the numbers of the official code run on the same weights and images in float64.

Origin: facebookresearch/simsiam@a7bc177, facebookresearch/moco@132aea9, facebookresearch/dino@7c446df.
"""

import math

import pytest
import torch
from torch.nn import functional

from sslzoo import apply_schedule, build_optimizer, clip_grad_per_param, create_backbone, schedules
from sslzoo.ema import ema_update
from sslzoo.heads import DINOHead
from sslzoo.methods import DINO, MoCoV2, SimSiam


def norm(tensors) -> float:
    return torch.stack([tensor.detach().norm() for tensor in tensors if tensor is not None]).norm().item()


def gradient_norm(module) -> float:
    return norm(parameter.grad for parameter in module.parameters())


def test_simsiam(seeded):
    method = SimSiam(create_backbone("resnet18"), projection_dim=32, prediction_dim=16).double()
    seeded.fill(method)
    optimizer = build_optimizer("sgd", method, lr=0.05, weight_decay=1e-4)
    losses = []
    for step in range(3):
        apply_schedule(optimizer, 0.05 * 0.5 * (1 + math.cos(math.pi * step / 3)))
        loss = method(seeded.views(2, 64, 10 * step, dtype=torch.float64))["loss"]
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            assert gradient_norm(method.encoder) == pytest.approx(1.3124440178809444, rel=1e-8)
            assert gradient_norm(method.predictor) == pytest.approx(0.24187519221641726, rel=1e-8)
        optimizer.step()
        method.after_step((step + 1) / 3)
        losses.append(loss.item())
    assert losses == pytest.approx([0.019807362512305894, -0.006528158254750624, -0.007398180452851446], abs=1e-8)
    assert norm(method.encoder.parameters()) == pytest.approx(202.55139629123173, rel=1e-8)
    assert norm(method.predictor.parameters()) == pytest.approx(8.107519277879378, rel=1e-8)


def test_moco_v2(seeded):
    backbone = create_backbone("resnet18")
    method = MoCoV2(backbone, projection_dim=16, queue_size=32, momentum=0.9).double()
    seeded.fill(method.query)
    ema_update(method.key, method.query, momentum=0.0)
    method.queue.keys.copy_(functional.normalize(seeded.normal(99, 32, 16, dtype=torch.float64), dim=1))
    optimizer = build_optimizer("sgd", method, lr=0.03, weight_decay=1e-4)
    losses = []
    for step in range(5):
        loss = method(seeded.views(2, 64, 10 * step, dtype=torch.float64))["loss"]
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            assert gradient_norm(method.query) == pytest.approx(3.6608775953589983, rel=1e-8)
        optimizer.step()
        if step < 4:  # the official key encoder follows at the start of the next step
            method.after_step((step + 1) / 5)
        losses.append(loss.item())
    expected = [0.5844882038569799, 2.14112946186071, 2.381164277146676, 2.282978586139844, 2.0728027407982994]
    assert losses == pytest.approx(expected, abs=1e-8)
    assert norm(method.query.parameters()) == pytest.approx(197.0328114954259, rel=1e-8)
    assert norm(method.key.parameters()) == pytest.approx(197.03894704965523, rel=1e-8)
    method.after_step(1.0)
    assert method.queue.keys.sum().item() == pytest.approx(2.4428713776078754, abs=1e-7)
    assert method.queue.keys[:4, 0].tolist() == pytest.approx(
        [-0.2222896206067177, -0.24417198981153546, -0.2878824306519064, -0.17077143699203445], abs=1e-8
    )
    assert method.queue.ptr.item() == 8


def test_dino(seeded):
    """Multi-crop, teacher temperature warm-up, frozen last layer, clipping, decay and momentum schedules at once."""
    method = DINO(
        create_backbone("resnet18"), out_dim=24, hidden_dim=32, bottleneck_dim=16, teacher_temperature_start=0.04,
        teacher_temperature=0.07, teacher_warmup_fraction=1 / 3, momentum=0.9, freeze_fraction=1 / 3,
    ).double()  # fmt: skip
    seeded.fill(method.student)
    ema_update(method.teacher, method.student, momentum=0.0)
    optimizer = build_optimizer("adamw", method, lr=0.0, weight_decay=0.04)
    prototypes = method.student.head.prototypes.direction.clone()
    losses = []
    for step in range(3):
        lr = schedules.warmup_cosine(step, 3, peak=5e-3, final=1e-6)
        apply_schedule(optimizer, lr, schedules.cosine(step / 3, 0.04, 0.4))
        globals_ = seeded.views(2, 64, 10 * step, dtype=torch.float64)
        loss = method(globals_ + seeded.views(2, 32, 10 * step + 5, dtype=torch.float64))["loss"]
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            assert gradient_norm(method) == pytest.approx(11.479361809548928, rel=1e-8)
        clip_grad_per_param(method, 0.02)
        if step == 0:
            assert gradient_norm(method) == pytest.approx(0.11813709334247122, rel=1e-8)
        optimizer.step()
        method.after_step((step + 1) / 3)
        assert torch.equal(method.student.head.prototypes.direction, prototypes) == (step == 0)
        losses.append(loss.item())
    assert losses == pytest.approx([1.4641395951322593, 2.059706066509594, 1.9441099006658955], abs=1e-7)
    fixed = 24  # the official norm counts the last layer's 24 fixed lengths of 1
    assert norm(method.student.parameters()) == pytest.approx(math.sqrt(195.76781284346362**2 - fixed), rel=1e-8)
    assert norm(method.teacher.parameters()) == pytest.approx(math.sqrt(194.36313438778532**2 - fixed), rel=1e-8)
    assert method.center.norm().item() == pytest.approx(0.43876201207873267, abs=1e-7)
    assert method.center[:3].tolist() == pytest.approx(
        [-0.02025442246376869, 0.16341751417012584, -0.06917423304969493], abs=1e-7
    )


@pytest.mark.parametrize(
    ("norm_last_layer", "first", "square", "gradient"),
    [
        (True, [0.015355158597230911, 0.5810341238975525, 0.11641381680965424], 6.529069900512695, 48.92692184448242),
        (False, [0.01798310875892639, 0.41147342324256897, 0.13232402503490448], 6.230534553527832, 48.60706329345703),
    ],
)
def test_dino_head(seeded, norm_last_layer, first, square, gradient):
    # vision_transformer.py DINOHead(12, 7, use_bn=True, norm_last_layer=..., hidden_dim=16, bottleneck_dim=5), float32
    head = DINOHead(
        12, out_dim=7, hidden=16, bottleneck=5, layers=3, batch_norm=True, norm_last_layer=norm_last_layer
    )  # fmt: skip
    seeded.fill(head, torch.float32)
    if not norm_last_layer:
        head.prototypes.norm.data = 1 + 0.1 * seeded.normal(1011, 7, 1)
    output = head(seeded.normal(0, 6, 12))
    (output * seeded.normal(1, 6, 7)).sum().backward()
    assert output[0, :3].tolist() == pytest.approx(first, abs=1e-5)
    assert output.square().sum().item() == pytest.approx(square, rel=1e-5)
    assert gradient_norm(head) == pytest.approx(gradient, rel=1e-5)
