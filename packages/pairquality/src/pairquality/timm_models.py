"""Networks of timm, without their head."""

from pathlib import Path
from typing import Any

import timm
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from pairquality.recipe import Recipe, fill, first_line, read_tensors


def timm_recipe(name: str, size: int | None) -> Recipe:
    """The network of "MODEL" with timm's weights, or of "MODEL:PATH" with those of a file.

    Raises:
        ValueError: unknown model, or weights that cannot be had or do not fit.
    """
    model, _, path = name.partition(":")
    if not timm.is_model(model):
        raise ValueError(f"timm has no model {model!r}: choose one of timm.list_models().")
    try:
        module = create(model, size, pretrained=not path)
    except Exception as error:  # the hub's errors have no common base
        raise ValueError(
            f"Cannot load timm/{model} ({first_line(error)}): without a network give a file, timm/{model}:PATH."
        ) from error
    if path:
        config: Any = module.pretrained_cfg
        heads = config.get("classifier") or ()
        heads = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
        tensors = read_tensors(Path(path))
        fill(module, {key: value for key, value in tensors.items() if not key.startswith(heads)}, path)
    about = resolve_model_data_config(module)
    own = about["input_size"][-1]
    return Recipe(module=module, size=size or own, mean=about["mean"], std=about["std"], take_map=timm_features)


def create(model: str, size: int | None, *, pretrained: bool = False, **options: Any) -> nn.Module:
    """A network of timm without classifier; one of fixed input size is built for `size`."""
    config = timm.get_pretrained_cfg(model)
    if size is not None and config is not None and config.fixed_input_size:
        options = {"img_size": size, **options}
    return timm.create_model(model, pretrained=pretrained, num_classes=0, **options)


def timm_features(module: nn.Module, images: Tensor) -> Any:
    """What comes before pooling and head: a map, channels first, or tokens without prefix tokens."""
    features = module.forward_features(images)  # pyright: ignore[reportCallIssue]
    if not isinstance(features, Tensor):
        return features
    if features.ndim == 4:
        channels_last = features.shape[1] != module.num_features and features.shape[3] == module.num_features
        return features.permute(0, 3, 1, 2) if channels_last else features
    return features[:, getattr(module, "num_prefix_tokens", 0) :]
