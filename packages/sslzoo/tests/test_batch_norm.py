import pytest
import timm
import torch
from torch import nn

from sslzoo import SynchronisedBatchNorm, synchronise_batch_norm


def test_one_process_is_exactly_torchs_batch_norm(seeded):
    theirs = nn.BatchNorm2d(3)
    ours = synchronise_batch_norm(nn.Sequential(nn.BatchNorm2d(3)))
    images = seeded.normal(0, 4, 3, 5, 5)
    assert torch.equal(theirs(images), ours(images))
    assert torch.equal(theirs.running_var, ours[0].running_var)
    assert torch.equal(theirs.eval()(images), ours.eval()(images))


def test_parameters_names_and_modes_stay(build):
    method = build("simsiam")
    names, parameters = list(method.state_dict()), [id(p) for p in method.parameters()]
    method.encoder.backbone.eval()
    synchronise_batch_norm(method)
    assert list(method.state_dict()) == names
    assert [id(p) for p in method.parameters()] == parameters
    norms = [m for m in method.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) > 5 and all(isinstance(m, SynchronisedBatchNorm) for m in norms)
    assert not method.encoder.backbone.bn1.training and method.predictor[1].training


def test_a_norm_with_an_activation_inside_is_refused():
    with pytest.raises(ValueError, match="BatchNormAct2d cannot be synchronised on a CPU"):
        synchronise_batch_norm(timm.create_model("mobilenetv3_small_050"))
