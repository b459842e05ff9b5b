"""LoRA files merged into a UNet's weights, in diffusers', PEFT's or kohya's naming (https://arxiv.org/abs/2106.09685)."""

from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
from safetensors.torch import load_file
from torch import nn

from genviews_core.backbones import first_line

DOWN = (".lora_A.weight", ".lora_down.weight", ".lora.down.weight", "_lora.down.weight")
UP = (".lora_B.weight", ".lora_up.weight", ".lora.up.weight", "_lora.up.weight")
ALPHA = ("_lora.down.weight.alpha", ".lora.down.weight.alpha", "_lora.alpha", ".lora.alpha", ".alpha")
HOLDS = "give the LoRA of this base, in safetensors"


@torch.no_grad()
def merge_lora(unet: nn.Module, path: Path, *, scale: float = 1.0) -> None:
    """Add a LoRA to the weights: ``W + scale * alpha / rank * up @ down``.

    Args:
        unet: diffusers UNet in its final precision.
        path: a .safetensors file.
        scale: strength of the LoRA; 1 as it was trained.

    Raises:
        ValueError: if the file is damaged, or its layers are not those of this UNet.
    """
    layers = _layers(unet, path)
    modules = {name.replace(".", "_"): module for name, module in unet.named_modules() if hasattr(module, "weight")}
    misfits = [name for name, parts in layers.items() if not _fits(modules.get(name), parts)]
    if misfits or not layers:
        named = ", ".join(misfits[:2]) or "no layer of a UNet"
        count = f"{len(misfits)} of {len(layers)} layers ({named}{', ...' if len(misfits) > 2 else ''})"
        raise ValueError(
            f"the LoRA {path} does not fit this UNet: {count} are missing there or of another size; {HOLDS}"
        )
    for name, parts in layers.items():
        weight: Any = modules[name].weight
        down, up = parts["down"].float(), parts["up"].float()
        alpha = float(parts["alpha"]) if "alpha" in parts else len(down)
        change = up.flatten(1) @ down.flatten(1)
        added = (scale * alpha / len(down)) * change.view(weight.shape)
        weight.copy_(weight.float() + added.to(weight.device))


def _layers(unet: Any, path: Path) -> dict[str, dict[str, Any]]:
    """Return the file's "down", "up" and "alpha" by the flattened names of the UNet's modules."""
    try:
        converted: Any = StableDiffusionXLLoraLoaderMixin.lora_state_dict(load_file(path), unet_config=unet.config)
        state, alphas = converted
    except Exception as error:  # broken files and unknown names raise many unrelated types
        raise ValueError(f"cannot read the LoRA {path} ({first_line(error)}); {HOLDS}") from error
    layers: dict[str, dict[str, Any]] = {}
    for key, value in {**state, **(alphas or {})}.items():
        if not key.startswith(("unet.", "base_model.model.")):
            raise ValueError(
                f"the LoRA {path} also changes something other than the UNet ({key}); give one of the UNet alone"
            )
        name = key.removeprefix("unet.").removeprefix("base_model.model.").replace(".processor.", ".")
        for part, suffixes in (("down", DOWN), ("up", UP), ("alpha", ALPHA)):
            suffix = next((suffix for suffix in suffixes if name.endswith(suffix)), None)
            if suffix is not None:
                layers.setdefault(_flat(name.removesuffix(suffix)), {})[part] = value
                break
        else:
            raise ValueError(f"the LoRA {path} holds {key}, which is not a plain LoRA; {HOLDS}")
    return layers


def _flat(name: str) -> str:
    """Return a module's name without dots; older files call the output projection ``to_out``."""
    name = name.replace(".", "_")
    return f"{name}_0" if name.endswith("_to_out") else name


def _fits(module: Any, parts: dict[str, Any]) -> bool:
    if module is None or not {"down", "up"} <= parts.keys():
        return False
    down, up, weight = parts["down"], parts["up"], module.weight
    fits = down.ndim in (2, weight.ndim) and len(up) == len(weight) and up.shape[1] == len(down)
    return fits and up.flatten(1).shape[1] == len(down) and down[0].numel() == weight[0].numel()
