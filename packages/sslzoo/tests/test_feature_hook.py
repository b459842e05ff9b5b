import pytest
import torch

from sslzoo import FeatureHook, PairFeatureHook, create_backbone
from sslzoo.methods import MoCoV2

VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}


@pytest.mark.parametrize(
    ("name", "options", "size", "shape"),
    [
        ("resnet10", {"cifar_stem": True, "width": 4}, 16, (2, 4, 32)),
        ("resnet18", {"cifar_stem": True}, 16, (2, 4, 512)),
        ("timm/resnet10t", {}, 16, (2, 1, 512)),
        ("timm/convnext_atto", {}, 32, (2, 1, 320)),
        ("timm/vit_tiny_patch16_224", VIT, 16, (2, 16, 24)),
    ],
)
def test_the_mean_of_the_last_map_is_what_the_backbone_gives(name, options, size, shape, seeded):
    backbone = create_backbone(name, **options).eval()
    tap, images = FeatureHook(backbone), seeded.normal(0, 2, 3, size, size)
    features = backbone(images)
    [tokens] = tap.pop()
    assert tokens.shape == shape and not tokens.requires_grad and tap.pop() == []
    if "resnet" in name:
        torch.testing.assert_close(tokens.mean(dim=1), features)


def test_tokens_go_row_by_row(seeded):
    backbone = create_backbone("resnet10", cifar_stem=True, width=4).eval()
    tap, images = FeatureHook(backbone, "layer3"), seeded.normal(0, 1, 3, 16, 16)
    with torch.no_grad():
        stem = backbone.maxpool(backbone.relu(backbone.bn1(backbone.conv1(images))))
        expected = backbone.layer3(backbone.layer2(backbone.layer1(stem)))
        backbone(images)
    torch.testing.assert_close(tap.pop()[0][0, 4 * 1 + 2], expected[0, :, 1, 2])


def test_every_method_shows_the_maps_of_both_views(method_name, build, call, seeded):
    """In evaluation mode, where one view's map does not depend on the other."""
    method = build(method_name).eval()
    tap, taken = PairFeatureHook(method), []

    def weights():
        taken.extend(tap.pop())
        return torch.ones(8)

    with torch.no_grad():
        call(method, 0, weights)
        tap.clear()
        views, networks = seeded.views(2, 16, 0), method.pair_backbones
        for view, network, tokens in zip(views, networks, taken, strict=True):
            torch.testing.assert_close(tokens.mean(dim=1), network(view))
    tap.close()


def test_called_weights_are_given_weights(method_name, build, call):
    """Loss and gradients, to the bit; called once."""
    weights, losses, gradients, calls = torch.linspace(0, 2, 8), [], [], []

    def give():
        calls.append(1)
        return weights

    for each in (weights, give):
        method = build(method_name)
        losses.append(call(method, 0, each)["loss"])
        losses[-1].backward()
        gradients.append([p.grad for p in method.parameters() if p.grad is not None])
    assert torch.equal(*losses) and len(calls) == 1
    assert all(map(torch.equal, *gradients))


def test_a_tap_survives_compilation(build, seeded):
    method = build("simsiam")
    tap, views, found = PairFeatureHook(method), seeded.views(2, 16, 0), []
    for run in (method, torch.compile(method, backend="aot_eager")):
        tap.clear()
        run(views)["loss"].backward()
        found.append(tap.pop())
    for plain, compiled in zip(*found, strict=True):
        torch.testing.assert_close(plain, compiled)


def test_autocast_keeps_the_maps_type(build, seeded):
    method = build("simsiam")
    tap = PairFeatureHook(method)
    with torch.autocast("cpu", torch.bfloat16):
        method(seeded.views(2, 16, 0))
    assert tap.pop()[0].dtype == torch.bfloat16


def test_a_missing_layer_is_named(build):
    with pytest.raises(ValueError, match=r"no layer layer9; choose one of: conv1, .*layer4, avgpool"):
        FeatureHook(build("simsiam").backbone, "layer9")
    with pytest.raises(ValueError, match="no layer layer4 or stages or norm"):
        FeatureHook(torch.nn.Sequential(torch.nn.Flatten()))


def test_shuffled_key_maps_are_in_the_order_of_the_images(build, seeded):
    """Without batch norm, a map depends only on its image, so shuffling must not change the result."""
    backbone = build("simsiam").backbone
    for name, module in list(backbone.named_modules()):
        if isinstance(module, torch.nn.BatchNorm2d):
            backbone.set_submodule(name, torch.nn.Identity())
    method = MoCoV2(backbone, projection_dim=8, queue_size=8, splits=4)
    tap, views = PairFeatureHook(method), seeded.views(2, 16, 0)
    method(views)
    first, second = tap.pop()
    straight = FeatureHook(method.key.backbone)
    method.key(views[1])
    torch.testing.assert_close(second, straight.pop()[0])
    assert first.shape == second.shape and method.shuffles == 1
