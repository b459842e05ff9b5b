"""Load pretrained encoders by name."""

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from genviews_core.backbones import (
    build_described,
    create_backbone,
    describe,
    first_line,
    images_of,
    is_backbone_folder,
    last_map,
    load_timm,
    read_description,
    timm_images,
)
from pairquality.encoder import FeatureEncoder, TakeMap, Triple


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """A network, the image size and normalization it expects, and how its features are extracted."""

    module: nn.Module
    size: int
    mean: Triple
    std: Triple
    take_map: TakeMap | None = None


def load_encoder(
    name: str,
    *,
    size: int | None = None,
    mean: Triple | None = None,
    std: Triple | None = None,
    autocast: torch.dtype | None = None,
    device: str | torch.device = "cpu",
) -> FeatureEncoder:
    """Load a frozen, pretrained encoder: images -> Float[B, L, D].

    "open_clip/MODEL:TAG" returns the patch tokens of a vision transformer after ln_post, without class token and
    projection, or the last map of a convolutional network before its norm. GenView
    (https://arxiv.org/abs/2403.12003) uses
    "open_clip/ViT-H-14:laion2b_s32b_b79k" for ratios (256 x 1280) and
    "open_clip/convnext_base_w:laion2B-s13B-b82K-augreg" for pairs (49 x 1024).

    Args:
        name: "open_clip/MODEL:TAG"; "open_clip/MODEL:PATH" of a checkpoint's file or folder; open_clip's own
            "open_clip/local-dir:FOLDER" and "open_clip/hf-hub:OWNER/NAME"; "timm/MODEL", or "timm/MODEL:PATH" of a
            state dict; or a backbone folder with backbone.safetensors and backbone.json.
        size: image size in pixels; by default the model's own (for convnext_base_w 224, as in GenView).
        mean: mean per channel, to override the model's own or if it has none.
        std: standard deviation per channel, likewise.
        autocast: data type in which the encoder computes; None for float32.
        device: device of the encoder.

    Raises:
        ValueError: the name is unknown, or the weights are missing, broken or do not fit.
    """
    if size is not None and size < 1:
        raise ValueError(f"expected a size of 1 pixel or more, got {size}; leave it out for the encoder's own")
    spec = _encoder_spec(name, size, normalized=mean is not None and std is not None)
    spec = replace(spec, mean=mean or spec.mean, std=std or spec.std)
    encoder = FeatureEncoder(
        spec.module, spec.size, spec.mean, spec.std, name, take_map=spec.take_map, autocast=autocast
    )
    return encoder.to(device)


def _encoder_spec(name: str, size: int | None, normalized: bool) -> EncoderSpec:
    """Return the network of that name; only the library asked for is imported (open_clip and timm take seconds)."""
    library, _, rest = name.partition("/")
    if library == "open_clip":
        from pairquality.open_clip_models import open_clip_spec

        return open_clip_spec(rest, size)
    if library == "timm":
        return timm_spec(rest, size)
    if is_backbone_folder(name):
        return backbone_spec(Path(name), size, normalized=normalized)
    raise ValueError(
        f"expected open_clip/MODEL:TAG, timm/MODEL or a folder with backbone.json, got {name!r}; give one of them"
    )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors or torch file without executing code.

    Raises:
        ValueError: the file is missing or broken, or holds anything but tensors.
    """
    if not path.is_file():
        raise ValueError(
            f"expected a weights file, got {path}, which does not exist; give a .safetensors file or a saved state dict"
        )
    try:
        held: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise ValueError(
            f"cannot read the weights {path} ({first_line(error)}); give a .safetensors file or a saved state dict"
        ) from error
    for wrapper in ("state_dict", "model"):
        held = held.get(wrapper, held) if isinstance(held, Mapping) else held
    if not isinstance(held, Mapping) or not held or not all(isinstance(value, Tensor) for value in held.values()):
        raise ValueError(f"expected a state dict of named tensors in {path}, got something else; give another file")
    return {str(name).removeprefix("module."): tensor for name, tensor in held.items()}


def fill(module: nn.Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Load tensors into a network, which must match exactly.

    Raises:
        ValueError: names or shapes differ; the message has counts and up to three names of each kind.
    """
    own = module.state_dict()
    needed = {name for name in own if not name.endswith("num_batches_tracked")}  # old files lack these counters
    faults = {
        "missing": sorted(needed - tensors.keys()),
        "unknown": sorted(tensors.keys() - own.keys()),
        "wrong shape": sorted(name for name in own.keys() & tensors.keys() if own[name].shape != tensors[name].shape),
    }
    if mismatch := describe(faults):
        raise ValueError(f"the weights {source} do not fit the network: {mismatch}")
    if nonfinite := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise ValueError(f"{source} holds NaN or infinity ({describe({'found in': nonfinite})}); give other weights")
    module.load_state_dict(dict(tensors))


def timm_spec(name: str, size: int | None) -> EncoderSpec:
    """Return timm's model "MODEL" with timm's weights, or "MODEL:PATH" with those of a file.

    Raises:
        ValueError: the model is unknown, or the weights cannot be loaded or do not fit.
    """
    model, _, path = name.partition(":")
    import timm

    if not timm.is_model(model):
        raise ValueError(f"expected a model of timm, got {model!r}; choose one of timm.list_models()")
    if path:
        module: Any = create_backbone(f"timm/{model}", image_size=size)
        heads = module.pretrained_cfg.get("classifier") or ()
        heads = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
        tensors = read_tensors(Path(path))
        fill(module, {key: value for key, value in tensors.items() if not key.startswith(heads)}, path)
        images = timm_images(module)
    else:
        module, images = load_timm(model, size=size)
    mean, std = images["mean"], images["std"]
    return EncoderSpec(module=module, size=size or images["size"], mean=mean, std=std, take_map=last_map)


def backbone_spec(folder: Path, size: int | None, *, normalized: bool = False) -> EncoderSpec:
    """Return the network of a backbone folder with its weights.

    Args:
        folder: folder with backbone.json and backbone.safetensors.
        size: image size in pixels; by default the spec's image_size.
        normalized: whether the caller provides mean and std, so that no warning about them is needed.

    Raises:
        ValueError: a file is missing or broken, the two do not belong together, or the network does not take the size.
    """
    about = read_description(folder)
    module = build_described(about)
    with warnings.catch_warnings():
        if normalized:
            warnings.simplefilter("ignore")
        images = images_of(about)
    if size not in (None, images["size"]) and _has_fixed_size(module):
        raise ValueError(
            f"expected size {images['size']} for the fixed-size network in {folder}, got {size}; leave size out"
        )
    mean, std = images["mean"], images["std"]
    if len(mean) != 3:
        raise ValueError(
            f"expected an encoder of RGB images, got {folder} for {len(mean)} channels; choose another one"
        )
    return EncoderSpec(module=module, size=size or images["size"], mean=mean, std=std, take_map=last_map)


def _has_fixed_size(module: nn.Module) -> bool:
    """Return whether the network takes images of one size only, as timm's vision transformers do by default."""
    config = getattr(module, "pretrained_cfg", {})
    return bool(config.get("fixed_input_size")) and not getattr(module, "dynamic_img_size", False)
