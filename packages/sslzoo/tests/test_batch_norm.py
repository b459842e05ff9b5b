import pytest
import timm
import torch
from torch import nn

from sslzoo import CPUSyncBatchNorm, convert_sync_batchnorm
from sslzoo.batch_norm import SplitBatchNorm, split_batch_norm
from sslzoo.methods import MoCoV2


def test_one_process_is_exactly_torchs_batch_norm(seeded):
    theirs = nn.BatchNorm2d(3)
    ours = convert_sync_batchnorm(nn.Sequential(nn.BatchNorm2d(3)))
    images = seeded.normal(0, 4, 3, 5, 5)
    assert torch.equal(theirs(images), ours(images))
    assert torch.equal(theirs.running_var, ours[0].running_var)
    assert torch.equal(theirs.eval()(images), ours.eval()(images))


def test_parameters_names_and_modes_stay(build):
    method = build("simsiam")
    names, parameters = list(method.state_dict()), [id(p) for p in method.parameters()]
    method.encoder.backbone.eval()
    convert_sync_batchnorm(method)
    assert list(method.state_dict()) == names
    assert [id(p) for p in method.parameters()] == parameters
    norms = [m for m in method.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) > 5 and all(isinstance(m, CPUSyncBatchNorm) for m in norms)
    assert not method.encoder.backbone.bn1.training and method.predictor[1].training


def test_a_norm_with_an_activation_inside_is_refused():
    with pytest.raises(ValueError, match="synchronization on a CPU, got BatchNormAct2d"):
        convert_sync_batchnorm(timm.create_model("mobilenetv3_small_050"))


@pytest.mark.parametrize("make", [nn.BatchNorm2d, timm.layers.BatchNormAct2d])
def test_split_batch_norm_normalizes_each_part(seeded, make):
    theirs = make(3).train()
    ours = split_batch_norm(nn.Sequential(make(3)), 4)[0]
    images = seeded.normal(0, 8, 3, 5, 5)
    found = ours(images)
    parts, statistics = [], []
    for rows in images.chunk(4):
        alone = make(3).train()
        parts.append(alone(rows))
        statistics.append(torch.stack([alone.running_mean, alone.running_var]))
    torch.testing.assert_close(found, torch.cat(parts))
    torch.testing.assert_close(torch.stack([ours.running_mean, ours.running_var]), torch.stack(statistics).mean(0))
    assert not torch.allclose(found, theirs(images), atol=0.01)
    theirs.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))


def test_split_batch_norm_has_gradients_and_supports_small_batches(seeded):
    norm = split_batch_norm(nn.BatchNorm2d(3), 8)
    for count, parts in ((3, 1), (5, 2), (16, 8)):
        images = seeded.normal(0, count, 3, 4, 4).requires_grad_()
        found = norm(images)
        means = torch.stack([part.mean((0, 2, 3)) for part in found.tensor_split(parts)])
        torch.testing.assert_close(means, torch.zeros(parts, 3), rtol=0, atol=1e-6)
        found.square().mean().backward()
        assert images.grad is not None and images.grad.isfinite().all()


def test_moco_v2_keeps_batch_norm_per_rank_and_parameter_names(build):
    plain = build("moco_v2")
    method = MoCoV2(build("simsiam").backbone, projection_dim=8, queue_size=20, momentum=0.9, splits=2)
    assert list(method.state_dict()) == list(plain.state_dict())
    assert convert_sync_batchnorm(method) is method
    norms = [part for part in method.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    assert norms and all(type(norm) is SplitBatchNorm for norm in norms)
    with pytest.raises(ValueError, match="expected splits of 1 or more, got 0"):
        MoCoV2(build("simsiam").backbone, splits=0)


def test_moco_v2_keys_and_queries_have_different_statistics(build, seeded):
    """Shuffling does not change the keys with one batch norm, and changes them with split batch norm."""
    backbone = build("simsiam").backbone
    found = {}
    for splits in (1, 4):
        for shuffle in (False, True):
            torch.manual_seed(0)
            method = MoCoV2(backbone if splits == 1 else build("simsiam").backbone, projection_dim=8, splits=splits,
                            queue_size=8, shuffle=shuffle)  # fmt: skip
            seeded.fill(method, torch.float32)
            seeded.fill(method.key.requires_grad_(True), torch.float32)
            found[splits, shuffle] = method._keys(seeded.views(1, 16, 0)[0])
    torch.testing.assert_close(found[1, False], found[1, True])
    assert (found[4, False] - found[4, True]).abs().max() > 0.01
