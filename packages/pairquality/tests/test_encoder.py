import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate
from torch.nn.parallel import DistributedDataParallel

from genviews_core.distributed import destroy_process_group
from pairquality import FeatureEncoder, denormalize
from pairquality.encoder import IMAGENET_MEAN, IMAGENET_STD


def network() -> nn.Module:
    """Its output changes in training: batch norm and dropout."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.Conv2d(8, 6, 3, 2, 1))


def encoder(**options) -> FeatureEncoder:
    return FeatureEncoder(network(), 16, name="small", **options)


def images(count: int = 3, size: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


class Model(nn.Module):
    """What a training loop has: a network that learns, and a frozen encoder beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.learner = nn.Linear(6, 2)
        self.encoder = encoder()

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.learner(self.encoder(batch).mean(dim=1))


def test_tokens_are_the_networks_map_of_normalised_images_row_by_row():
    alone = network().eval()
    mean, std = (torch.tensor(triple).view(3, 1, 1) for triple in (IMAGENET_MEAN, IMAGENET_STD))
    expected = alone((images() - mean) / std)
    found = encoder()(images())
    assert found.shape == (3, 16, 6) and found.dtype == torch.float32 and encoder().grid == (4, 4)
    torch.testing.assert_close(found.view(3, 4, 4, 6).permute(0, 3, 1, 2), expected)


def test_bytes_views_and_other_sizes():
    levels = (images() * 255).round().byte()
    torch.testing.assert_close(encoder()(levels), encoder()(levels / 255))
    views = (images() - torch.tensor(IMAGENET_MEAN).view(3, 1, 1)) / torch.tensor(IMAGENET_STD).view(3, 1, 1)
    torch.testing.assert_close(denormalize(views, IMAGENET_MEAN, IMAGENET_STD), images())
    large = images(size=24)
    small = interpolate(large, (16, 16), mode="bicubic", antialias=True).clamp(0, 1)
    torch.testing.assert_close(encoder()(large), encoder()(small))


def test_it_stays_frozen_whatever_is_done_to_the_model_around_it():
    model, expected = Model(), encoder()(images())
    model.train()
    model.encoder.train()
    model.encoder.network.train()
    assert not model.encoder.training
    nn.SyncBatchNorm.convert_sync_batchnorm(model)
    model.apply(lambda module: module.reset_parameters() if hasattr(module, "reset_parameters") else None)
    model(images()).sum().backward()
    torch.optim.SGD(model.parameters(), lr=1.0, weight_decay=0.5).step()
    assert torch.equal(model.encoder(images()), expected)
    assert not model.encoder.network.training
    assert all(not p.requires_grad and p.grad is None for p in model.encoder.network.parameters())
    assert not model.encoder(images().requires_grad_()).requires_grad


def test_no_checkpoint_holds_it():
    model = Model()
    assert set(model.state_dict()) == {"learner.weight", "learner.bias"} and not model.encoder.state_dict()
    assert [name for name, _ in model.named_parameters()] == ["learner.weight", "learner.bias"]
    model.load_state_dict(Model().state_dict(), strict=True)


def test_copies_and_ddp(tmp_path):
    model = Model()
    copied = copy.deepcopy(model)
    assert torch.equal(copied.encoder(images()), model.encoder(images()))
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(copied).train()
        wrapped(images()).sum().backward()
        assert copied.learner.weight.grad is not None and torch.equal(copied.encoder(images()), model.encoder(images()))
    finally:
        destroy_process_group()


def test_it_takes_a_copy_and_leaves_the_callers_network_alone():
    mine = network().train()
    frozen = FeatureEncoder(mine, 16)
    frozen(images())
    assert mine.training and all(parameter.requires_grad for parameter in mine.parameters())
    expected = frozen(images())
    with torch.no_grad():
        for parameter in mine.parameters():
            parameter.zero_()
    assert torch.equal(frozen(images()), expected)


def test_it_follows_a_move_and_computes_in_the_type_asked_for_alone():
    model = Model().to("meta")
    assert model.encoder.mean.is_meta and all(p.is_meta for p in model.encoder.network.parameters())
    exact = encoder()(images())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder()(images()), exact)
    rough = encoder(autocast=torch.bfloat16)(images())
    assert rough.dtype == torch.float32 and 0 < float((rough - exact).abs().max()) < 0.1
    assert encoder().double()(images()).dtype == torch.float32


def test_the_hash_tells_weights_and_normalisation():
    other = network()
    with torch.no_grad():
        other[1].running_mean[0] += 1e-6
    hashes = {encoder().hash, FeatureEncoder(other, 16).hash, FeatureEncoder(network(), 16, (0.5, 0.5, 0.5)).hash}
    assert len(hashes) == 3 and FeatureEncoder(network(), 32, name="same").hash == encoder().hash


def test_own_features_are_taken_and_others_refused():
    def first(module: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        return module[0](batch)

    assert encoder(take_map=first)(images()).shape == (3, 64, 8)
    for take_map, message in (
        (lambda module, batch: module(batch).mean(dim=(2, 3)), r"expected a map or tokens .* got \(3, 6\)"),
        (
            lambda module, batch: module(batch).flatten(2).transpose(1, 2)[:, 1:],
            "square grid of tokens .* got 15",
        ),
        (lambda module, batch: [module(batch)], "got list"),
    ):
        with pytest.raises(ValueError, match=message):
            encoder(take_map=take_map)(images())
