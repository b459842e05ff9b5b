"""Adaptation of a recipe to images of other than three channels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from genviews.pretraining.options import DataConfig
from genviews.pretraining.weights import InitialWeights
from genviews.recipes import Recipe
from genviews.recipes.augmentations import normalize
from genviews_core.backbones import channels_of
from genviews_core.channels import RGB
from pairdata import Augment, channel_statistics, is_records


def fit_channels(
    recipe: Recipe, data: DataConfig, weights: InitialWeights | None, log: Callable[[str], None]
) -> tuple[Recipe, DataConfig]:
    """Adapt the recipe to the channels of the images, and the data to the range of their values.

    For other than three channels, saturation, hue and grayscale are left out, brightness and contrast are drawn for
    each channel, and value range, mean and standard deviation are those given, those of the weights if they are for the
    same channels, or those of a sample of the images.

    Args:
        recipe: recipe for RGB images, with the backbone of the weights.
        data: the images.
        weights: initial weights; None for random ones.
        log: called with messages about adaptations.

    Raises:
        ValueError: the weights are for another number of channels, or records and scorers are for RGB.
    """
    channels = data.channels
    own = RGB if weights is None else channels_of(weights.architecture)
    if own not in (RGB, channels):
        accepted = " or ".join(map(str, dict.fromkeys((channels, RGB))))
        raise ValueError(f"expected --weights for {accepted} channels, got {own}; give --channels {own}")
    if channels == RGB:
        given = data.mean is not None and data.std is not None
        return (normalize(recipe, data.mean, data.std) if given else recipe), data  # pyright: ignore
    if is_records(data.images) or data.images.suffix == ".beton":
        raise ValueError(f"records hold RGB images, got --channels {channels}; give the folder of the images as --data")
    if recipe.pair_weighting in ("exact", "distilled"):
        raise ValueError(
            f"--pair-weighting {recipe.pair_weighting} takes RGB images, got --channels {channels}; use self or none"
        )
    options = {**recipe.backbone_options, "in_chans": channels}
    data = _with_statistics(data, weights if own == channels else None, log)
    assert data.mean is not None and data.std is not None
    recipe = normalize(replace(recipe, backbone_options=options), data.mean, data.std, change=_without_color)
    log(f"{channels} channels: brightness and contrast of each channel; no saturation, hue and grayscale")
    return recipe, data


def _without_color(augment: Augment) -> Augment:
    jitter = augment.jitter and (*augment.jitter[:2], 0.0, 0.0)
    return replace(augment, jitter=jitter, gray_p=0.0)


def _with_statistics(data: DataConfig, weights: InitialWeights | None, log: Callable[[str], None]) -> DataConfig:
    """Return the data with value range, mean and standard deviation of each channel."""
    if weights is not None and weights.mean and weights.std:
        kept = {"value_range": data.value_range or weights.value_range}
        kept |= {"mean": data.mean or weights.mean, "std": data.std or weights.std}
        log(f"images are scaled and normalized as {weights.source} expects")
        return replace(data, **kept)
    if data.value_range is not None and data.mean is not None:
        return data
    measured = channel_statistics(data.images, data.channels, value_range=data.value_range)
    found = replace(
        data,
        value_range=data.value_range or measured.value_range,
        mean=data.mean or measured.mean,
        std=data.std or measured.std,
    )
    log(f"measured on a sample: mean {_shown(found.mean)}, std {_shown(found.std)}{_ranges(found.value_range)}")
    return found


def _shown(values: tuple[float, ...] | None) -> str:
    return " ".join(f"{value:.4g}" for value in values or ())


def _ranges(values: tuple[float, ...] | None) -> str:
    return f", value range {_shown(values)}" if values else ""
