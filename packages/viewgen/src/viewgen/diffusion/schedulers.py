"""Schedulers of diffusers for pretrained models and their distilled forms."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import diffusers
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers

from genviews_core.backbones import first_line

SchedulerName = Literal["checkpoint", "ddim", "dpm", "euler", "unipc"]
DistilledName = Literal["lcm", "turbo", "lightning", "lightning-x0", "hyper-sd", "tcd"]
SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "dpm": "DPMSolverMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "unipc": "UniPCMultistepScheduler",
}
DISTILLED_SCHEDULERS = ("LCMScheduler", "TCDScheduler")  # beyond those that all of diffusers' pipelines share


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """Sampling settings of a distilled model, from its model card.

    Attributes:
        scheduler: class of diffusers.
        config: replaces the base's scheduler configuration.
        steps: default number of steps.
    """

    scheduler: str
    config: dict[str, Any] = field(default_factory=dict)
    steps: int = 4


TRAILING = {"timestep_spacing": "trailing"}
DISTILLED = {
    "lcm": Distilled(scheduler="LCMScheduler"),  # https://arxiv.org/abs/2311.05556
    "turbo": Distilled(scheduler="EulerAncestralDiscreteScheduler", config=TRAILING, steps=1),  # 2311.17042
    "lightning": Distilled(scheduler="EulerDiscreteScheduler", config=TRAILING),  # https://arxiv.org/abs/2402.13929
    "lightning-x0": Distilled(
        scheduler="EulerDiscreteScheduler", config={**TRAILING, "prediction_type": "sample"}, steps=1
    ),
    "hyper-sd": Distilled(scheduler="DDIMScheduler", config=TRAILING, steps=2),  # https://arxiv.org/abs/2404.13686
    "tcd": Distilled(scheduler="TCDScheduler"),  # https://arxiv.org/abs/2402.19159, and Hyper-SD in one step
}


def load_scheduler(folder: Path) -> Any:
    """Load the scheduler that the folder's configuration names.

    Raises:
        ValueError: if diffusers' pipelines do not know it, or it draws one noise for a whole batch.
    """
    try:
        kind = json.loads((folder / "scheduler_config.json").read_text())["_class_name"]
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"cannot read {folder}/scheduler_config.json: {first_line(error)}") from error
    known = {scheduler.name for scheduler in KarrasDiffusionSchedulers} - {"DPMSolverSDEScheduler"}
    known |= {*DISTILLED_SCHEDULERS, "DDPMScheduler", "UnCLIPScheduler"}
    if kind not in known:
        raise ValueError(f"expected a scheduler of {', '.join(sorted(known))} in {folder}, got {kind!r}")
    return getattr(diffusers, kind).from_pretrained(folder, local_files_only=True)


def make_scheduler(own: Any, name: SchedulerName) -> Any:
    """Return the checkpoint's own scheduler, or another with its noise schedule and no clipping, as latents need.

    Raises:
        ValueError: if there is none of that name.
    """
    if name == "checkpoint":
        return own
    if name not in SCHEDULERS:
        raise ValueError(f"expected a scheduler of checkpoint, {', '.join(SCHEDULERS)}, got {name!r}")
    return getattr(diffusers, SCHEDULERS[name]).from_config(own.config, clip_sample=False, thresholding=False)


def make_distilled_scheduler(own: Any, name: DistilledName) -> Any:
    """Return the scheduler of a distilled model, with the noise schedule of the checkpoint's own.

    Raises:
        ValueError: if there is none of that name.
    """
    if name not in DISTILLED:
        raise ValueError(f"expected distilled of {', '.join(DISTILLED)}, got {name!r}")
    recipe = DISTILLED[name]
    config = {"clip_sample": False, "thresholding": False, **recipe.config}
    return getattr(diffusers, recipe.scheduler).from_config(own.config, **config)
