import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ssl_eval import ClassTokens, Cosine, LinearProtocol, MultiStep, backbone_hash, linear_evaluation
from ssl_eval.protocols import SGDConfig
from ssl_eval.rng import seeded_generator
from ssl_eval.softmax_regression import INITIAL_DEVIATION, LinearClassifiers, sgd_step


def torch_heads(evaluated, protocol: LinearProtocol, seed: int = 0) -> nn.Linear:
    """The official scripts' loop: a frozen network in evaluation mode, nn.Linear, torch.optim.SGD."""
    network, images = evaluated.backbone(batch_norm=True).eval(), evaluated.Epochs()
    head = nn.Linear(24, 3)
    head.weight.data = torch.randn(3, 24, generator=seeded_generator(seed, "weights")) * INITIAL_DEVIATION
    head.bias.data.zero_()
    optimizer = torch.optim.SGD(
        head.parameters(),
        protocol.learning_rate,
        momentum=protocol.momentum,
        weight_decay=protocol.weight_decay,
        nesterov=protocol.nesterov,
    )
    for epoch in range(protocol.epochs):
        for step, (inputs, labels) in enumerate(images.epoch(epoch)):
            if isinstance(protocol.schedule, MultiStep):
                factor = 0.1 ** sum(epoch >= place for place in (2, 3))
            else:
                done = epoch + step / 4 if protocol.schedule.per_step else epoch
                factor = 0.5 * (1 + math.cos(math.pi * done / protocol.epochs))
            for group in optimizer.param_groups:
                group["lr"] = protocol.learning_rate * factor
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(network(inputs).detach()), labels).backward()
            optimizer.step()
    return head


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": Cosine(), "weight_decay": 0.0},
        {"schedule": MultiStep(at=(0.5, 0.75), by=0.1)},
        {"schedule": Cosine(per_step=True), "nesterov": True},
    ],
)
def test_trains_what_the_official_loop_trains(tmp_path, evaluated, changes):
    protocol = replace(evaluated.LINEAR, **changes)
    network, path = evaluated.backbone(batch_norm=True).train(), tmp_path / "resume.pt"
    before = backbone_hash(network)
    found = linear_evaluation(
        network, evaluated.Epochs(), evaluated.tests(), protocol=protocol, num_classes=3, resume=path
    )
    assert backbone_hash(network) == before and network.training
    head = torch_heads(evaluated, protocol)
    weight, bias, *_ = torch.load(path, weights_only=True)["tensors"]
    torch.testing.assert_close(weight[0], head.weight.data, rtol=0, atol=2e-6)
    torch.testing.assert_close(bias[0], head.bias.data, rtol=0, atol=2e-6)
    images, labels = (torch.cat(parts) for parts in zip(*evaluated.tests(), strict=True))
    guesses = head(evaluated.backbone(batch_norm=True).eval()(images)).argmax(dim=1)
    assert found.accuracy == pytest.approx(100 * float((guesses == labels).double().mean()))
    assert found.top5 == 100 and found.learning_rate == 0.5 and found.holdout_accuracies == {}


def test_each_of_several_rates_is_trained_as_if_alone_and_held_out_images_choose(tmp_path, evaluated):
    common = {"protocol": evaluated.LINEAR, "num_classes": 3}
    many = linear_evaluation(
        evaluated.backbone(), evaluated.Epochs(), evaluated.tests(), learning_rates=(1e-6, 0.5, 0.1),
        held_out=evaluated.held_out(), resume=tmp_path / "many.pt", **common,
    )  # fmt: skip
    trained = torch.load(tmp_path / "many.pt", weights_only=True)["tensors"]
    for which, rate in enumerate((1e-6, 0.5, 0.1)):
        path = tmp_path / f"{rate}.pt"
        alone = linear_evaluation(
            evaluated.backbone(), evaluated.Epochs(), evaluated.tests(), learning_rates=(rate,), resume=path, **common
        )
        for ours, expected in zip(trained, torch.load(path, weights_only=True)["tensors"], strict=True):
            torch.testing.assert_close(ours[which], expected[0], rtol=1e-5, atol=1e-6)
        if rate == many.learning_rate:
            assert alone.accuracy == many.accuracy
    assert many.holdout_accuracies[many.learning_rate] == max(many.holdout_accuracies.values())
    assert many.learning_rate != 1e-6


def test_a_stopped_training_goes_on_to_the_last_bit(tmp_path, evaluated):
    def stop(done: int, epochs: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    def run(name: str, **options):
        images = evaluated.Epochs(), evaluated.tests()
        protocol = replace(evaluated.LINEAR, larc=True, learning_rate=20.0)
        path = tmp_path / name
        found = linear_evaluation(
            evaluated.backbone(), *images, protocol=protocol, num_classes=3, resume=path, **options
        )
        return found, torch.load(path, weights_only=True)["tensors"]

    whole, expected = run("whole.pt")
    with pytest.raises(KeyboardInterrupt):
        run("stopped.pt", on_epoch=stop)
    resumed, tensors = run("stopped.pt")
    assert resumed == whole
    assert all(torch.equal(ours, other) for ours, other in zip(tensors, expected, strict=True))
    with pytest.raises(ValueError, match=r"another training.*seed: 0, 1"):
        run("stopped.pt", seed=1)
    content = torch.load(tmp_path / "stopped.pt", weights_only=True)
    for wrong in ({"step": 10**9}, {"step": "1"}, {"tensors": []}, {"settings": []}):
        torch.save(content | wrong, tmp_path / "wrong.pt")
        with pytest.raises(ValueError, match=r"^[^\n]*wrong\.pt[^\n]*delete it to start afresh$"):
            run("wrong.pt")
    (tmp_path / "stopped.pt").write_bytes((tmp_path / "stopped.pt").read_bytes()[:-9])
    with pytest.raises(ValueError, match="not a whole resume file"):
        run("stopped.pt")


def test_larc_is_that_of_apex():
    """apex.parallel.LARC, clip=False, around torch.optim.SGD, one tensor at a time."""
    torch.manual_seed(0)
    start = LinearClassifiers(weight=torch.randn(2, 3, 5), bias=torch.zeros(2, 3))
    velocity, descent = LinearClassifiers.zeros_like(start), SGDConfig(larc=True, weight_decay=1e-2)
    rates, batches = torch.tensor([1.6, 30.0]), [(torch.randn(8, 5), torch.arange(8) % 3) for _ in range(6)]
    alone = []
    for which, rate in enumerate(rates.tolist()):
        head = nn.Linear(5, 3)
        head.weight.data, head.bias.data = start.weight[which].clone(), start.bias[which].clone()
        optimizer = torch.optim.SGD(head.parameters(), rate, momentum=0.9)
        for inputs, labels in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(inputs), labels).backward()
            for tensor in head.parameters():
                size, pull = tensor.data.norm(), tensor.grad.norm()
                if size != 0 and pull != 0:
                    tensor.grad += 1e-2 * tensor.data
                    tensor.grad *= 0.001 * size / (pull + size * 1e-2 + 1e-8)
            optimizer.step()
        alone.append(head)
    for inputs, labels in batches:
        sgd_step(start, velocity, inputs, labels, rates, descent)
    for which, head in enumerate(alone):
        torch.testing.assert_close(start.weight[which], head.weight.data)
        torch.testing.assert_close(start.bias[which], head.bias.data)


def test_mistakes_are_named(tmp_path, evaluated):
    def run(train=None, network=None, **options):
        options = {"protocol": evaluated.LINEAR, "num_classes": 3} | options
        images = evaluated.Epochs() if train is None else train, evaluated.tests()
        return linear_evaluation(network or evaluated.backbone(), *images, **options)

    with pytest.raises(ValueError, match="choose from 2 learning rates"):
        run(learning_rates=(0.1, 1.0))
    with pytest.raises(ValueError, match=r"expected labels in 0..1, got 2"):
        run(num_classes=2)
    with pytest.raises(ValueError, match=r"got \[1, 3, 4, 4\]"):
        run(network=nn.Conv2d(3, 3, 3))
    with pytest.raises(ValueError, match="diverged"):
        run(learning_rates=(1e38,))
    with pytest.raises(ValueError, match="expected transformer blocks"):
        run(protocol=replace(evaluated.LINEAR, class_tokens=ClassTokens(blocks=4)))
    with pytest.raises(ValueError, match="at least one training batch"):
        run(train=torch.utils.data.DataLoader([]))
    with pytest.raises(ValueError, match="to iterate every epoch"):
        run(train=iter(evaluated.tests()))
    run(resume=tmp_path / "resume.pt")
    wider = nn.Sequential(evaluated.backbone(), nn.Linear(24, 5))
    with pytest.raises(ValueError, match="width: 24, 5"):
        run(network=wider, resume=tmp_path / "resume.pt")
