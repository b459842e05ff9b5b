import pytest
import torch
from jaxtyping import TypeCheckError

from ssl_eval import class_agreement, far_agreement


def test_share_and_standard_error():
    torch.manual_seed(0)
    predicted, source = torch.randint(4, (2, 500))
    hits = [float(guess == truth) for guess, truth in zip(predicted.tolist(), source.tolist(), strict=True)]
    found = class_agreement(predicted, source)
    assert found.share == pytest.approx(100 * sum(hits) / 500) and found.count == 500
    assert found.error == pytest.approx(100 * torch.tensor(hits).std(correction=0).item() / 500**0.5, rel=1e-5)


def test_far_agreement_is_at_chance_and_never_compares_an_image_with_itself():
    source = torch.arange(10).repeat_interleave(500)
    assert class_agreement(source, source).share == 100
    assert far_agreement(source, source).share == pytest.approx(10, abs=1.5)
    one_each = torch.arange(7)
    assert all(far_agreement(one_each, one_each, seed=seed).share == 0 for seed in range(20))


def test_invalid_inputs_are_rejected():
    with pytest.raises(ValueError, match="at least one view"):
        class_agreement(torch.zeros(0).long(), torch.zeros(0).long())
    mismatch = r"got 2 and 3|i64\[3\]"  # the second where shapes are checked at run time
    with pytest.raises((ValueError, TypeCheckError), match=mismatch):
        class_agreement(torch.zeros(2).long(), torch.zeros(3).long())
    with pytest.raises(ValueError, match="two images or more"):
        far_agreement(torch.zeros(1).long(), torch.zeros(1).long())
