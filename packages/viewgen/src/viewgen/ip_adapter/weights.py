"""The files of an IP-Adapter in the layout of h94/IP-Adapter: the adapter's weights and CLIP's image encoder.

Shapes: B images, T tokens of the image encoder, D its embedding size, N tokens for the UNet with size E.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor, nn

from genviews_core.backbones import first_line
from viewgen.fingerprint import files_hash
from viewgen.pretrained import hub_snapshot, local_file, local_folder, parts_hash

HOLDS = (
    "give adapter= a .safetensors file of an IP-Adapter beside its image_encoder folder, or its place on the hub, "
    "such as h94/IP-Adapter/models/ip-adapter_sd15.safetensors"
)
ENCODERS = ("image_encoder", "../models/image_encoder", "../sdxl_models/image_encoder")  # relative to the adapter
# by output and size, in h94/IP-Adapter: CLIP ViT-H/14 and ViT-bigG/14, of the embedding and of the hidden states
HUB_ENCODERS = {1024: "models/image_encoder", 1280: "models/image_encoder", 1664: "sdxl_models/image_encoder"}
HUB_ENCODERS_OF_EMBEDDINGS = {**HUB_ENCODERS, 1280: "sdxl_models/image_encoder"}


@dataclass(frozen=True, kw_only=True)
class AdapterWeights:
    """An adapter and the image encoder that it was trained with.

    Attributes:
        path: the adapter's file.
        encoder: folder of the image encoder.
        output: output of the encoder that the adapter takes, see ``ClipImages``.
        dim: D.
        projection: weights of the projection to tokens.
        attention: weights of the UNet's added keys and values.
    """

    path: Path
    encoder: Path
    output: Literal["embedding", "tokens"]
    dim: int
    projection: dict[str, Tensor]
    attention: dict[str, Tensor]

    def hash(self) -> str:
        """Return the hash of the adapter's and the encoder's files."""
        return f"{files_hash([(self.path.name, self.path)])}+{parts_hash([self.encoder])}"


def read_adapter(adapter: str | os.PathLike[str], encoder: str | os.PathLike[str] | None = None) -> AdapterWeights:
    """Read an adapter's file and find its image encoder.

    Args:
        adapter: a file, or "owner/name/path" on the hub.
        encoder: folder of the image encoder; by default the one beside the adapter that fits it.

    Raises:
        ValueError: if the file is not that of an IP-Adapter, or no encoder fits it.
    """
    path = local_file(adapter)
    groups: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            for key in file.keys():  # noqa: SIM118
                group, _, name = key.partition(".")
                groups.setdefault(group, {})[name] = file.get_tensor(key)
    except Exception as error:  # a broken file raises many unrelated types
        raise ValueError(f"cannot read the adapter {path} ({first_line(error)}); download it again") from error
    projection, attention = groups["image_proj"], groups["ip_adapter"]
    if not projection or not attention:
        found = ", ".join(sorted(group for group, held in groups.items() if held)[:2]) or "nothing"
        raise ValueError(f"expected tensors image_proj.* and ip_adapter.* in {path}, got {found}; {HOLDS}")
    output, dim = _takes(path, projection)
    folder = (
        _find_encoder(path, adapter, output, dim)
        if encoder is None
        else local_folder(
            encoder, variant=None, nested=False, hint="give image_encoder= the folder of a CLIP vision tower"
        )
    )
    if _encoder_dim(folder, output) != dim:
        raise ValueError(
            f"the adapter {path} takes a CLIP {output} of size {dim}, that of {folder} has "
            f"{_encoder_dim(folder, output)}; give image_encoder= the encoder that it was trained with"
        )
    return AdapterWeights(path=path, encoder=folder, output=output, dim=dim, projection=projection, attention=attention)


def _takes(path: Path, projection: dict[str, Tensor]) -> tuple[Literal["embedding", "tokens"], int]:
    if "proj.weight" in projection:  # IP-Adapter
        return "embedding", projection["proj.weight"].shape[1]
    if "proj.3.weight" in projection and "proj.0.weight" in projection:  # full face
        return "tokens", projection["proj.0.weight"].shape[1]
    if "latents" in projection and "proj_in.weight" in projection:  # plus
        return "tokens", projection["proj_in.weight"].shape[1]
    raise ValueError(
        f"{path} is an IP-Adapter of another kind than plain, plus or full face (FaceID needs a face detector); {HOLDS}"
    )


def _encoder_dim(folder: Path, output: str) -> int | None:
    try:
        config = json.loads((folder / "config.json").read_text())
        return config["projection_dim" if output == "embedding" else "hidden_size"]
    except (OSError, ValueError, KeyError):
        return None


def _find_encoder(path: Path, adapter: str | os.PathLike[str], output: str, dim: int) -> Path:
    """Return the first folder beside the adapter that fits it, downloading it if the adapter is the hub's."""
    if not Path(adapter).expanduser().is_file():
        places = HUB_ENCODERS_OF_EMBEDDINGS if output == "embedding" else HUB_ENCODERS
        owner, name, inside = str(adapter).split("/", 2)
        if dim in places and inside.startswith(("models/", "sdxl_models/")):
            wanted = [f"{places[dim]}/{file}" for file in ("config.json", "model.safetensors")]
            hub_snapshot(f"{owner}/{name}", wanted, [], HOLDS)
    folders = [path.parent / place for place in ENCODERS]
    found = {folder: _encoder_dim(folder, output) for folder in folders if folder.is_dir()}
    fitting = next((folder for folder, size in found.items() if size == dim), None)
    if fitting is None:
        seen = ", ".join(f"{size} in {folder}" for folder, size in found.items()) or "none"
        raise ValueError(
            f"expected an image encoder with a CLIP {output} of size {dim} beside {path}, got {seen}; "
            "give image_encoder= its folder"
        )
    return fitting.resolve()


def attach_adapter(
    unet: Any, weights: AdapterWeights, *, scale: float
) -> Callable[[Float[Tensor, "B *T D"]], Float[Tensor, "B 1 N E"]]:
    """Add an adapter's attention to a UNet, and return its projection of image embeddings to tokens.

    The projection is evaluated once for each image, not at every step as in diffusers' pipelines: the UNet takes the
    tokens.

    Args:
        unet: diffusers UNet.
        weights: the adapter.
        scale: weight of the image's attention beside the text's; 1 as it was trained.

    Raises:
        ValueError: if the adapter does not fit the UNet.
    """
    _check_fit(unet, weights)
    try:
        state = {"image_proj": weights.projection, "ip_adapter": weights.attention}
        unet._load_ip_adapter_weights([state], low_cpu_mem_usage=False)
    except Exception as error:  # missing and misshapen tensors raise several types
        reason = " ".join(str(error).split())[:160]
        raise ValueError(f"cannot read the adapter {weights.path} ({reason}); download it again") from error
    for processor in unet.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [scale]
    projection = unet.encoder_hid_proj.eval().requires_grad_(False)
    unet.encoder_hid_proj = nn.Identity()
    unet.requires_grad_(False)

    @torch.no_grad()
    def project(embeddings: Float[Tensor, "B *T D"]) -> Float[Tensor, "B 1 N E"]:
        held = next(projection.parameters())
        return projection([embeddings.to(held.device, held.dtype).unsqueeze(1)])[0]

    return project


def _check_fit(unet: Any, weights: AdapterWeights) -> None:
    names = [name for name in unet.attn_processors if not name.endswith("attn1.processor")]
    state = unet.state_dict()
    shapes = [state[f"{name.removesuffix('.processor')}.to_k.weight"].shape for name in names]
    order = {name: 2 * index + 1 for index, name in enumerate(names)}
    found = [weights.attention.get(f"{order[name]}.to_k_ip.weight") for name in names]
    if any(value is None or value.shape != shape for value, shape in zip(found, shapes, strict=True)):
        keys = [value for key, value in weights.attention.items() if key.endswith("to_k_ip.weight")]
        widths = sorted({value.shape[1] for value in keys})
        raise ValueError(
            f"the adapter {weights.path} does not fit its base: it has {len(keys)} attention layers of text size "
            f"{', '.join(map(str, widths))}, the base {len(names)} of {shapes[0][1]}; give an adapter for this base "
            "(SD 1.5 has 16 of 768, SDXL 70 of 2048)"
        )
