"""`fit` on small methods and noise: resuming, precision, accumulation, diagnostics, messages."""

import os
import signal
import sys
from dataclasses import replace

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from sslzoo import create_backbone, fit, read_log
from sslzoo.methods import BYOL, DINO, GenDINO, Interpolated, SwAV
from sslzoo.training import (
    CollapseDetector,
    TrainConfig,
    TrainingInterrupted,
    TrainingMonitor,
    ViewBatch,
    WandbSink,
    as_view_batch,
    create_state,
    train_step,
)

CONFIG = TrainConfig(epochs=2, lr=0.05, warmup_epochs=0.5, log_every=1, num_classes=3, checkpoint_seconds=1e9)
VIT = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "drop_path_rate": 0.5}


@pytest.fixture
def loader(seeded):
    """Three batches of eight images with labels, in random order."""
    images, labels = seeded.normal(0, 24, 3, 16, 16), torch.arange(24) % 3
    return DataLoader(TensorDataset(images, labels), batch_size=8, shuffle=True)


def make_views_for(method):
    """Noisy copies of the images, by the step's generator and by torch's own; all that the method takes."""

    def make_views(batch, generator: torch.Generator) -> ViewBatch:
        images, labels = batch
        noise = [torch.randn(images.shape, generator=generator) + torch.randn(images.shape) for _ in range(4)]
        views = [images + each for each in noise[:2]]
        if isinstance(method, DINO | SwAV):
            views.append(views[0][:, :, :12, :12])
        inputs = {}
        if isinstance(method, GenDINO):
            alpha, exists = torch.rand(len(images), generator=generator), torch.arange(len(images)) % 3 != 0
            inputs["interpolated"] = Interpolated(view=noise[2], partner=noise[3], alpha=alpha, exists=exists)
        return ViewBatch(views=views, labels=labels, weights=torch.linspace(0.5, 1.5, len(images)), inputs=inputs)

    return make_views


@pytest.fixture
def run(loader, tmp_path):
    def run(method, config=CONFIG, name="run", **options):
        return fit(method, loader, config, out=tmp_path / name, make_views=make_views_for(method), **options)

    return run


def leaves(tree) -> list:
    if isinstance(tree, dict):
        return [leaf for key in sorted(tree, key=str) for leaf in leaves(tree[key])]
    return [leaf for item in tree for leaf in leaves(item)] if isinstance(tree, list | tuple) else [tree]


def identical(first, second) -> bool:
    pairs = list(zip(leaves(first), leaves(second), strict=True))
    return all(torch.equal(a, b) if torch.is_tensor(a) else a == b for a, b in pairs)


class Killed(Exception):
    """Stands for the end of a process without a checkpoint."""


def interrupt(how: str, at: int):
    def on_step(step, total, metrics):
        if step == at and how == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        elif step == at:
            raise Killed

    return on_step


def check_resume(build, run, tmp_path, name, config, how) -> None:
    """Interrupt a run in its second epoch, and resume it with other initial weights."""
    straight = run(build(name, 0), config, "straight")
    config = replace(config, checkpoint_seconds=0.0 if how == "kill" else 1e9)
    with pytest.raises(Killed if how == "kill" else TrainingInterrupted):
        run(build(name, 0), config, "parted", on_step=interrupt(how, 4))
    saved = torch.load(tmp_path / "parted" / "resume.pt", weights_only=True)["step"]
    assert saved == (3 if how == "kill" else 5)  # a killed process had saved the step before
    parted = run(build(name, 1), config, "parted")
    assert straight.step == parted.step == 6
    assert identical(straight.method.state_dict(), parted.method.state_dict())
    assert identical(straight.optimizer.state_dict(), parted.optimizer.state_dict())
    assert identical(straight.scaler.state_dict(), parted.scaler.state_dict())
    assert identical(straight.monitor.probe.state_dict(), parted.monitor.probe.state_dict())
    assert read_log(tmp_path / "straight" / "log.jsonl") == read_log(tmp_path / "parted" / "log.jsonl")


def test_a_killed_run_resumes_to_the_last_bit(method_name, build, run, tmp_path):
    optimizer = {"simsiam": "sgd", "swav": "sgd", "dino": "adamw", "gen_dino": "adamw"}.get(method_name, "lars")
    check_resume(build, run, tmp_path, method_name, replace(CONFIG, optimizer=optimizer), "kill")


@pytest.mark.parametrize("change", [{}, {"precision": "fp16"}, {"accumulation_steps": 2, "precision": "bf16"}])
def test_a_signal_ends_a_step_and_the_run_resumes_to_the_last_bit(change, build, run, tmp_path):
    check_resume(build, run, tmp_path, "dino", replace(CONFIG, optimizer="adamw", lr=1e-3, **change), "signal")


def test_a_finished_run_is_not_trained_again_and_another_configuration_is_rejected(build, run):
    first = run(build("simsiam"))
    messages = []
    again = run(build("simsiam", 1), on_message=messages.append)
    assert identical(first.method.state_dict(), again.method.state_dict())
    assert messages[0].startswith("all 6 steps are already done")
    with pytest.raises(ValueError, match=r"another training; .*lr: 0\.05, 0\.1"):
        run(build("simsiam"), replace(CONFIG, lr=0.1))


def test_a_finished_run_continues_with_more_epochs_and_their_schedules(build, run, tmp_path):
    longer, messages = replace(CONFIG, epochs=3), []
    run(build("simsiam"), longer, "straight")
    run(build("simsiam"))
    state = run(build("simsiam", 1), longer, on_message=messages.append)
    assert "resuming after step 6, with schedules of 3 instead of 2 epochs, 3 steps to go" in messages[0]
    assert (state.step, state.method.progress) == (9, 1.0)
    straight, raised = (
        [(line["step"], line["lr"]) for line in read_log(tmp_path / name / "log.jsonl")] for name in ("straight", "run")
    )
    assert straight[6:] == raised[6:] and straight[:6] != raised[:6]
    with pytest.raises(ValueError, match=r"another training; .*epochs: 3, 2"):
        run(build("simsiam"))


def test_batches_are_sought_by_epoch_and_start_where_that_exists(build, loader, tmp_path):
    asked = []

    class Seekable:
        def __len__(self):
            return 3

        def epoch(self, epoch, start):
            asked.append((epoch, start))
            yield from list(loader)[start:]

    method = build("simsiam")
    with pytest.raises(TrainingInterrupted):
        fit(method, Seekable(), CONFIG, out=tmp_path, make_views=make_views_for(method), on_step=interrupt("signal", 3))
    fit(method, Seekable(), CONFIG, out=tmp_path, make_views=make_views_for(method))
    assert asked == [(0, 0), (1, 0), (1, 1)]


def test_diagnostics_do_not_change_the_weights(build, run, tmp_path):
    plain = run(build("byol"), replace(CONFIG, num_classes=0), "plain")
    config = replace(CONFIG, evaluate_every=1, peak_tflops=1.0)
    watched = run(build("byol"), config, "watched", evaluate=lambda method: {"knn": float(method.progress)})
    assert identical(plain.method.state_dict(), watched.method.state_dict())
    rows = read_log(tmp_path / "watched" / "log.jsonl")
    assert [row.get("knn") for row in rows] == [None, None, 0.5, None, None, 1.0]
    assert all(0 <= row["probe"] <= 100 and 1 < row["effective_rank"] < 32 for row in rows)
    speeds = read_log(tmp_path / "watched" / "speed.jsonl")
    ratios = [row["mfu"] / row["images_per_second"] for row in speeds]
    assert ratios == pytest.approx([ratios[0]] * 6)  # the same operations in every step


def test_probe_learns_labels_that_the_features_show(build):
    method = build("simsiam")
    probe = TrainingMonitor(method, create_state(method, CONFIG).context, num_classes=3).probe
    labels = torch.arange(24) % 3
    features = torch.nn.functional.one_hot(labels, 32).float()
    for _ in range(20):
        probe.step(features, labels)
    probe.pop_accuracy()
    probe.step(features, labels.where(labels > 0, -1))
    assert probe.pop_accuracy() == 100.0


def test_fp16_is_close_to_float32(build, run, tmp_path):
    config = replace(CONFIG, clip_grad_norm=1.0, lr=5e-3)
    run(build("byol"), config, "full")
    run(build("byol"), replace(config, precision="fp16"), "half")
    full, half = (read_log(tmp_path / name / "log.jsonl") for name in ("full", "half"))
    assert [row["loss"] for row in half] == pytest.approx([row["loss"] for row in full], rel=0.02)
    assert half[0]["loss_scale"] > 1 and "loss_scale" not in full[0]


def test_an_overflow_advances_the_schedules_and_nothing_else(build, loader):
    method, config = build("dino"), replace(CONFIG, precision="fp16")
    state = create_state(method, config)
    state.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    method.center.fill_(0.5)
    method.teacher.head.prototypes.direction.data.add_(1.0)
    before = {name: tensor.clone() for name, tensor in method.state_dict().items() if torch.is_tensor(tensor)}
    batch = make_views_for(method)(next(iter(loader)), torch.Generator().manual_seed(0))
    train_step(method, batch, state, config, steps_per_epoch=3)
    after = method.state_dict()
    statistics = ("running", "tracked")  # updated by the forward pass
    assert not [n for n in before if not any(s in n for s in statistics) and not torch.equal(before[n], after[n])]
    assert (state.step, method.progress, method.new_centers) == (1, 1 / 6, [])
    assert (state.scaler.get_scale(), len(state.optimizer.state)) == (2.0**59, 0)


def test_accumulation_steps_sum_to_the_gradient_of_the_batch(loader):
    """In float64, without batch norm."""
    weights = []
    for accumulation_steps in (1, 2, 4):
        torch.manual_seed(0)
        backbone = create_backbone("timm/vit_tiny_patch16_224", **{**VIT, "drop_path_rate": 0.0})
        method = DINO(backbone, out_dim=16, hidden_dim=16, bottleneck_dim=8, freeze_fraction=0.0).double()
        config = replace(CONFIG, accumulation_steps=accumulation_steps)
        state = create_state(method, config)
        for position, (images, labels) in enumerate(loader.dataset[i : i + 8] for i in (0, 8)):
            noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(position))
            views = ViewBatch(views=[images.double(), (images + noise).double()], labels=labels)
            train_step(method, views, state, config, steps_per_epoch=3)
        weights.append(method.state_dict())
    for accumulated in weights[1:]:
        for name, tensor in weights[0].items():
            if torch.is_tensor(tensor):
                torch.testing.assert_close(accumulated[name], tensor, rtol=1e-9, atol=1e-12)


def test_compiled_and_fused_training_is_close_to_plain(build, run, monkeypatch):
    """Also of a run that was interrupted without these options."""
    eager = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: eager(module, backend="eager"))
    plain = run(build("simsiam"), CONFIG, "plain").method.state_dict()
    for change in ({"compile": True}, {"fused": True}):
        with pytest.raises(TrainingInterrupted):
            run(build("simsiam"), CONFIG, str(change), on_step=interrupt("signal", 1))
        faster = run(build("simsiam"), replace(CONFIG, **change), str(change)).method.state_dict()
        for name, tensor in plain.items():
            if torch.is_tensor(tensor):
                torch.testing.assert_close(faster[name], tensor, rtol=1e-4, atol=1e-5)


def test_recomputed_activations_are_equal(run):
    """With half of the blocks dropped at random."""
    weights = []
    for checkpoint_activations in (False, True):
        torch.manual_seed(0)
        method = BYOL(create_backbone("timm/vit_tiny_patch16_224", **VIT), projection_dim=8, hidden_dim=16)
        config = replace(CONFIG, checkpoint_activations=checkpoint_activations)
        weights.append(run(method, config, str(checkpoint_activations)).method.state_dict())
    for name, tensor in weights[0].items():
        if torch.is_tensor(tensor):
            torch.testing.assert_close(weights[1][name], tensor, rtol=1e-5, atol=1e-7)


def test_nan_keeps_the_last_good_checkpoint_and_is_located(build, run, tmp_path):
    hot = replace(CONFIG, lr=1e30, warmup_epochs=0.0, checkpoint_seconds=0.0, num_classes=0)
    with pytest.raises(FloatingPointError, match=r"NaN or infinity at step \d; by step \d it is in encoder\.") as error:
        run(build("simsiam"), hot)
    saved = torch.load(tmp_path / "run" / "resume.pt", weights_only=True)
    assert f"resume.pt holds step {saved['step']}: try" in str(error.value)
    assert all(tensor.isfinite().all() for tensor in saved["method"].values() if torch.is_tensor(tensor))


def test_three_checks_in_a_row_find_a_collapse_and_report_it_once(build):
    method = build("simsiam")
    monitor, detector = TrainingMonitor(method, create_state(method, CONFIG).context), CollapseDetector()
    messages = []
    for step, noise in enumerate((0.0, 1e-4, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0)):
        monitor._hook._features[:] = [torch.ones(32, 32) + noise * torch.randn(32, 32)]
        monitor.update(16)
        monitor.step()
        messages.append(detector.check(step, monitor.summary() | {"std": 1.0, "information": 0.5}))
    assert [step for step, message in enumerate(messages) if message] == [2, 6]
    assert messages[2].startswith("collapse at step 2: feature_spread 0, effective_rank 1; try")


def test_messages_before_the_first_step(build, run):
    messages = []
    run(build("vicreg"), replace(CONFIG, accumulation_steps=2, epochs=1), on_message=messages.append)
    summary, note = messages[0].splitlines()
    assert summary.startswith("VICReg: ") and summary.endswith("float32 on cpu; starting, 3 steps to go")
    assert note == (
        "2 accumulation steps; computed over one of them only: variances and covariances; batch norm statistics"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accumulation_steps": 3}, "expected a batch that divides into 3 accumulation steps, got 8 images"),
        ({"checkpoint_activations": True}, "expected a vision transformer for checkpoint_activations"),
        ({"optimizer": "lars", "fused": True}, "expected sgd or adamw for the fused option, got lars"),
        ({"steps_per_epoch": 5}, "expected 5 batches per epoch, got 3"),
    ],
)
def test_unsupported_options_are_rejected(change, message, build, run):
    with pytest.raises(ValueError, match=message):
        run(build("simsiam"), replace(CONFIG, **change))


def test_batches_of_common_loaders_are_understood(seeded):
    views, labels, device = seeded.views(2, 8, 0), torch.arange(8), torch.device("cpu")
    for batch in (views, tuple(views), [views, labels], (tuple(views), labels, ["a.jpg"] * 8), ViewBatch(views=views)):
        converted = as_view_batch(batch, device)
        assert identical(list(converted.views), views)
        assert (converted.labels is None) == (not isinstance(batch, list | tuple) or torch.is_tensor(batch[0]))
    with pytest.raises(ValueError, match=r"expected a batch of views, .*, got dict; give make_views"):
        as_view_batch({"image": views[0]}, device)


def test_a_resumed_run_continues_its_run_at_weights_and_biases(tmp_path, monkeypatch):
    """With a substitute for the package, which records its calls."""

    class Substitute:
        options, points = [], []

        def init(self, **options):
            self.options.append(options)
            return self

        def log(self, scalars, step):
            self.points.append((step, scalars))

        def finish(self):
            self.points.append("finished")

    monkeypatch.setitem(sys.modules, "wandb", Substitute())
    for step in (1, 2):
        sink = WandbSink("project", tmp_path, {"lr": 0.1})
        sink.write(step, {"loss": 0.5})
        sink.close()
    first, second = Substitute.options
    assert first == second and first["project"] == "project" and first["resume"] == "allow"
    assert Substitute.points == [(1, {"loss": 0.5}), "finished", (2, {"loss": 0.5}), "finished"]
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match="expected the package wandb to log to Weights & Biases"):
        WandbSink("project", tmp_path, {})
