"""Load image towers of open_clip, without their projection."""

import json
from pathlib import Path
from typing import Any

import open_clip
from torch import Tensor, nn

from genviews_core.backbones import first_line, from_hub, last_map
from pairquality.encoder_loading import EncoderSpec

PUBLISHED_SIZES = {"convnext_base_w": 224}
"""Models that GenView (https://github.com/xiaojieli0903/genview) runs at another size than their own (256)."""
CONFIG = "open_clip_config.json"
WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "*.safetensors", "*.bin", "*.pt", "*.pth")
"""Files of weights in a model's folder, in order of preference."""
SCHEMAS = ("local-dir", "hf-hub")


def open_clip_spec(name: str, size: int | None) -> EncoderSpec:
    """Return the image tower of "MODEL:TAG", "MODEL:PATH", "local-dir:FOLDER" or "hf-hub:OWNER/NAME".

    Raises:
        ValueError: the model is unknown, or the weights cannot be loaded or do not fit.
    """
    model, _, weights = name.partition(":")
    if not weights:
        raise ValueError(
            f"expected weights, got open_clip/{name}; write open_clip/{model}:TAG or open_clip/{model}:PATH"
        )
    if model not in SCHEMAS and open_clip.get_model_config(model) is None:
        raise ValueError(f"expected a model of open_clip, got {model!r}; choose one of open_clip.list_models()")
    clip = _create(model, weights, size or PUBLISHED_SIZES.get(model))
    tower, about = clip.visual, _preprocessing(clip, weights)
    if hasattr(tower, "trunk"):
        module, take_map = tower.trunk, last_map
    else:
        module, take_map = tower, tower_features
    own = tower.image_size if isinstance(tower.image_size, int) else tower.image_size[0]
    return EncoderSpec(module=module, size=own, mean=tuple(about["mean"]), std=tuple(about["std"]), take_map=take_map)


def tower_features(tower: nn.Module, images: Tensor) -> Tensor:
    """Return the patch tokens of a vision transformer after ln_post, or the last map of open_clip's own ResNets."""
    options: dict[str, Any] = {"indices": 1, "intermediates_only": True}
    if hasattr(tower, "ln_post"):  # a pooler with attention has its ln_post behind it, of another width
        options["normalize_intermediates"] = getattr(tower, "attn_pool", None) is None
        options["output_fmt"] = "NLC"
    return tower.forward_intermediates(images, **options)["image_intermediates"][-1]  # pyright: ignore


def _create(model: str, weights: str, size: int | None) -> Any:
    if model in SCHEMAS:
        chosen, pretrained = f"{model}:{weights}", None
    else:
        chosen, pretrained = model, str(_weights_file(Path(weights))) if Path(weights).exists() else weights
    options: dict[str, Any] = {"require_pretrained": True, "force_image_size": size, "weights_only": True}
    if not Path(weights).exists():
        with from_hub(f"open_clip/{model}:{weights}", f"give a checkpoint's file or folder, open_clip/{model}:PATH"):
            return open_clip.create_model(chosen, pretrained, **options)
    try:
        return open_clip.create_model(chosen, pretrained, **options)
    except Exception as error:  # open_clip and torch raise many unrelated types
        raise ValueError(f"cannot load open_clip/{model}:{weights} ({first_line(error)})") from error


def _weights_file(path: Path) -> Path:
    if path.is_file():
        return path
    found = [file for pattern in WEIGHTS for file in sorted(path.glob(pattern))]
    if not found:
        raise ValueError(f"expected weights of open_clip in {path}, such as {WEIGHTS[0]}, got none; give their file")
    return found[0]


def _preprocessing(clip: Any, weights: str) -> dict[str, Any]:
    """Return mean and std, from the checkpoint's folder if it has them, otherwise from open_clip's registry."""
    about, path = dict(open_clip.get_model_preprocess_cfg(clip)), Path(weights)
    config = path / CONFIG if path.is_dir() else path.with_name(CONFIG)
    if path.exists() and config.is_file():
        about |= json.loads(config.read_text()).get("preprocess_cfg", {})
    return about
