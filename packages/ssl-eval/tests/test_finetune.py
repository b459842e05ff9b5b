import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ssl_eval import MultiStep, backbone_hash, finetune
from ssl_eval.rng import seeded_generator
from ssl_eval.softmax_regression import INITIAL_DEVIATION


def official_loop(evaluated, protocol, seed: int) -> tuple[nn.Module, nn.Module]:
    """As facebookresearch/vicreg@4e12602 evaluate.py --weights finetune trains: two groups, SGD, train mode."""
    network, head = evaluated.backbone(batch_norm=True), nn.Linear(24, 3)
    head.weight.data = torch.randn(3, 24, generator=seeded_generator(seed, "weights")) * INITIAL_DEVIATION
    head.bias.data.zero_()
    groups = [
        {"params": head.parameters(), "lr": protocol.head_lr},
        {"params": network.parameters(), "lr": protocol.backbone_lr},
    ]
    optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=protocol.weight_decay)
    model = nn.Sequential(network, head)
    for epoch in range(protocol.epochs):
        factor = 0.5 * (1 + math.cos(math.pi * epoch / protocol.epochs))
        if isinstance(protocol.schedule, MultiStep):
            factor = 0.2 ** sum(epoch >= place for place in (2, 3))
        optimizer.param_groups[0]["lr"] = protocol.head_lr * factor
        optimizer.param_groups[1]["lr"] = protocol.backbone_lr * factor
        model.train()
        for images, labels in evaluated.Epochs().epoch(epoch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return model.eval()


@pytest.mark.parametrize("changes", [{}, {"schedule": MultiStep(at=(0.6, 0.8), by=0.2), "weight_decay": 1e-2}])
def test_trains_what_the_official_loop_trains(tmp_path, evaluated, changes):
    protocol = replace(evaluated.SEMI, **({"schedule": replace(evaluated.SEMI.schedule, per_step=False)} | changes))
    network, path = evaluated.backbone(batch_norm=True).eval().requires_grad_(False), tmp_path / "resume.pt"
    before = backbone_hash(network)
    found = finetune(
        network, evaluated.Epochs(), evaluated.tests(), protocol=protocol, num_classes=3, seed=4, resume=path
    )
    assert backbone_hash(network) == before and not network.training
    model = official_loop(evaluated, protocol, seed=4)
    ours = torch.load(path, weights_only=True)["model"]
    assert ours["0.1.running_mean"].abs().max() > 0
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-5, atol=1e-6, msg=name)
    images, labels = (torch.cat(parts) for parts in zip(*evaluated.tests(), strict=True))
    expected = 100 * float((model(images).argmax(dim=1) == labels).double().mean())
    assert found.top1 == pytest.approx(expected) and found.top5 == 100


def test_a_stopped_training_goes_on_to_the_last_bit(tmp_path, evaluated):
    def stop(done: int, epochs: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    def run(name: str, **options):
        network, path = evaluated.backbone(batch_norm=True, dropout=0.3), tmp_path / name
        images = evaluated.Epochs(), evaluated.tests()
        found = finetune(network, *images, protocol=evaluated.SEMI, num_classes=3, resume=path, **options)
        return found, torch.load(path, weights_only=True)["model"]

    state = torch.get_rng_state()
    whole, expected = run("whole.pt")
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(KeyboardInterrupt):
        run("stopped.pt", on_epoch=stop)
    torch.rand(7)
    resumed, tensors = run("stopped.pt")
    assert resumed == whole
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_a_backbone_at_rate_0_stays_as_it_is(tmp_path, evaluated):
    protocol, network = replace(evaluated.SEMI, backbone_lr=0.0), evaluated.backbone()
    path = tmp_path / "resume.pt"
    finetune(network, evaluated.Epochs(), evaluated.tests(), protocol=protocol, num_classes=3, resume=path)
    trained = torch.load(path, weights_only=True)["model"]
    assert all(torch.equal(trained[f"0.{name}"], tensor) for name, tensor in network.state_dict().items())
    assert trained["1.weight"].abs().max() > 5 * INITIAL_DEVIATION


def test_mistakes_are_named(evaluated):
    def run(train=None, network=None, **options):
        options = {"protocol": evaluated.SEMI, "num_classes": 3} | options
        return finetune(network or evaluated.backbone(), train or evaluated.Epochs(), evaluated.tests(), **options)

    with pytest.raises(ValueError, match=r"expected labels in 0..1, got 2"):
        run(num_classes=2)
    with pytest.raises(ValueError, match="diverged in epoch 0"):
        run(protocol=replace(evaluated.SEMI, head_lr=1e30, backbone_lr=1e30))
    with pytest.raises(ValueError, match="pool them"):
        run(network=nn.Conv2d(3, 3, 3))
