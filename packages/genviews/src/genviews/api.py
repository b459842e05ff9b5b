"""One function per job, with the same options as the command `genviews JOB`, given by keyword."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pairdata
    import viewgen


def list_recipes() -> list[str]:
    """Return the names of all training recipes, such as "cifar10-simsiam"."""
    from genviews.recipes import RECIPES

    return list(RECIPES)


def pretrain(
    *,
    data: str | Path,
    recipe: str = "cifar10-simsiam",
    out: str | Path | None = None,
    views: str | Path | None = None,
    weights: str | Path | None = None,
    **overrides: Any,
) -> Path:
    """Train an encoder and return its backbone folder. A stopped training is continued by the same call.

    Args:
        data: folder of images, or records written by `pack`.
        recipe: name of a recipe; see `list_recipes`.
        out: folder of the run; default: runs/RECIPE.
        views: generative views written by `generate`.
        weights: initial weights: a backbone folder, an official checkpoint, a state dict of the backbone, timm/NAME
            or torchvision/NAME; default: random weights. A tenth of the recipe's base_lr is a good first choice.
        overrides: fields of `genviews.recipes.Recipe` and of the dataclasses in `genviews.pretraining.options`, such
            as epochs=100, batch_size=256, pair_weighting="self", knn_test="cifar/test" or device="cpu".

    Raises:
        ValueError: an option is unknown or out of range, or the data cannot be used.
        FloatingPointError: the loss became NaN or infinite.
        sslzoo.TrainingInterrupted: a signal ended the training; its state is saved.
    """
    from genviews.cli.pretrain import default_options
    from genviews.overrides import override
    from genviews.pretraining.job import run

    options = default_options(recipe, images=Path(data))
    given = {"out": out, "views": views, "weights": None if weights is None else str(weights)}
    changes = {name: value for name, value in given.items() if value is not None} | overrides
    return run(override(options, changes, job="pretrain"))


def generate(images: str | Path, out: str | Path, *, model: str | Path, **options: Any) -> viewgen.RunSummary:
    """Generate views of a folder of images. Views that exist are kept.

    Args:
        images: folder of images.
        out: folder for the views and manifest.parquet.
        model: folder of a diffusion model written by `train_generator`, or the model of another generator.
        options: fields of `genviews.generation.GenerateOptions`, such as interpolate=True or views_per_image=2.

    Returns:
        The number of views written, present and failed.

    Raises:
        ValueError: an option is unknown or invalid.
    """
    from genviews.generation import GenerateOptions, run
    from genviews.overrides import from_keywords

    return run(from_keywords(GenerateOptions, {"images": images, "out": out, "model": model} | options, job="generate"))


def train_generator(images: str | Path, out: str | Path, *, encoder: str | Path, **options: Any) -> Path:
    """Train a diffusion model on the embeddings of an encoder (Gen-SIS's E-LDM) and return its folder.

    Args:
        images: folder of images; labels are not read.
        out: folder of the diffusion model; a stopped training is continued by the same call.
        encoder: backbone folder written by `pretrain`, or timm/<model>.
        options: fields of `genviews.generator_training.TrainGeneratorOptions`, such as preset="32" or steps=3000.

    Raises:
        ValueError: an option is unknown or invalid.
    """
    from genviews.generator_training import TrainGeneratorOptions, run
    from genviews.overrides import from_keywords

    given = {"images": images, "out": out, "encoder": str(encoder)} | options
    return run(from_keywords(TrainGeneratorOptions, given, job="train_generator"))


def pack(images: str | Path, out: str | Path, **options: Any) -> pairdata.Packed:
    """Pack images and their views into records that load many times faster than folders.

    Args:
        images: folder of images.
        out: folder for the records; files that are complete are kept.
        options: fields of `genviews.packing.PackOptions`, such as views="VIEWS", size=32 or mode="raw".

    Raises:
        ValueError: an option is unknown or invalid, or damaged records cannot be repaired.
    """
    from genviews.overrides import from_keywords
    from genviews.packing import PackOptions, run

    return run(from_keywords(PackOptions, {"images": images, "out": out} | options, job="pack"))


def evaluate(backbone: str | Path, *, task: str = "classification", **options: Any) -> None:
    """Evaluate a backbone, append the results to a file of JSON lines, and print a table.

    Args:
        backbone: backbone folder, third-party checkpoint, or timm/<model>.
        task: classification, retrieval, copy-detection, video, slides or segmentation.
        options: fields of the options of the task, such as train="DATA/train", test="DATA/test" for classification and
            data="DATA/roxford5k" for retrieval; results is the file of results.

    Raises:
        ValueError: the task or an option is unknown, or the data cannot be used.
    """
    from genviews.evaluation.tasks import find_task
    from genviews.overrides import from_keywords

    found = find_task(task)
    found.run(from_keywords(found.options(), {"backbone": backbone} | options, job="evaluate"))


def embed(images: str | Path, out: str | Path, *, backbone: str | Path, **options: Any) -> Path:
    """Embed a folder of images and return the file of vectors. A stopped call is continued by the same call.

    Args:
        images: folder of images.
        out: a .parquet file with the columns key and vector, or a .npy file with STEM.keys.txt.
        backbone: backbone folder, third-party checkpoint, or timm/<model>.
        options: fields of `genviews.embedding.options.EmbedOptions`, such as map="map.html" or device="cpu".

    Raises:
        ValueError: an option is unknown or invalid, or no image can be read.
    """
    from genviews.embedding.options import EmbedOptions
    from genviews.embedding.run import run
    from genviews.overrides import from_keywords

    given = {"images": images, "out": out, "backbone": str(backbone)} | options
    made = from_keywords(EmbedOptions, given, job="embed")
    run(made)
    return made.out


def inspect(images: str | Path, views: str | Path, **options: Any) -> Path:
    """Write pairs with their foreground maps, scores and statistics to one HTML page, and return its path.

    Args:
        images: folder of the images.
        views: folder of their views, with manifest.parquet.
        options: fields of `genviews.inspection.options.InspectOptions`, such as out="report.html" or pca="FILE".

    Raises:
        ValueError: an option is unknown or invalid, or no pair can be read.
    """
    from genviews.inspection.options import InspectOptions
    from genviews.inspection.run import run
    from genviews.overrides import from_keywords

    made = from_keywords(InspectOptions, {"images": images, "views": views} | options, job="inspect")
    run(made)
    return made.out


def quickstart(**options: Any) -> Path:
    """Train encoders, a diffusion model on their embeddings, and encoders on its views; compare them in a table.

    Args:
        options: fields of `genviews.end_to_end.options.QuickstartOptions`, such as data="TRAIN", test="TEST" or
            epochs=5; without data, a procedural set of scenes is used.

    Returns:
        The folder with the table, plots and all results.

    Raises:
        ValueError: an option is unknown or invalid, or the data cannot be used.
    """
    from genviews.end_to_end.options import QuickstartOptions
    from genviews.end_to_end.run import run
    from genviews.overrides import from_keywords

    made = from_keywords(QuickstartOptions, options, job="quickstart")
    run(made)
    return made.out
