import pytest
import torch

from sslzoo import create_backbone, load_backbone, save_backbone
from sslzoo.ema import ema_copy
from sslzoo.methods import DINO, GenDINO, Interpolated, MoCoV2, SimSiam
from sslzoo.queue import Queue
from sslzoo.statistics import embedding_std


def same(first: dict, second: dict) -> bool:
    return all(torch.equal(first[k], second[k]) if torch.is_tensor(first[k]) else first[k] == second[k] for k in first)


def test_no_weights_is_weights_of_one_to_the_bit(method_name, build, call):
    outputs, gradients = [], []
    for weights in (None, torch.ones(8)):
        method = build(method_name)
        output = call(method, 0, weights)
        output["loss"].backward()
        outputs.append(output)
        gradients.append({n: p.grad for n, p in method.named_parameters() if p.grad is not None})
    assert same(*outputs)
    assert same(*gradients)


def test_weights_change_the_loss_and_zero_silences_it(method_name, build, call):
    losses = [call(build(method_name), 0, w)["loss"] for w in (None, torch.linspace(0, 2, 8), torch.zeros(8))]
    assert losses[1] != losses[0]
    assert losses[2] == 0 or method_name in ("vicreg", "barlow_twins")  # the statistics of their batch remain


def test_training_lowers_the_loss_on_one_batch(method_name, build, call):
    method = build(method_name)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.05, momentum=0.9)
    losses = []
    for _ in range(12):
        loss = call(method, 0)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_the_exported_backbone_sees_images(method_name, build, seeded):
    backbone = build(method_name).backbone
    assert backbone(seeded.normal(0, 2, 3, 16, 16)).shape == (2, 32)


def test_evaluation_leaves_no_trace(method_name, build, call):
    method = build(method_name).eval()
    before = {k: v.clone() if torch.is_tensor(v) else v for k, v in method.state_dict().items()}
    with torch.no_grad():
        call(method, 0)
    method.after_step(0.0)
    after = method.state_dict()
    changed = [k for k in before if torch.is_tensor(before[k]) and not torch.allclose(before[k], after[k])]
    assert changed == []


@pytest.mark.parametrize("name", ["simsiam", "moco_v2"])
def test_two_views_are_asked_for(name, build, seeded):
    with pytest.raises(ValueError, match=r"expected 2 views of each image .*, got 3"):
        build(name)(seeded.views(3, 16, 0))


def test_dino_asks_for_two_global_views(build, seeded):
    with pytest.raises(ValueError, match="expected at least 2 views for DINO"):
        build("dino")(seeded.views(1, 16, 0))


def test_simsiams_projection_has_no_gradient_without_predictor(seeded, build):
    """Stop-gradient: the loss reaches the encoder through the predictor alone."""
    method = build("simsiam")
    method.predictor[-1].weight.data.zero_()
    method(seeded.views(2, 16, 0))["loss"].backward()
    assert all(not parameter.grad.any() for parameter in method.encoder.parameters())


def test_spread_tells_collapse():
    generator = torch.Generator().manual_seed(0)
    sphere = torch.randn(4096, 32, generator=generator)
    assert embedding_std(sphere).item() == pytest.approx(1, abs=0.01)
    assert embedding_std(sphere[:1].expand(64, -1)).item() == pytest.approx(0, abs=1e-6)


def test_information_tells_both_collapses(build):
    from sslzoo.methods.dino import assignment_statistics

    alike = torch.zeros(2, 8, 8)
    alike[..., 3] = 1
    assert assignment_statistics(alike)["information"].item() == pytest.approx(0, abs=1e-6)
    assert assignment_statistics(torch.full((2, 8, 8), 1 / 8))["information"].item() == pytest.approx(0, abs=1e-6)
    apart = torch.eye(8).expand(2, 8, 8)
    assert assignment_statistics(apart)["information"].item() == pytest.approx(torch.tensor(8.0).log().item())


def test_moco_moves_key_encoder_and_queue_only_after_the_step(build, seeded):
    method = build("moco_v2")
    queue = method.queue.keys.clone()
    views = seeded.views(2, 16, 0)
    method(views)
    assert torch.equal(method.queue.keys, queue)
    keys = torch.nn.functional.normalize(build("moco_v2").key(views[1]), dim=1)
    with torch.no_grad():
        for parameter in method.query.parameters():
            parameter.add_(1.0)
    before = [p.clone() for p in method.key.parameters()]
    method.after_step(0.1)
    torch.testing.assert_close(method.queue.keys[:8], keys)
    assert torch.equal(method.queue.keys[8:], queue[8:])
    for old, new in zip(before, method.key.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.1)


@pytest.mark.parametrize("batches", [[3, 3, 3, 3], [7, 2, 5], [8, 8], [20], [5, 17, 4]])
def test_queue_keeps_the_newest_for_any_batch(batches):
    """Beside a plain list that grows, of which the last seven count; a batch may exceed the queue."""
    queue, history, value = Queue(7, 2), [], 0
    for size in batches:
        keys = torch.arange(value, value + size).float()[:, None].expand(-1, 2)
        value += size
        queue.enqueue(keys)
        history += keys[:, 0].tolist()
    assert sorted(queue.keys[:, 0].tolist()[: min(7, len(history))]) == history[-7:]
    assert queue.ptr.item() == len(history) % 7


def test_dino_sees_local_views_with_the_student_only(build, seeded):
    method, seen = build("dino"), []
    method.teacher.backbone.register_forward_hook(lambda _, images, __: seen.append(images[0].shape))
    method(seeded.views(2, 16, 0) + seeded.views(3, 12, 5))
    assert seen == [(16, 3, 16, 16)]


def test_dinos_grouping_of_views_does_not_change_a_network_without_batch_norm(seeded):
    options = {"img_size": 16, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2, "dynamic_img_size": True}
    backbone = create_backbone("timm/vit_tiny_patch16_224", **options)
    method = DINO(backbone, out_dim=24, hidden_dim=16, bottleneck_dim=8)
    views = seeded.views(2, 16, 0) + seeded.views(2, 8, 5)
    from sslzoo.methods.dino import encode_views

    together = encode_views(method.student, views)
    for view, output in zip(views, together, strict=True):
        torch.testing.assert_close(method.student(view), output)
    method(views)["loss"].backward()
    assert all(p.grad is not None for p in method.student.parameters())


def test_the_teacher_drops_nothing():
    backbone = create_backbone("timm/vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=24, depth=2,
                               num_heads=2, drop_path_rate=0.9, proj_drop_rate=0.5)  # fmt: skip
    teacher = ema_copy(backbone).train()
    images = torch.ones(4, 3, 16, 16)
    assert torch.equal(teacher(images), teacher(images))
    assert not torch.equal(backbone(images), backbone(images))


def test_gen_dino_without_interpolated_views_is_dino(build, seeded):
    views = seeded.views(2, 16, 0)
    gen = build("gen_dino")
    plain = build("dino")
    assert same(plain(views), gen(views))
    plain.after_step(0.5)
    gen.after_step(0.5)
    assert same(plain.state_dict(), gen.state_dict())


def test_rows_without_an_interpolated_image_are_of_no_account(build, seeded):
    """In evaluation mode, where batch norm does not mix samples."""
    method, views, given = build("gen_dino").eval(), seeded.views(2, 16, 0), seeded.interpolated(20)
    other = Interpolated(
        view=torch.where(given.exists[:, None, None, None], given.view, 7.0),
        partner=torch.where(given.exists[:, None, None, None], given.partner, -7.0),
        alpha=torch.where(given.exists, given.alpha, 0.5),
        exists=given.exists,
    )
    torch.testing.assert_close(method(views, None, given)["loss"], method(views, None, other)["loss"])
    none = Interpolated(view=given.view, partner=given.partner, alpha=given.alpha, exists=torch.zeros(8).bool())
    assert method(views, None, none)["loss"] == method(views)["loss"]


def test_gen_dinos_first_source_is_the_first_view(build, seeded):
    """With alpha 1 the partner does not matter; with alpha 0 it does."""
    method, views = build("gen_dino").eval(), seeded.views(2, 16, 0)
    view, partner, other = seeded.views(3, 16, 30)

    def term(partner, alpha):
        given = Interpolated(view=view, partner=partner, alpha=torch.full((8,), alpha), exists=torch.ones(8).bool())
        return method(views, None, given)["disentanglement"]

    torch.testing.assert_close(term(partner, 1.0), term(other, 1.0))
    assert term(partner, 0.0) != term(other, 0.0)


def test_half_precision_training_is_close_to_full(method_name, build, call):
    full = call(build(method_name), 0)["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = call(build(method_name), 0)["loss"]
    half.backward()
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(full.item(), rel=0.05, abs=0.05)


def test_defaults_are_the_published_ones():
    class Flat(torch.nn.Flatten):
        num_features = 8

    simsiam, moco = SimSiam(Flat()), MoCoV2(Flat())
    assert simsiam.predictor[0].weight.shape == (512, 2048)
    assert (moco.queue.keys.shape, moco.momentum, moco.temperature) == ((65536, 128), 0.999, 0.2)
    gen = GenDINO(Flat())
    assert gen.student.head.prototypes.direction.shape == (65536, 256)
    assert (gen.momentum, gen.center_momentum, gen.student_temperature, gen.teacher_temperature) == (
        0.996, 0.9, 0.1, 0.04,
    )  # fmt: skip


def test_loaded_backbone_is_put_into_training_mode(method_name, build, call, tmp_path):
    """load_backbone returns evaluation mode; a method in training mode has all modules in training mode."""
    architecture = {"name": "resnet10", "cifar_stem": True, "width": 4}
    about = {"architecture": architecture, "method": "DINO", "recipe": {}, "epoch": 1, "data": "noise"}
    save_backbone(tmp_path, create_backbone(**architecture), **about)
    method = build(method_name, backbone=load_backbone(tmp_path))
    assert all(module.training for module in method.modules())
    before = method.backbone.bn1.running_mean.clone()
    call(method, 0)
    assert not torch.equal(method.backbone.bn1.running_mean, before)
