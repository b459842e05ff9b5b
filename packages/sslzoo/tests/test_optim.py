import pytest
import torch
from torch import nn

from sslzoo import LARS, apply_schedule, build_optimizer, clip_grad_per_param, parameter_groups, schedules


def test_lars_agrees_with_the_official_update(seeded):
    # facebookresearch/moco-v3@c349e6e moco/optimizer.py LARS(lr=0.5, weight_decay=0.1), three steps
    matrix, vector = nn.Parameter(seeded.normal(1, 4, 3)), nn.Parameter(seeded.normal(2, 4))
    optimizer = LARS([matrix, vector], lr=0.5, weight_decay=0.1)
    for step in range(3):
        matrix.grad, vector.grad = seeded.normal(10 + step, 4, 3), seeded.normal(20 + step, 4)
        optimizer.step()
    assert matrix.flatten().tolist() == pytest.approx(
        [
            0.6613542437553406, 0.2671170234680176, 0.06246406212449074, 0.6230146884918213, -0.45268967747688293,
            -0.16504155099391937, -1.5215356349945068, 0.3826121389865875, -1.0266282558441162, -0.5639793276786804,
            -0.8922185301780701, -0.05761069804430008,
        ],
        abs=1e-6,
    )  # fmt: skip
    assert vector.tolist() == pytest.approx(
        [1.4087131023406982, 0.36219093203544617, -1.1135321855545044, 0.3325105309486389], abs=1e-6
    )


def test_lars_survives_zero_weights_and_gradients():
    weight = nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.zeros(2, 2)
    LARS([weight], lr=1.0).step()
    assert torch.equal(weight, torch.zeros(2, 2))


def test_every_trainable_parameter_is_in_one_group(method_name, build):
    method = build(method_name)
    groups = parameter_groups(method, weight_decay=0.1, skip_norm_and_bias=True)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in method.parameters() if p.requires_grad)


def test_biases_and_norms_do_not_decay_when_asked(build):
    method = build("dino")
    decaying = {id(p) for g in parameter_groups(method, weight_decay=0.1, skip_norm_and_bias=True)
                if g["weight_decay"] for p in g["params"]}  # fmt: skip
    for name, parameter in method.student.named_parameters():
        assert (id(parameter) in decaying) == (parameter.ndim > 1), name
    assert [g["decays"] for g in parameter_groups(method, weight_decay=0.1, skip_norm_and_bias=False)] == [True]


def test_the_schedule_leaves_simsiams_predictor_and_undecayed_groups_alone(build):
    method = build("simsiam")
    optimizer = build_optimizer("sgd", method, lr=0.5, weight_decay=0.1, skip_norm_and_bias=True)
    apply_schedule(optimizer, 0.01, weight_decay=0.3)
    predictor = {id(p) for p in method.predictor.parameters()}
    for group in optimizer.param_groups:
        fixed = id(group["params"][0]) in predictor
        assert group["lr"] == (0.5 if fixed else 0.01)
        assert group["weight_decay"] == (0.3 if group["params"][0].ndim > 1 else 0.0)
    assert len(optimizer.param_groups) == 4


@pytest.mark.parametrize("name", ["sgd", "adamw", "lars"])
def test_dinos_last_layer_rests_for_its_share_of_the_training(name, build, call):
    method = build("dino")
    optimizer = build_optimizer(name, method, lr=0.1, weight_decay=0.1)
    moved = []
    for step in range(4):
        before = method.student.head.prototypes.direction.clone()
        optimizer.zero_grad()
        call(method, step)["loss"].backward()
        optimizer.step()
        method.after_step((step + 1) / 4)
        moved.append(not torch.equal(before, method.student.head.prototypes.direction))
    assert moved == [False, False, True, True]  # freeze_fraction 0.4


def test_unknown_optimizer():
    with pytest.raises(ValueError, match="expected optimizer sgd, adamw or lars"):
        build_optimizer("adam", nn_method(), lr=0.1, weight_decay=0.0)


def nn_method():
    from sslzoo.methods import SimSiam

    class Flat(nn.Flatten):
        num_features = 8

    return SimSiam(Flat(), projection_dim=8, prediction_dim=4)


def test_clipping_is_per_parameter():
    first, second = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(4))
    first.grad, second.grad = torch.full((4,), 5.0), torch.full((4,), 0.1)
    clip_grad_per_param(nn.ParameterList([first, second]), 3.0)
    assert first.grad.norm().item() == pytest.approx(3.0, abs=1e-5)
    assert torch.equal(second.grad, torch.full((4,), 0.1))


def test_learning_rate_agrees_with_the_official_schedule():
    # facebookresearch/dino@7c446df utils.py cosine_scheduler(0.5, 0.01, epochs=5, niter_per_ep=2, warmup_epochs=2)
    expected = [0.0, 1 / 6, 1 / 3, 0.5, 0.5, 0.4671762239271875, 0.3775, 0.255, 0.1325, 0.04282377607281252]
    found = [schedules.warmup_cosine(step, 10, peak=0.5, final=0.01, warmup_steps=4) for step in range(10)]
    assert found == pytest.approx(expected, abs=1e-12)


def test_a_warm_up_that_ends_below_the_peak_agrees_with_the_official_schedule():
    # facebookresearch/vicreg@4e12602 main_vicreg.py adjust_learning_rate: 16 epochs of a step, batch 128, base_lr 1
    falling = [0.5, 0.4665398445951636, 0.375125, 0.25025, 0.125375, 0.033960155404836434]
    expected = [step / 20 for step in range(10)] + falling
    found = [
        schedules.warmup_cosine(step, 16, peak=0.5, final=5e-4, warmup_steps=10, warmup_includes_peak=False)
        for step in range(16)
    ]
    assert found == pytest.approx(expected, abs=1e-12)


def test_schedules_at_their_ends():
    assert [schedules.cosine(p, 0.996, 1.0) for p in (0.0, 0.5, 1.0)] == pytest.approx([0.996, 0.998, 1.0])
    line = [schedules.linear_then_constant(p, 0.04, 0.07, 0.3) for p in (0.0, 0.15, 0.3, 1.0)]
    assert line == pytest.approx([0.04, 0.055, 0.07, 0.07])
    assert schedules.linear_then_constant(0.0, 0.04, 0.07, 0.0) == 0.07
