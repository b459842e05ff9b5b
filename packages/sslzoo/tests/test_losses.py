import pytest
import torch
from torch.nn import functional

from sslzoo import losses


@pytest.fixture
def unit(seeded):
    return lambda seed, *shape: functional.normalize(seeded.normal(seed, *shape), dim=-1)


@pytest.fixture
def calls(seeded, unit):
    """Every loss as a function of the weights alone."""
    wide = {"center": seeded.normal(9, 10), "student_temperature": 0.1, "teacher_temperature": 0.04}
    student, teacher = seeded.normal(1, 4, 6, 10), seeded.normal(2, 2, 6, 10)
    alpha = torch.linspace(0, 1, 6)
    return {
        "info_nce": lambda w: losses.info_nce(unit(1, 6, 5), unit(2, 6, 5), unit(3, 9, 5), temperature=0.2, weights=w),
        "in_batch": lambda w: losses.info_nce(unit(1, 6, 5), unit(2, 6, 5), None, temperature=0.2, weights=w),
        "cosine": lambda w: losses.negative_cosine(seeded.normal(1, 6, 5), seeded.normal(2, 6, 5), w),
        "dino": lambda w: losses.dino(student, teacher, weights=w, **wide),
        "disentanglement": lambda w: losses.disentanglement(student[0], *teacher, alpha, weights=w, **wide),
    }


NAMES = ["info_nce", "in_batch", "cosine", "dino", "disentanglement"]


@pytest.mark.parametrize("name", NAMES)
def test_no_weights_is_weights_of_one_to_the_bit(calls, name):
    assert torch.equal(calls[name](None), calls[name](torch.ones(6)))


@pytest.mark.parametrize("name", NAMES)
def test_weights_multiply_each_samples_term(calls, name):
    one_hot = torch.stack([calls[name](row) for row in torch.eye(6)])
    weights = torch.tensor([0.0, 0.5, 1.0, 2.0, 0.1, 3.0])
    torch.testing.assert_close(calls[name](weights), (one_hot * weights).sum())
    torch.testing.assert_close(calls[name](None), one_hot.sum())


def test_info_nce_is_the_logarithm_it_says(unit):
    query, positive, negatives = unit(1, 6, 5), unit(2, 6, 5), unit(3, 9, 5)
    terms = []
    for q, p in zip(query, positive, strict=True):
        good = torch.exp(q @ p / 0.2)
        terms.append(-torch.log(good / (good + sum(torch.exp(q @ n / 0.2) for n in negatives))))
    torch.testing.assert_close(losses.info_nce(query, positive, negatives, temperature=0.2), sum(terms) / 6)


def test_info_nce_without_negatives_takes_the_other_positives(unit):
    query, positive = unit(1, 6, 5), unit(2, 6, 5)
    terms = [
        losses.info_nce(query[i : i + 1], positive[i : i + 1], positive[torch.arange(6) != i], temperature=0.1)
        for i in range(6)
    ]
    torch.testing.assert_close(losses.info_nce(query, positive, None, temperature=0.1), sum(terms) / 6)


def test_dino_agrees_with_the_official_loss(seeded):
    # facebookresearch/dino@7c446df main_dino.py DINOLoss(10, ncrops=4, 0.04, 0.04, 0, 1), inputs in this order, seed 0
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(24, 10, generator=generator).unflatten(0, (4, 6))
    teacher = torch.randn(12, 10, generator=generator).unflatten(0, (2, 6))
    center = torch.randn(10, generator=generator)
    loss = losses.dino(student, teacher, student_temperature=0.1, teacher_temperature=0.04, center=center)
    assert loss.item() == pytest.approx(11.00557804107666, abs=1e-5)


def test_dino_is_the_mean_over_pairs_of_different_views(seeded):
    student, teacher, center = seeded.normal(1, 5, 6, 10), seeded.normal(2, 2, 6, 10), seeded.normal(3, 10)
    terms = [
        functional.cross_entropy(student[v] / 0.1, torch.softmax((teacher[t] - center) / 0.05, dim=-1))
        for t in range(2)
        for v in range(5)
        if t != v
    ]
    loss = losses.dino(student, teacher, student_temperature=0.1, teacher_temperature=0.05, center=center)
    torch.testing.assert_close(loss, sum(terms) / len(terms))


def test_no_gradient_reaches_the_teacher(seeded):
    student, teacher = seeded.normal(1, 3, 6, 10).requires_grad_(), seeded.normal(2, 2, 6, 10).requires_grad_()
    options = {"student_temperature": 0.1, "teacher_temperature": 0.04, "center": torch.zeros(10)}
    loss = losses.dino(student, teacher, **options)
    loss = loss + losses.disentanglement(student[0], teacher[0], teacher[1], torch.full((6,), 0.3), **options)
    loss.backward()
    assert student.grad is not None and teacher.grad is None


def test_alpha_is_the_share_of_the_first_source(seeded):
    student, first, second, center = (seeded.normal(i, 6, 10) for i in range(4))
    center = center[0]

    def loss(alpha):
        return losses.disentanglement(
            student, first, second, torch.full((6,), alpha), center=center, student_temperature=0.1,
            teacher_temperature=0.04,
        )  # fmt: skip

    def toward(teacher):
        return functional.cross_entropy(student / 0.1, torch.softmax((teacher - center) / 0.04, dim=-1))

    torch.testing.assert_close(loss(1.0), toward(first))
    torch.testing.assert_close(loss(0.0), toward(second))
    torch.testing.assert_close(loss(0.25), toward(0.25 * first + 0.75 * second))


def test_half_precision_is_computed_in_float32(unit):
    query, positive, negatives = (unit(i, 6, 64).bfloat16() for i in range(3))
    exact = losses.info_nce(query.double(), positive.double(), negatives.double(), temperature=0.2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = losses.info_nce(query, positive, negatives, temperature=0.2)
    assert loss.item() == pytest.approx(exact.item(), abs=1e-5)


def test_negative_cosine_does_not_depend_on_length(seeded):
    first, second = seeded.normal(1, 6, 5), seeded.normal(2, 6, 5)
    torch.testing.assert_close(losses.negative_cosine(3 * first, 0.1 * second), losses.negative_cosine(first, second))
    assert losses.negative_cosine(first, 2 * first).item() == pytest.approx(-1)
