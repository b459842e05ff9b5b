"""Known pretrained weights by generator, under short names. This module does not import torch.

A name stands for a model and what goes with it: `viewgen generate --generator ip-adapter --model sdxl-turbo`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ADAPTERS = "h94/IP-Adapter"
NOISE = "noise level of CLIP's embedding, 0 (faithful) to 400 as in GenView"
START = "fraction of the noise process from which the image starts"


@dataclass(frozen=True, kw_only=True)
class KnownModel:
    """Weights on the hub that a generator takes.

    Attributes:
        name: short name.
        options: options of the generator; "model" is the hub id of the pipeline.
        licence: licenses stated on the hub, of the pipeline and then of the files added to it.
        gigabytes: approximate download size, in half precision if the hub has that variant.
        steps: denoising steps.
        resolution: size in pixels of the generated images.
        supervision: the strongest human supervision used to train the weights.
        strength: meaning of the strength.
        revision: revision of the pipeline on the hub; "main" is not pinned.
    """

    name: str
    options: Mapping[str, Any]
    licence: str
    gigabytes: float
    steps: int
    resolution: int
    supervision: str = "captions"
    strength: str = NOISE
    revision: str = "main"

    def hub_ids(self) -> list[str]:
        """Return the hub repositories that are read."""
        named = ("model", "prior", "adapter", "lora", "vae")
        places = [str(self.options[name]) for name in named if name in self.options]
        return list(dict.fromkeys("/".join(place.split("/")[:2]) for place in places))


def _adapted(
    name: str, model: str, adapter: str, licence: str, gigabytes: float, steps: int, resolution: int, **more: Any
) -> KnownModel:
    return KnownModel(
        name=name,
        options={"model": model, "adapter": f"{ADAPTERS}/{adapter}.safetensors", **more},
        licence=f"{licence}; adapter Apache 2.0",
        gigabytes=gigabytes,
        steps=steps,
        resolution=resolution,
    )


SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
TURBO = "stabilityai/sdxl-turbo"
RAIL, RAIL_PLUS = "CreativeML Open RAIL-M", "CreativeML Open RAIL++-M"
STABILITY = "Stability AI Community (see the card)"
PLAIN, PLUS = "models/ip-adapter_sd15", "models/ip-adapter-plus_sd15"
XL_PLAIN, XL_PLUS = "sdxl_models/ip-adapter_sdxl_vit-h", "sdxl_models/ip-adapter-plus_sdxl_vit-h"
LCM_15 = {"distilled": "lcm", "lora": "latent-consistency/lcm-lora-sdv1-5/pytorch_lora_weights.safetensors"}
LCM_XL = {"distilled": "lcm", "lora": "latent-consistency/lcm-lora-sdxl/pytorch_lora_weights.safetensors"}
LIGHTNING = {"distilled": "lightning", "lora": "ByteDance/SDXL-Lightning/sdxl_lightning_4step_lora.safetensors"}
HYPER = {"distilled": "hyper-sd", "lora": "ByteDance/Hyper-SD/Hyper-SDXL-2steps-lora.safetensors"}
FP16 = {"variant": "fp16"}

MODELS: dict[str, tuple[KnownModel, ...]] = {
    "ip-adapter": (
        _adapted("sd15", SD15, PLAIN, RAIL, 4.7, 20, 512, **FP16),
        _adapted("sd15-plus", SD15, PLUS, RAIL, 4.8, 20, 512, **FP16),
        _adapted("sd15-lcm", SD15, PLAIN, RAIL, 4.8, 4, 512, **FP16, **LCM_15),
        _adapted("sdxl", SDXL, XL_PLAIN, RAIL_PLUS, 10.2, 20, 1024, **FP16),
        _adapted("sdxl-plus", SDXL, XL_PLUS, RAIL_PLUS, 10.4, 20, 1024, **FP16),
        _adapted("sdxl-lcm", SDXL, XL_PLAIN, RAIL_PLUS, 10.6, 4, 1024, **FP16, **LCM_XL),
        _adapted("sdxl-lightning", SDXL, XL_PLAIN, RAIL_PLUS, 10.6, 4, 1024, **FP16, **LIGHTNING),
        _adapted("sdxl-hyper", SDXL, XL_PLAIN, f"{RAIL_PLUS}; LoRA: see its card", 11.0, 2, 1024, **FP16, **HYPER),
        _adapted("sdxl-turbo", TURBO, XL_PLAIN, STABILITY, 10.2, 1, 512, **FP16, distilled="turbo"),
    ),
    "image-to-image": tuple(
        KnownModel(
            name=name,
            options={"model": model, **FP16, **more},
            licence=licence,
            gigabytes=gigabytes,
            steps=steps,
            resolution=resolution,
            strength=START,
        )
        for name, model, licence, gigabytes, steps, resolution, more in (
            ("sd15", SD15, RAIL, 2.1, 20, 512, {}),
            ("sdxl", SDXL, RAIL_PLUS, 6.9, 20, 1024, {}),
            ("sdxl-lightning", SDXL, RAIL_PLUS, 7.3, 4, 1024, LIGHTNING),
            ("sdxl-turbo", TURBO, STABILITY, 6.9, 4, 512, {"distilled": "turbo", "steps": 4}),
            ("sd-turbo", "stabilityai/sd-turbo", STABILITY, 2.6, 4, 512, {"distilled": "turbo", "steps": 4}),
        )
    ),
    "kandinsky": (
        KnownModel(
            name="kandinsky-2-2",
            options={
                "model": "kandinsky-community/kandinsky-2-2-decoder",
                "prior": "kandinsky-community/kandinsky-2-2-prior",
            },
            licence="Apache 2.0",
            gigabytes=17.0,
            steps=20,
            resolution=512,
        ),
    ),
    "unclip": (
        KnownModel(
            name="sd21-unclip",
            options={"model": "radames/stable-diffusion-2-1-unclip-img2img"},
            licence="see the card; the original was CreativeML Open RAIL++-M",
            gigabytes=8.5,
            steps=20,
            resolution=768,
        ),
    ),
}


def named_options(generator: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a generator's options with a known model's name replaced by what it stands for.

    Options that are given, other than None, are kept. A folder of that name in the working directory goes first.

    Args:
        generator: a key of ``viewgen.loading.GENERATORS``.
        options: its options; "model" may be a name of ``MODELS``.
    """
    given = dict(options)
    name = given.get("model")
    known = next((known for known in MODELS.get(generator, ()) if known.name == name), None)
    if known is None or Path(str(name)).exists():
        return given
    fixed = {**known.options}
    if known.revision != "main":
        fixed["model"] = f"{fixed['model']}@{known.revision}"
    kept = {key: value for key, value in given.items() if key != "model" and value is not None}
    return {**given, **fixed, **kept}


def models_table(generator: str | None = None) -> str:
    """Return the table of known weights as text, of one generator or of all.

    Raises:
        ValueError: if no weights are known for the generator.
    """
    if generator is not None and generator not in MODELS:
        raise ValueError(f"expected a generator of {', '.join(MODELS)}, got {generator!r}; it takes no names")
    header = ("generator", "--model", "steps", "pixels", "GB", "supervision", "licence", "hub ids (revision)")
    rows = [header]
    for kind, models in MODELS.items():
        if generator in (None, kind):
            rows += [_row(kind, model) for model in models]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    shown = [kind for kind in MODELS if generator in (None, kind)]
    return "\n".join([*lines, "", *(f"strength of {kind}: {MODELS[kind][0].strength}" for kind in shown)])


def _row(kind: str, model: KnownModel) -> tuple[str, ...]:
    numbers = (str(model.steps), str(model.resolution), f"{model.gigabytes:g}")
    places = ", ".join(model.hub_ids())
    return (kind, model.name, *numbers, model.supervision, model.licence, f"{places} ({model.revision})")
