"""Gated attention and its training, against the official networks and on bags whose answer is known."""

from dataclasses import replace

import pytest
import torch

from ssl_eval.slides.attention_mil import MIL_PROTOCOLS, AttentionMIL, slide_probabilities, train_mil

# Outputs of AMLab-Amsterdam/AttentionDeepMIL@eb0434b model.py (GatedAttention behind its convolutions) and of
# mahmoodlab/CLAM@53e2409 models/model_clam.py (CLAM_SB), both filled and fed as below.
ILSE_LOGIT = 21.565279
ILSE_ATTENTION = [0.0339422, 0.0380372, 0.0041297, 0.0606260, 0.1260240, 0.7372409]
CLAM_LOGITS = [6.3743968, -18.2607841, -11.3758707]
CLAM_ATTENTION = [0.0009303, 0.8744076, 0.0719673, 0.0476306, 0.0048527, 0.0002115]

QUICK = replace(MIL_PROTOCOLS["ilse"], epochs=6)


def filled(model: AttentionMIL) -> AttentionMIL:
    parameters = [*model.embed.parameters(), *model.value.parameters(), *model.gate.parameters()]
    parameters += [*model.weigh.parameters(), *model.classify.parameters()]
    with torch.no_grad():
        for number, each in enumerate(parameters):
            each.copy_(scattered(each.shape, number + 1) * 6 / each.shape[-1] ** 0.5)
    return model.eval()


def scattered(shape: torch.Size, number: int) -> torch.Tensor:
    """Values in (-1, 1) that any machine makes alike."""
    angles = torch.arange(shape.numel(), dtype=torch.float64) * 12.9898 + number
    return (angles.sin() * 43758.5453).frac().view(shape).float()


def tiles(count: int, width: int) -> torch.Tensor:
    return scattered(torch.Size((count, width)), 0) * 2


def marked_bags(count: int, seed: int) -> tuple[list[torch.Tensor], torch.Tensor, list[int]]:
    """Noise; every other bag holds one tile that a single feature marks."""
    generator = torch.Generator().manual_seed(seed)
    bags, places = [], []
    for number in range(count):
        bag = torch.randn(int(torch.randint(3, 30, (1,), generator=generator)), 16, generator=generator)
        place = int(torch.randint(0, len(bag), (1,), generator=generator)) if number % 2 else -1
        if place >= 0:
            bag[place, 3] += 6
        bags.append(bag)
        places.append(place)
    return bags, torch.arange(count) % 2, places


@torch.no_grad()
def test_outputs_are_the_official_ones():
    ilse = filled(AttentionMIL(800, 1, hidden=500, attention=128, dropout=0.0))
    found = ilse(tiles(6, 800))
    assert float(found.logits) == pytest.approx(ILSE_LOGIT, rel=1e-4)
    torch.testing.assert_close(found.attention, torch.tensor(ILSE_ATTENTION), atol=1e-5, rtol=1e-4)
    clam = filled(AttentionMIL(24, 3, hidden=512, attention=256, dropout=0.25))
    found = clam(tiles(6, 24))
    torch.testing.assert_close(found.logits, torch.tensor(CLAM_LOGITS), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.attention, torch.tensor(CLAM_ATTENTION), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_the_order_of_tiles_means_nothing():
    model, bag = filled(AttentionMIL(24, 3, hidden=8, attention=4, dropout=0.5)), tiles(7, 24)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    straight, mixed = model(bag), model(bag[order])
    torch.testing.assert_close(straight.logits, mixed.logits)
    torch.testing.assert_close(straight.attention[order], mixed.attention)
    assert float(straight.attention.sum()) == pytest.approx(1)


def test_attention_finds_the_tile_that_makes_a_bag_positive():
    train, labels, _ = marked_bags(120, seed=0)
    test, truth, places = marked_bags(100, seed=1)
    model = train_mil(train, labels, protocol=QUICK, num_classes=2)
    right = (slide_probabilities(model, test).argmax(dim=1) == truth).float().mean()
    with torch.no_grad():
        seen = [
            int(model(bag).attention.argmax()) == place for bag, place in zip(test, places, strict=True) if place >= 0
        ]
    assert right >= 0.95 and sum(seen) >= 0.95 * len(seen)


def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path):
    bags, labels, _ = marked_bags(12, seed=2)
    protocol = replace(MIL_PROTOCOLS["clam"], epochs=4, hidden=8, attention=4)
    straight = train_mil(bags, labels, protocol=protocol, num_classes=2, seed=3)

    def stop(done: int, epochs: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    options = {"protocol": protocol, "num_classes": 2, "seed": 3, "resume": tmp_path / "state.pt"}
    with pytest.raises(KeyboardInterrupt):
        train_mil(bags, labels, on_epoch=stop, **options)
    torch.rand(5)  # what others draw meanwhile
    resumed = train_mil(bags, labels, **options)
    assert all(torch.equal(one, other) for one, other in zip(straight.parameters(), resumed.parameters(), strict=True))
    other = train_mil(bags, labels, protocol=protocol, num_classes=2, seed=4)
    assert not torch.equal(straight.classify.weight, other.classify.weight)
    with pytest.raises(ValueError, match="belongs to another training"):
        train_mil(bags, 1 - labels, **options)
    with pytest.raises(ValueError, match="belongs to another training"):
        train_mil([*bags[:-1], bags[-1] + 1], labels, **options)


def test_mistakes_are_told():
    bags, labels, _ = marked_bags(4, seed=0)
    common = {"protocol": QUICK, "num_classes": 2}
    with pytest.raises(ValueError, match="got none of class 2"):
        train_mil(bags, labels, protocol=QUICK, num_classes=3)
    with pytest.raises(ValueError, match="got 4 slides and 3 labels"):
        train_mil(bags, labels[:3], **common)
    with pytest.raises(ValueError, match=r"expected labels in 0..1, got 2"):
        train_mil(bags, labels + 1, **common)
    with pytest.raises(ValueError, match="got 7 and 16"):
        train_mil([*bags[:3], bags[3][:, :7]], labels, **common)
