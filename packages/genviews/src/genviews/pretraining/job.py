"""Pretrain one encoder: compose recipe, data, views and pair weights for `sslzoo.fit`, and export the backbone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

import sslzoo
from genviews.pretraining.backbone import fit_backbone
from genviews.pretraining.channels import fit_channels
from genviews.pretraining.data import data_fingerprint, open_fitting
from genviews.pretraining.online_knn import open_knn
from genviews.pretraining.options import DataConfig, PretrainOptions, QualityConfig, RuntimeConfig, check_values
from genviews.pretraining.pair_weighting import open_pair_weighter
from genviews.pretraining.views import make_view_batch
from genviews.pretraining.weights import InitialWeights, build_backbone, open_weights
from genviews.processes import join_processes
from genviews.recipes import Recipe, method_class
from genviews.recipes.augmentations import drop_augmentations
from genviews.run_config import write_config
from genviews_core.channels import RGB
from genviews_core.disk import require_space
from genviews_core.files import write_json
from genviews_core.lock import lock_folder
from genviews_core.progress import Progress
from pairdata import FFCVLoader, FolderLoader
from sslzoo import DistContext
from sslzoo.methods import Method
from sslzoo.training import TrainConfig
from sslzoo.training.state import has_batch_norm

OnStep = Callable[[int, int, dict[str, float]], None]


def run(options: PretrainOptions) -> Path:
    """Train with a progress bar, on all processes of torchrun, and return the backbone folder."""
    recipe = options.recipe
    recipe = replace(recipe, augmentation=drop_augmentations(recipe.augmentation, options.drop_augmentations))
    context = join_processes(options.device)
    with lock_folder(options.out) if context.is_main else nullcontext(), Progress(shown=context.is_main) as progress:
        if context.is_main:
            write_config(options.out, "pretrain", options)
        backbone = train_encoder(
            recipe,
            options.data,
            options.out,
            context,
            runtime=options.runtime,
            quality=options.quality,
            weights=options.weights,
            on_step=progress.add_task(recipe.name),
            on_message=progress.message,
            checkpoint_seconds=options.checkpoint_seconds,
        )
        progress.message(f"backbone: {backbone}")
        errors = options.out / "data_errors.json"
        if errors.exists():
            progress.message(f"some images or views were missing: see {errors}")
    return backbone


def train_encoder(
    recipe: Recipe,
    data: DataConfig,
    out: Path,
    context: DistContext,
    *,
    runtime: RuntimeConfig | None = None,
    quality: QualityConfig | None = None,
    weights: str | None = None,
    on_step: OnStep | None = None,
    on_message: Callable[[str], None] | None = None,
    checkpoint_seconds: float = 30.0,
    log_every: int = 10,
) -> Path:
    """Train until the last epoch, from the checkpoint OUT/resume.pt if there is one, and export OUT/backbone.

    The batch size is reduced if the images do not fill one batch. `weights` names initial weights (see `open_weights`).
    A finished run is not trained again. SIGTERM, SIGUSR1 and Ctrl-C stop training after the current step and save a
    checkpoint.

    Returns:
        The backbone folder.

    Raises:
        ValueError: OUT holds a run with another recipe, or the data cannot be used.
        FloatingPointError: the loss or a parameter became NaN or infinite; the last good checkpoint is kept.
        TrainingInterrupted: a signal ended the training, on all processes after the same step.
    """
    runtime = runtime or RuntimeConfig()
    check_values(recipe, data)
    log = on_message if on_message and context.is_main else _ignore
    _check_batch_size(recipe, runtime.accumulation_steps, context.world_size)
    recipe, initial = open_weights(recipe, weights, log, channels=data.channels)
    recipe, data = fit_channels(recipe, data, initial, log)
    recipe = fit_backbone(recipe, log)
    recipe, loader = open_fitting(recipe, data, context, accumulation_steps=runtime.accumulation_steps, log=log)
    method = build_method(recipe, context, initial)
    _check_part_size(recipe, runtime.accumulation_steps, method)
    weighter = open_pair_weighter(recipe, quality or QualityConfig(), method, context)
    knn = open_knn(recipe, data, runtime, context)
    config = train_config(
        recipe,
        runtime,
        num_classes=len(loader.index.classes),
        log_every=log_every,
        checkpoint_seconds=checkpoint_seconds,
    )
    log(
        f"{recipe.name}: {len(loader.index):,} images, {recipe.epochs} x {len(loader):,} steps of "
        f"{recipe.batch_size} images, policy {recipe.policy}"
    )
    if context.is_main:
        log(_disk_note(method, recipe, out))
    fingerprint = recipe.record() | data_fingerprint(data, loader)
    if initial:
        fingerprint["weights"] = initial.hash
    sslzoo.fit(
        method,
        loader,  # pyright: ignore[reportArgumentType]  (it has epoch(epoch, start=step))
        config,
        out=out,
        make_views=partial(make_view_batch, recipe=recipe),
        context=context,
        pair_weighter=weighter,
        evaluate=knn.measure if knn else None,
        fingerprint=fingerprint | ({"scoring": weighter.record} if weighter else {}),
        on_step=on_step,
        on_message=log,
    )
    if context.is_main:
        _write_data_errors(loader, out)
        _export(recipe, method, data, out, initial)
    return out / "backbone"


def train_config(
    recipe: Recipe,
    runtime: RuntimeConfig,
    *,
    num_classes: int = 0,
    log_every: int = 10,
    checkpoint_seconds: float = 30.0,
) -> TrainConfig:
    """Return the engine's configuration of a recipe."""
    return TrainConfig(
        epochs=recipe.epochs,
        optimizer=recipe.optimizer,
        optimizer_options=recipe.optimizer_options,
        lr=recipe.lr,
        final_lr=recipe.lowest_lr,
        warmup_epochs=recipe.warmup_epochs,
        warmup_includes_peak=recipe.warmup_includes_peak,
        weight_decay=recipe.weight_decay,
        final_weight_decay=recipe.final_weight_decay,
        per_param_clip_norm=recipe.per_param_clip_norm,
        clip_grad_norm=recipe.clip_grad_norm,
        precision=recipe.precision,
        accumulation_steps=runtime.accumulation_steps,
        seed=recipe.seed,
        compile=runtime.compile,
        fused=runtime.fused,
        checkpoint_activations=runtime.checkpoint_activations,
        num_classes=num_classes if runtime.probe else 0,
        evaluate_every=runtime.knn_every,
        log_every=log_every,
        checkpoint_seconds=checkpoint_seconds,
        peak_tflops=runtime.peak_tflops,
        wandb=runtime.wandb,
    )


def build_method(recipe: Recipe, context: DistContext, weights: InitialWeights | None = None) -> Method:
    """Return the method of a recipe on the device of this process, with the same weights on every process.

    Momentum networks and teachers start from the same weights as the backbone.
    """
    torch.manual_seed(recipe.seed)
    method = method_class(recipe.method)(build_backbone(recipe, weights), **recipe.method_options)
    method = method.to(context.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return sslzoo.convert_sync_batchnorm(method) if context.world_size > 1 else method


def _check_batch_size(recipe: Recipe, accumulation_steps: int, world_size: int) -> None:
    """Check that each process gets equally many images in each accumulation step."""
    unit = world_size * accumulation_steps
    if accumulation_steps < 1:
        raise ValueError(f"expected --accumulation-steps of 1 or more, got {accumulation_steps}; leave it out for 1")
    if recipe.batch_size % unit:
        near = sorted({max(1, recipe.batch_size // unit) * unit, (recipe.batch_size // unit + 1) * unit})
        raise ValueError(
            f"expected a batch size divisible by {unit} ({world_size} processes x {accumulation_steps} accumulation "
            f"steps), got {recipe.batch_size}; choose --batch-size {' or '.join(map(str, near))}"
        )


def _check_part_size(recipe: Recipe, accumulation_steps: int, method: Method) -> None:
    """Check for at least two images per accumulation step if the method compares images or uses batch statistics."""
    part = recipe.batch_size // accumulation_steps
    if part < 2 and (method.batch_coupled or has_batch_norm(method)):
        raise ValueError(
            f"expected at least 2 images per accumulation step for {recipe.method} with {recipe.backbone}, got "
            f"{part}; give more images, a larger --batch-size or a lower --accumulation-steps"
        )


def _disk_note(method: Method, recipe: Recipe, out: Path) -> str:
    """Return how much disk the checkpoint needs.

    Raises:
        ValueError: there is not enough.
    """
    state = [each for each in method.state_dict().values() if isinstance(each, torch.Tensor)]
    trained = [each for each in method.parameters() if each.requires_grad]
    moments = 2 if recipe.optimizer == "adamw" else 1  # optimizer state per parameter
    needed_bytes = sum(each.nbytes for each in state) + moments * sum(each.nbytes for each in trained)
    return require_space(out, needed_bytes, "the checkpoint, twice that while it is written")


def _ignore(message: str) -> None:
    """Ignore a message."""


def _write_data_errors(loader: FolderLoader | FFCVLoader, out: Path) -> None:
    """Write OUT/data_errors.json: missing views and unreadable images, which were replaced by others."""
    if loader.failures or loader.missing_views:
        errors = {"missing_views": loader.missing_views, "unreadable": loader.failures}
        write_json(out / "data_errors.json", errors)


def _export(recipe: Recipe, method: Method, data: DataConfig, out: Path, weights: InitialWeights | None) -> None:
    augment = recipe.augmentation.first
    images = {"image_size": recipe.image_size, "mean": augment.mean, "std": augment.std}
    if data.channels != RGB:
        images["value_range"] = data.value_range
    sslzoo.save_backbone(
        out / "backbone",
        method.backbone,
        architecture=recipe.architecture,
        method=recipe.method,
        recipe=recipe.record() | images | ({"weights": weights.record()} if weights else {}),
        epoch=recipe.epochs,
        data=str(data.images),
    )
