"""Validate backbone.json against an allow-list of architectures and of their options with types and ranges.

Backbone folders are untrusted. Anything not listed here never reaches a constructor, so no option can start a download
or open another file; `folder` allocates no more memory than the tensors in the folder justify.
"""

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from genviews_core.backbones.names import CIFAR_RESNETS, DINO_VITS, MOCO_VITS, TIMM, TORCHVISION_RESNETS, WIDENED

Architecture = dict[str, Any]
"""Arguments of `create_backbone`, including `name`."""
WITHOUT_MEANING = ("pretrained", "weights", "progress")
"""Options that only select the initial weights; a backbone folder holds its own weights."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """The values that an option accepts.

    Attributes:
        kind: the type; an int is accepted as a float, but a bool is never accepted as a number.
        low: smallest number.
        high: largest number.
        choices: allowed strings or numbers; if empty, any value in range.
        pattern: regular expression that strings must match.
        many: whether a list of 1 to 8 values is accepted as well.
    """

    kind: type
    low: float | int = 0
    high: float | int = math.inf
    choices: tuple[Any, ...] = field(default=())
    pattern: str = ""
    many: bool = False

    def accepts(self, value: Any) -> bool:
        """Return whether the option accepts the value."""
        if self.many and isinstance(value, list | tuple):
            return 1 <= len(value) <= 8 and all(self._accepts_one(each) for each in value)
        return self._accepts_one(value)

    def _accepts_one(self, value: Any) -> bool:
        if type(value) is not self.kind and not (self.kind is float and type(value) is int):
            return False
        if self.choices:
            return value in self.choices
        if isinstance(value, str):
            return re.fullmatch(self.pattern, value) is not None
        return isinstance(value, bool) or self.low <= value <= self.high

    def __str__(self) -> str:
        if self.kind is bool:
            return "true or false"
        if self.choices:
            return f"one of {', '.join(repr(choice) for choice in self.choices)}"
        if self.kind is str:
            return "a name of lowercase letters, digits and underscores"
        numbers = {int: "a whole number", float: "a number"}[self.kind]
        return f"{numbers} from {self.low:g} to {self.high:g}" + (" or a list of them" if self.many else "")


FLAG = Option(kind=bool)
LARGEST = 1e30
"""Largest pixel value."""
PIXELS = Option(kind=int, low=1, high=8192)
WORD = Option(kind=str, pattern="[a-z0-9_]{1,40}")
PROBABILITY = Option(kind=float, low=0, high=0.999)


def _count(high: int, low: int = 1, *, many: bool = False) -> Option:
    return Option(kind=int, low=low, high=high, many=many)


def _each(option: Option, *names: str) -> dict[str, Option]:
    return dict.fromkeys(names, option)


IN_CHANS = "in_chans"
"""Option of all architectures, with timm's name: channels of the images, 3 if it is missing."""
SIZE = {"image_size": PIXELS, IN_CHANS: Option(kind=int, low=1, high=256)}
STEM = {"cifar_stem": FLAG, "stem_padding": _count(3)}
VIT = {
    **_each(PIXELS, "img_size", "patch_size"),
    **_each(_count(16384, many=True), "embed_dim"),
    **_each(_count(256, many=True), "depth", "num_heads"),
    **_each(Option(kind=float, low=0.01, high=64, many=True), "mlp_ratio"),
    **_each(Option(kind=float, low=0, high=100), "init_values"),
    **_each(_count(1024, low=0), "reg_tokens"),
    **_each(Option(kind=str, choices=("", "avg", "avgmax", "max", "token", "map")), "global_pool"),
    **_each(Option(kind=str, choices=("", "none", "learn")), "pos_embed"),
    **_each(FLAG, "qkv_bias", "qk_norm", "class_token", "no_embed_class", "pre_norm", "fc_norm", "final_norm"),
    **_each(FLAG, "dynamic_img_size", "dynamic_img_pad", "strict_img_size"),
    **_each(PROBABILITY, "drop_rate", "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate"),
    **_each(PROBABILITY, "drop_path_rate"),
}
TIMM_OPTIONS = {
    **VIT,
    **_each(_count(256, many=True), "depths", "layers", "window_size", "cardinality"),
    **_each(_count(16384, many=True), "dims", "channels", "base_width", "stem_width"),
    **_each(Option(kind=int, choices=(8, 16, 32)), "output_stride"),
    **_each(Option(kind=str, choices=("", "deep", "deep_tiered")), "stem_type"),
    **_each(FLAG, "avg_down", "zero_init_last", "conv_mlp", "conv_bias", "use_grn"),
    **_each(Option(kind=float, low=0, high=100), "ls_init_value", "drop_block_rate"),
    **_each(WORD, "act_layer", "norm_layer"),
}
"""Options of timm networks that change the architecture and are plain values; timm rejects those a network lacks."""
RESNET_OPTIONS = {
    **STEM,
    **_each(FLAG, "zero_init_residual"),
    **_each(_count(256), "groups"),
    **_each(_count(4096), "width_per_group"),
}


def options_of(name: str) -> Mapping[str, Option]:
    """Return the options that an architecture accepts.

    Raises:
        ValueError: the architecture is unknown.
    """
    if name in TORCHVISION_RESNETS:
        return {**SIZE, **RESNET_OPTIONS}
    if name == "resnet10":
        return {**SIZE, "width": _count(2048), "cifar_stem": FLAG, "stem_stride": _count(4)}
    if name in CIFAR_RESNETS:
        return SIZE
    if name == WIDENED:
        depth = Option(kind=int, choices=(50, 101, 152, 200))
        return {**SIZE, "depth": depth, "widen": _count(8), "same_padding": FLAG}
    if name in MOCO_VITS:
        return {**SIZE, **VIT, "freeze_patch_embed": FLAG}
    if name in DINO_VITS:
        return {**SIZE, **VIT}
    if re.fullmatch(rf"{TIMM}[a-z0-9_]+(\.[a-z0-9_]+)?", name):
        return {**SIZE, **TIMM_OPTIONS}
    raise ValueError(f"unknown architecture {name[:80]!r}: expected {KINDS}")


KINDS = ", ".join(
    ["a ResNet of torchvision", "resnet10", *CIFAR_RESNETS, WIDENED, *MOCO_VITS, *DINO_VITS, f"or {TIMM}<name>"]
)


def check_architecture(architecture: Any) -> Architecture:
    """Return the architecture of a backbone.json after validating its name and options; nothing is built.

    Raises:
        ValueError: an unknown architecture or option, or a value of another type or out of range.
    """
    if not isinstance(architecture, Mapping) or not isinstance(name := architecture.get("name"), str):
        raise ValueError("expected an architecture with a name")
    known = options_of(name)
    for option, value in architecture.items():
        if option == "name":
            continue
        if option not in known:
            near = difflib.get_close_matches(str(option), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"{name} takes {', '.join(known)}"
            raise ValueError(f"unknown option {str(option)[:80]!r} of {name}: {hint}")
        if not known[option].accepts(value):
            raise ValueError(f"{option} of {name}: expected {known[option]}, got {repr(value)[:80]}")
    return dict(architecture)


def described(architecture: Mapping[str, Any]) -> Architecture:
    """Return the architecture to store in backbone.json for a network made by `create_backbone(**architecture)`.

    Raises:
        ValueError: it is not allowed, so that it could not be loaded again.
    """
    return check_architecture({key: value for key, value in architecture.items() if key not in WITHOUT_MEANING})


def channels_of(architecture: Mapping[str, Any]) -> int:
    """Return the number of channels of the images that an architecture takes."""
    return architecture.get(IN_CHANS, 3)


def check_images(recipe: Any, channels: int = 3) -> dict[str, Any]:
    """Return `size`, `mean` and `std` of the images from a recipe; keys that it does not have are omitted.

    `value_range` is returned as well for images of other than three channels: the values of each channel that are
    mapped to 0 and 255 in images of more than 8 bits.

    Raises:
        ValueError: a value is of the wrong type or out of range.
    """
    if not isinstance(recipe, Mapping):
        raise ValueError(f"recipe: expected an object, got {type(recipe).__name__}")
    result: dict[str, Any] = {}
    if recipe.get("image_size") is not None:
        if not PIXELS.accepts(recipe["image_size"]):
            raise ValueError(f"image_size: expected {PIXELS}, got {repr(recipe['image_size'])[:80]}")
        result["size"] = recipe["image_size"]
    for name, low in (("mean", -100.0), ("std", 1e-4)):
        if recipe.get(name) is not None:
            number, value = Option(kind=float, low=low, high=100), recipe[name]
            if not isinstance(value, list | tuple) or len(value) != channels or not all(map(number.accepts, value)):
                raise ValueError(f"{name}: expected {channels} numbers from {low:g} to 100, got {repr(value)[:80]}")
            result[name] = tuple(float(each) for each in value)
    if channels != 3 and recipe.get("value_range") is not None:
        result["value_range"] = _check_range(recipe["value_range"], channels)
    return result


def _check_range(value: Any, channels: int) -> tuple[float, ...]:
    number = Option(kind=float, low=-LARGEST, high=LARGEST)
    fits = isinstance(value, list | tuple) and len(value) in (2, 2 * channels) and all(map(number.accepts, value))
    if not fits or not all(low < high for low, high in zip(value[::2], value[1::2], strict=True)):
        raise ValueError(f"value_range: expected low and high of {channels} channels, got {repr(value)[:80]}")
    return tuple(float(each) for each in value)
