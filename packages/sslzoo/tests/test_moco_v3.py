"""MoCo v3 beside facebookresearch/moco-v3@c349e6e, run on the same weights and images with timm 0.4.9."""

import math

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch.nn import functional

from genviews_core.backbones.moco_vit import create_moco_vit, sincos_positions
from sslzoo import apply_schedule, build_optimizer, create_backbone, load_backbone, save_backbone
from sslzoo.ema import ema_update
from sslzoo.methods import MoCoV3

SMALL_VIT = {"image_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4}


def norm(tensors) -> float:
    return torch.stack([tensor.detach().norm() for tensor in tensors if tensor is not None]).norm().item()


def gradient_norm(module) -> float:
    return norm(parameter.grad for parameter in module.parameters())


# main_moco.py and moco/builder.py, three steps of three epochs without warm-up, --moco-m=.9 --moco-m-cos. Each row:
# loss; norms of the gradients of query network and predictor; norms of query network, predictor and key network.
STEPS = {
    ("resnet", "lars", torch.float64): [
        (8.417782581014801, 18.363683145178463, 5.798205425165744,
         31.417377645602095, 7.890961340205597, 31.414010838185575),
        (8.269765409882853, 15.990000808239166, 5.5769572442577084,
         31.425227685504893, 7.893064969765909, 31.41402986120281),
        (8.61189395621686, 18.882110447175084, 6.00315456831277,
         31.42909092260838, 7.894130198478438, 31.414049837797872),
    ],
    ("resnet", "lars", torch.float32): [
        (8.471927642822266, 15.772997856140137, 5.202572345733643,
         31.507089614868164, 8.046733856201172, 31.504220962524414),
        (8.154266357421875, 12.524763107299805, 5.240753650665283,
         31.51310157775879, 8.04910659790039, 31.504240036010742),
        (8.617011070251465, 14.917261123657227, 4.7248921394348145,
         31.515871047973633, 8.050278663635254, 31.5042667388916),
    ],
    ("vit", "adamw", torch.float64): [
        (2.4534765663225384, 20.048610039215664, 9.516958378219524,
         65.76135989628513, 8.170356322412955, 65.76419118202861),
        (2.1125003430295957, 19.54285136967331, 8.515881708105956,
         65.75989837441355, 8.169509062830171, 65.76394731366044),
        (2.574642204246694, 28.000459937069646, 11.593472531539183,
         65.75939799225371, 8.169273225769569, 65.76382678713735),
    ],
    # Not AdamW: a key's bias has no gradient but for rounding, of which AdamW makes whole steps.
    ("vit", "lars", torch.float32): [
        (2.1356310844421387, 24.30696678161621, 11.70964527130127,
         66.12129211425781, 8.162518501281738, 66.12184143066406),
        (2.7103590965270996, 17.923622131347656, 9.60465145111084,
         66.1215591430664, 8.162735939025879, 66.12179565429688),
        (2.4867281913757324, 23.651853561401367, 10.493179321289062,
         66.12154388427734, 8.162843704223633, 66.12178802490234),
    ],
}  # fmt: skip
VIT_HEADS = {"projector_layers": 3, "predictor_norm": True, "temperature": 0.2}


def built(kind: str, optimizer: str, dtype: torch.dtype, seeded):
    """The method with the official run's weights, its optimizer and peak rate."""
    if kind == "resnet":
        backbone, heads = create_backbone("resnet10", cifar_stem=True, width=8), {}
    else:
        backbone, heads = create_backbone("moco_vit_small", **SMALL_VIT), VIT_HEADS
    method = MoCoV3(backbone, projection_dim=16, hidden_dim=32, momentum=0.9, **heads).to(dtype)
    if kind == "vit":
        fill_patch_embed(method.backbone, dtype, seeded)
    seeded.fill(method, dtype)
    ema_update(method.key, method.query, momentum=0.0)
    rate = {("resnet", "lars"): 0.6, ("vit", "lars"): 0.1, ("vit", "adamw"): 1e-3}[kind, optimizer]
    if optimizer == "lars":
        return method, build_optimizer("lars", method, lr=rate, weight_decay=1e-6), rate
    return method, build_optimizer("adamw", method, lr=rate, weight_decay=0.1, skip_norm_and_bias=False), rate


def fill_patch_embed(vit, dtype, seeded) -> None:
    for i, parameter in enumerate(vit.patch_embed.parameters()):
        parameter.data.copy_(seeded.normal(500 + i, *parameter.shape, dtype=dtype) * 0.5)


@pytest.mark.parametrize("run", STEPS, ids=lambda run: f"{run[0]}-{run[1]}")
def test_three_steps_are_those_of_the_official_code(run, seeded):
    method, optimizer, rate = built(*run, seeded)
    networks, dtype, found = (method.query, method.predictor, method.key), run[2], []
    for step in range(3):
        apply_schedule(optimizer, rate * 0.5 * (1 + math.cos(math.pi * step / 3)))
        loss = method(seeded.views(2, 32, 10 * step, dtype=dtype))["loss"]
        optimizer.zero_grad()
        loss.backward()
        gradients = gradient_norm(method.query), gradient_norm(method.predictor)
        optimizer.step()
        found.append((loss.item(), *gradients, *(norm(network.parameters()) for network in networks)))
        method.after_step((step + 1) / 3)
    tolerance = 1e-8 if dtype == torch.float64 else 1e-5 if run[0] == "resnet" else 5e-5  # other attention kernels
    for row, expected in zip(found, STEPS[run], strict=True):
        assert row == pytest.approx(expected, rel=tolerance)


def test_the_loss_is_the_cross_entropy_it_says(build, seeded):
    method, views = build("moco_v3").eval(), seeded.views(2, 16, 0)
    queries = [functional.normalize(method.predictor(method.query(view)), dim=1) for view in views]
    keys = [functional.normalize(method.key(view), dim=1) for view in views]
    weights, terms = torch.linspace(0, 2, 8), []
    for query, key in (queries[0], keys[1]), (queries[1], keys[0]):
        for i in range(8):
            likeness = torch.exp(query[i] @ key.T / method.temperature)
            terms.append(-weights[i] * torch.log(likeness[i] / likeness.sum()) * 2 * method.temperature / 8)
    torch.testing.assert_close(method(views, weights)["loss"], sum(terms))


def test_the_key_network_follows_along_a_cosine(build):
    method = build("moco_v3")
    with torch.no_grad():
        for parameter in method.query.parameters():
            parameter.add_(1.0)
    before = [parameter.clone() for parameter in method.key.parameters()]
    method.after_step(0.5)
    for old, new in zip(before, method.key.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.05)  # momentum 0.9 is 0.95 half way
    halfway = [parameter.clone() for parameter in method.key.parameters()]
    method.after_step(1.0)
    assert all(torch.equal(old, new) for old, new in zip(halfway, method.key.parameters(), strict=True))


def test_vits_features_are_the_official_ones(seeded):
    """vits.py vit_small on 224 px, weights from the seeds."""
    vit = create_backbone("moco_vit_small").eval()
    seeded.fill(vit, torch.float32)
    fill_patch_embed(vit, torch.float32, seeded)
    with torch.no_grad():
        features = vit(seeded.normal(7, 2, 3, 224, 224))
    first = [[0.9615316390991211, 1.7302762269973755, 1.029908299446106],
             [0.8828609585762024, 1.6736449003219604, 1.1665898561477661]]  # fmt: skip
    torch.testing.assert_close(features[:, :3], torch.tensor(first), rtol=0, atol=1e-5)
    assert features.square().sum().item() == pytest.approx(1529.271240234375, rel=1e-5)


def test_positions_tell_row_and_column():
    """Half of the dimensions for each; vits.py's numbers for patch (7, 1) of 14 x 14, dimensions 0, 97, 194, 291."""
    positions = sincos_positions(14, 14, 384)
    official = [0.6569865942001343, 0.9970800876617432, 0.7348219752311707, 0.7317609786987305]
    assert positions[99, ::97].tolist() == pytest.approx(official, abs=1e-6)
    oblong = sincos_positions(3, 5, 16).unflatten(0, (3, 5))
    assert torch.equal(oblong[:, :, :8], oblong[:, :1, :8].expand(-1, 5, -1))
    assert torch.equal(oblong[:, :, 8:], oblong[:1, :, 8:].expand(3, -1, -1))
    assert len(oblong.flatten(0, 1).unique(dim=0)) == 15


def test_vits_initialisation_and_what_is_frozen():
    vit = create_moco_vit("moco_vit_small", **SMALL_VIT)
    frozen = [name for name, parameter in vit.named_parameters() if not parameter.requires_grad]
    assert frozen == ["pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"]
    thawed = create_moco_vit("moco_vit_small", freeze_patch_embed=False, **SMALL_VIT)
    assert thawed.patch_embed.proj.weight.requires_grad and not thawed.pos_embed.requires_grad
    bounds = {  # sqrt(6 / (fan in + fan out)); query, key and value each have 48 outputs
        "blocks.0.attn.qkv": (6 / (48 + 48)) ** 0.5,
        "blocks.1.mlp.fc1": (6 / (48 + 192)) ** 0.5,
        "patch_embed.proj": (6 / (3 * 8 * 8 + 48)) ** 0.5,
    }
    for name, bound in bounds.items():
        layer = vit.get_submodule(name)
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        assert not layer.bias.any()
    assert 0 < vit.cls_token.abs().max() < 1e-5


def test_a_vit_is_exported_under_timms_names(tmp_path, seeded):
    architecture = {"name": "moco_vit_small", **SMALL_VIT}
    method = MoCoV3(create_backbone(**architecture), projection_dim=8, hidden_dim=16, **VIT_HEADS)
    description = {"method": "MoCo v3", "recipe": {}, "epoch": 1, "data": "noise"}
    save_backbone(tmp_path, method.backbone, architecture=architecture, **description)
    plain = timm.create_model("vit_small_patch16_224", num_classes=0, img_size=32, patch_size=8, embed_dim=48, depth=2,
                              num_heads=4)  # fmt: skip
    plain.load_state_dict(load_file(tmp_path / "backbone.safetensors"))
    images = seeded.normal(0, 2, 3, 32, 32)
    assert torch.equal(plain.eval()(images), load_backbone(tmp_path)(images))


def test_a_vit_has_no_cifar_stem():
    with pytest.raises(ValueError, match="moco_vit_small has its own stem"):
        create_backbone("moco_vit_small", cifar_stem=True)


def test_defaults_are_the_published_ones():
    class Flat(torch.nn.Flatten):
        num_features = 8

    resnet, vit = MoCoV3(Flat()), MoCoV3(Flat(), **VIT_HEADS)
    assert [layer.weight.shape for layer in resnet.query.head[::3]] == [(4096, 8), (256, 4096)]
    assert not resnet.query.head[-1].affine and len(resnet.predictor) == 4
    assert [layer.weight.shape for layer in vit.query.head[::3]] == [(4096, 8), (4096, 4096), (256, 4096)]
    assert not vit.predictor[-1].affine and len(vit.predictor) == 5
    assert (resnet.temperature, resnet.momenta) == (1.0, (0.99, 1.0))
