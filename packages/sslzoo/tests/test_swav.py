"""SwAV beside facebookresearch/swav@06b1b7c, run on the same weights and images."""

import math

import pytest
import torch
from torch.nn import functional

from sslzoo import apply_schedule, build_optimizer, create_backbone, losses
from sslzoo.losses.swav import sinkhorn
from sslzoo.methods import SwAV


def norm(tensors) -> float:
    return torch.stack([tensor.detach().norm() for tensor in tensors if tensor is not None]).norm().item()


def norms(module) -> tuple[float, float]:
    """Of the gradient and of the parameters."""
    parameters = list(module.parameters())
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return norm(gradients) if gradients else 0.0, norm(parameters)


# main_swav.py train() over 2x32 and 2x16 px with SGD, the prototypes frozen in the first step; with a queue of 16, two
# batches, which the third and fourth step use. Each row: loss; norm of the gradient of backbone and projector, of the
# prototypes; norm of backbone and projector, of the prototypes before they are normalised again.
STEPS = {
    (0, torch.float64): [
        (4.804083361345132, 8.355299738477694, 0.0, 32.197819221577646, 3.4641016151377544),
        (4.497913355298918, 2.4910278450068715, 4.911304551682887, 32.272267235274015, 3.409796929367668),
        (3.6495674998988683, 0.8856019539341562, 2.8127041466945277, 32.30207012545649, 3.457555332594936),
    ],
    (16, torch.float64): [
        (4.804083361345132, 8.355299738477694, 0.0, 32.197819221577646, 3.4641016151377544),
        (4.497913355298918, 2.4910278450068715, 4.911304551682887, 32.28567263503436, 3.414741230655737),
        (2.8502359039068823, 1.0314175690805663, 2.842867633043159, 32.353651072899595, 3.5094601115855566),
        (2.85586863835005, 0.43324077723864246, 2.07745377503759, 32.373877674993835, 3.4793725183947775),
    ],
    (0, torch.float32): [
        (4.97283935546875, 8.354879379272461, 0.0, 32.308982849121094, 3.464101552963257),
        (5.711355686187744, 3.466012716293335, 7.8958821296691895, 32.38903045654297, 3.4464516639709473),
        (4.818401336669922, 1.7915791273117065, 4.03060245513916, 32.4211311340332, 3.497586488723755),
    ],
    (16, torch.float32): [
        (4.97283935546875, 8.354879379272461, 0.0, 32.308982849121094, 3.464101552963257),
        (5.711355686187744, 3.466012716293335, 7.8958821296691895, 32.403663635253906, 3.4758615493774414),
        (2.9073069095611572, 1.1854331493377686, 3.0660600662231445, 32.47732925415039, 3.653393507003784),
        (3.599515438079834, 0.8184018135070801, 2.5454258918762207, 32.49931335449219, 3.507091522216797),
    ],
}
NEWEST = [-0.12179962510230954, -0.228169916140048, 0.17743475928851093]
"""queue[0, 0, :3] at the end of the float64 run with a queue."""


@pytest.mark.parametrize("run", STEPS, ids=str)
def test_steps_are_those_of_the_official_code(run, seeded):
    queue_size, dtype = run
    method = SwAV(create_backbone("resnet10", cifar_stem=True, width=8), prototypes=12, projection_dim=16,
                  hidden_dim=32, queue_size=queue_size, queue_start=0.0, freeze_fraction=0.2).to(dtype)  # fmt: skip
    seeded.fill(method, dtype)
    method.normalize_prototypes()
    optimizer = build_optimizer("sgd", method, lr=0.2, weight_decay=1e-4)
    found, steps = [], len(STEPS[run])
    for step in range(steps):
        apply_schedule(optimizer, 0.2 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        global_, local = (seeded.views(2, size, 10 * step + first, dtype=dtype) for size, first in ((32, 0), (16, 5)))
        loss = method(global_ + local)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        (gradient, length), (pull, prototypes) = norms(method.encoder), norms(method.prototypes)
        found.append((loss.item(), gradient, pull, length, prototypes))
        method.after_step((step + 1) / steps)
    tolerance = 1e-8 if dtype == torch.float64 else 1e-5
    for (loss, *gradients, length, prototypes), expected in zip(found, STEPS[run], strict=True):
        assert (loss, length, prototypes) == pytest.approx((expected[0], *expected[3:]), rel=tolerance)
        assert gradients == pytest.approx(expected[1:3], rel=10 * tolerance)  # exp(s/0.05) makes much of rounding
    if run == (16, torch.float64):
        assert method.queues[0].keys[8, :3].tolist() == pytest.approx(NEWEST, abs=1e-8)


def test_sinkhorn_balances_prototypes_and_samples(seeded):
    share = sinkhorn(functional.normalize(seeded.normal(0, 40, 10), dim=1), iterations=100)
    torch.testing.assert_close(share.sum(dim=1), torch.ones(40))
    torch.testing.assert_close(share.sum(dim=0), torch.full((10,), 4.0), rtol=1e-4, atol=0)


def test_sinkhorn_is_the_one_of_the_paper(seeded):
    """With the factors that cancel: prototypes of 1/K, samples of 1/B, in the official order."""
    scores = functional.normalize(seeded.normal(0, 6, 5), dim=1)
    q = torch.exp(scores / 0.05).T
    q = q / q.sum()
    for _ in range(3):
        q = q / q.sum(dim=1, keepdim=True) / 5
        q = q / q.sum(dim=0, keepdim=True) / 6
    torch.testing.assert_close(sinkhorn(scores), (q * 6).T)


def test_the_loss_is_the_mean_over_swapped_predictions(seeded):
    scores = functional.normalize(seeded.normal(0, 4, 6, 10), dim=-1)
    queued = functional.normalize(seeded.normal(1, 2, 7, 10), dim=-1)
    weights, terms = torch.linspace(0, 2, 6), []
    for i, a in enumerate((0, 2)):
        target = sinkhorn(torch.cat([queued[i], scores[a]]))[7:]
        for v in {0, 1, 2, 3} - {a}:
            term = functional.cross_entropy(scores[v] / 0.1, target, reduction="none")
            terms.append((term * weights).mean())
    loss = losses.swav(scores, assigned=(0, 2), queued=queued, weights=weights)
    torch.testing.assert_close(loss, sum(terms) / 6)


def test_weights_do_not_move_the_assignment(seeded):
    """A sample of weight zero still takes its part of the clusters, and only its own term goes."""
    scores = functional.normalize(seeded.normal(0, 2, 6, 10), dim=-1)
    each = [losses.swav(scores, weights=row) for row in torch.eye(6)]
    assert torch.equal(losses.swav(scores), losses.swav(scores, weights=torch.ones(6)))
    torch.testing.assert_close(losses.swav(scores), sum(each))


def test_half_precision_is_computed_in_float32(seeded):
    scores = functional.normalize(seeded.normal(0, 2, 6, 10), dim=-1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = losses.swav(scores)
    assert loss.item() == pytest.approx(losses.swav(scores.double()).item(), abs=1e-5)


def test_the_queue_waits_fills_and_is_used(build, call):
    """Of a training of ten steps it starts after the second and holds two batches."""
    method, asked = build("swav"), []
    scores_of = method._queued_scores
    method._queued_scores = lambda: asked.append(scores_of()) or asked[-1]
    for step in range(6):
        call(method, step)
        method.after_step((step + 1) / 10)
    assert [given is not None for given in asked] == [False] * 4 + [True] * 2
    assert asked[-1].shape == (2, 16, 12)
    lengths = torch.stack([queue.keys.norm(dim=1) for queue in method.queues])
    torch.testing.assert_close(lengths, torch.ones(2, 16))


def test_prototypes_stay_at_length_one_and_are_frozen_at_first(build, call):
    method = build("swav")
    optimizer, kept = build_optimizer("sgd", method, lr=0.5, weight_decay=0.0), []
    for step in range(4):
        before = method.prototypes.weight.clone()
        call(method, step)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step((step + 1) / 10)
        kept.append(torch.allclose(method.prototypes.weight, before, atol=1e-6))
        torch.testing.assert_close(method.prototypes.weight.norm(dim=1), torch.ones(12))
    assert kept == [True, True, False, False]


def test_weights_are_asked_for_when_the_global_views_alone_have_been_seen(build, seeded):
    method, seen = build("swav"), []
    method.backbone.register_forward_hook(lambda _, images, __: seen.append(images[0].shape[-1]))

    def weights():
        seen.append("weights")
        return torch.ones(8)

    method(seeded.views(2, 16, 0) + seeded.views(2, 12, 5), weights)
    assert seen == [16, "weights", 12]


def test_views_that_are_assigned_must_be_there(build, seeded):
    with pytest.raises(ValueError, match=r"those with assignments, \(0, 1\), for SwAV, got 1"):
        build("swav")(seeded.views(1, 16, 0))


def test_defaults_are_the_published_ones():
    class Flat(torch.nn.Flatten):
        num_features = 8

    method = SwAV(Flat())
    assert method.prototypes.weight.shape == (3000, 128)
    assert method.encoder.head[0].weight.shape == (2048, 8)
    assert (method.temperature, method.epsilon, method.iterations, len(method.queues)) == (0.1, 0.05, 3, 0)
