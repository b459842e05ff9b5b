"""The networks of a Stable Diffusion 1.x, 2.x or SDXL folder: prompts to conditions, noise prediction, decoding.

Shapes: B images of H x W pixels, C, h, w the channels, height and width of the latents, P prompts of T tokens with
embedding size E, L the size of a pooled text embedding.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from genviews_core.backbones import first_line
from viewgen.diffusion.lora import merge_lora
from viewgen.diffusion.sampling import Conditions, decode_latents
from viewgen.diffusion.schedulers import (
    DISTILLED,
    DistilledName,
    SchedulerName,
    load_scheduler,
    make_distilled_scheduler,
    make_scheduler,
)
from viewgen.fingerprint import file_hash
from viewgen.pretrained import load_part, local_file, local_folder, parts_hash, pipeline_class

WHERE = (
    "give model= the folder or the hub id of a Stable Diffusion 1.5 or SDXL text-to-image pipeline in the layout of "
    "diffusers; `viewgen models` lists some"
)
COMMON = ("scheduler", "text_encoder", "tokenizer", "unet", "vae")
PARTS = {"sd": COMMON, "sdxl": (*COMMON, "text_encoder_2", "tokenizer_2")}
UNUSED = ("safety_checker/*",)
AUTOENCODERS = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}
Precision = Literal["float32", "bfloat16", "float16"]


class StableDiffusion:
    """A pretrained text-to-image model, without its safety checker.

    Args:
        model: a folder in the layout of diffusers, or a hub id of one; only safetensors are read.
        variant: variant of the weights if there are several, for example "fp16".
        dtype: dtype of the networks.
        device: device to run on.
        scheduler: see ``make_scheduler``.
        distilled: see ``make_distilled_scheduler``; replaces ``scheduler``.
        lora: a file of LoRA weights to merge into the UNet, or "owner/name/file.safetensors" on the hub.
        lora_scale: strength of the LoRA.
        unet_weights: a file of weights that replaces the UNet's, as SDXL-Lightning has, or its place on the hub.
        vae: the folder or the hub id of another autoencoder, such as a tiny one (TAESD) that decodes faster.
        render_size: size in pixels of the generated images; None uses the model's own.
        compile: compile the UNet and the decoder on first use.
        vae_slicing: decode one image at a time, for less memory.

    Attributes:
        kind: "sd" or "sdxl".
        steps: default number of steps; 20, or what a distilled model needs.
        hash: hash of all weights and configurations.

    Raises:
        ValueError: naming what is missing or does not fit.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        variant: str | None = None,
        dtype: Precision = "float32",
        device: str = "cpu",
        scheduler: SchedulerName = "checkpoint",
        distilled: DistilledName | None = None,
        lora: str | os.PathLike[str] | None = None,
        lora_scale: float = 1.0,
        unet_weights: str | os.PathLike[str] | None = None,
        vae: str | os.PathLike[str] | None = None,
        render_size: int | None = None,
        compile: bool = False,
        vae_slicing: bool = False,
    ) -> None:
        self.folder = local_folder(model, variant=variant, nested=True, hint=WHERE, without=UNUSED)
        self.kind = _kind(self.folder)
        self.device, self.dtype = torch.device(device), getattr(torch, dtype)
        own = load_scheduler(self.folder / "scheduler")
        self.scheduler = (
            make_scheduler(own, scheduler) if distilled is None else make_distilled_scheduler(own, distilled)
        )
        self.steps = 20 if distilled is None else DISTILLED[distilled].steps
        hashes = [parts_hash([self.folder / part for part in PARTS[self.kind]], variant)]
        self.unet: Any = load_part(UNet2DConditionModel, self.folder / "unet", dtype=dtype, variant=variant)
        if unet_weights is not None:
            hashes.append(_replace_weights(self.unet, local_file(unet_weights)))
        if lora is not None:
            path = local_file(lora)
            merge_lora(self.unet, path, scale=lora_scale)
            hashes.append(f"{file_hash(path)} x {lora_scale}")
        folder = self.folder / "vae"
        if vae is not None:
            folder = local_folder(vae, variant=None, nested=False, hint="give vae= an autoencoder of diffusers")
            hashes.append(parts_hash([folder], variant))
        self.vae: Any = _load_autoencoder(folder, dtype, variant, self.unet.config.in_channels)
        self.hash = hashes[0] if len(hashes) == 1 else "+".join(hashes)
        self.prompts = _PromptEncoder(self.folder, self.kind, dtype=dtype, variant=variant)
        self.vae_scale = 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.render_size: int = render_size or self.unet.config.sample_size * self.vae_scale
        if self.render_size % self.vae_scale:
            raise ValueError(f"expected render_size of a multiple of {self.vae_scale}, got {render_size}")
        self.unet.to(self.device, memory_format=torch.channels_last)
        self.vae.to(self.device, memory_format=torch.channels_last)
        if vae_slicing:
            self.vae.enable_slicing()
        if compile:
            self.unet.compile()
            self.vae.decoder.compile()

    def latent_shape(self) -> tuple[int, int, int]:
        """Return (C, h, w)."""
        side = self.render_size // self.vae_scale
        return self.unet.config.in_channels, side, side

    def text_conditions(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Return the conditions of prompts: "text" [P, T, E]; for SDXL also "pooled" [P, L] and "time_ids" [P, 6]."""
        made = self.prompts(prompts)
        if self.kind == "sdxl":
            sizes = [self.render_size, self.render_size, 0, 0, self.render_size, self.render_size]
            made["time_ids"] = torch.tensor([sizes] * len(prompts), dtype=torch.float32)
        return {name: value.to(self.device, self.dtype) for name, value in made.items()}

    def guided_by_embedding(self, scale: Float[Tensor, " B"]) -> dict[str, Tensor]:
        """Return the condition by which a guidance-distilled UNet (LCM) takes the scale; empty for all others."""
        width = self.unet.config.time_cond_proj_dim
        if width is None:
            return {}
        frequencies = torch.exp(-torch.arange(width // 2) * torch.log(torch.tensor(10000.0)) / (width // 2 - 1))
        angles = (scale.float().cpu() - 1)[:, None] * 1000 * frequencies
        code = torch.cat([angles.sin(), angles.cos()], dim=1)
        return {"guidance": torch.nn.functional.pad(code, (0, width % 2)).to(self.device, self.dtype)}

    def network(
        self, latents: Float[Tensor, "B C h w"], timestep: Tensor, conditions: Conditions
    ) -> Float[Tensor, "B C h w"]:
        """Return the UNet's predictions in float32.

        Conditions are those of ``text_conditions``, perhaps "guidance", and "image", the tokens of an image adapter.
        """
        added = {"text_embeds": "pooled", "time_ids": "time_ids", "image_embeds": "image"}
        kwargs: dict[str, Any] = {name: conditions[key] for name, key in added.items() if key in conditions}
        if "image_embeds" in kwargs:
            kwargs["image_embeds"] = [kwargs["image_embeds"]]
        return self.unet(
            latents.to(self.dtype, memory_format=torch.channels_last),
            timestep.to(self.device),
            encoder_hidden_states=conditions["text"],
            timestep_cond=conditions.get("guidance"),
            added_cond_kwargs=kwargs,
            return_dict=False,
        )[0].float()

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
        """Decode latents to pixels in about [0, 1]."""
        overflows = self.kind == "sdxl" and bool(self.vae.config.get("force_upcast"))
        return decode_latents(self.vae, latents, half_overflows=overflows) / 2 + 0.5


def _kind(folder: Path) -> Literal["sd", "sdxl"]:
    """Return which of the two layouts a folder has.

    Raises:
        ValueError: if it has neither.
    """
    named = pipeline_class(folder)
    kind = "sdxl" if (folder / "text_encoder_2").is_dir() else "sd"
    lacking = [part for part in PARTS[kind] if not (folder / part).is_dir()]
    foreign = [
        part for part in ("prior", "transformer", "image_normalizer", "text_encoder_3") if (folder / part).is_dir()
    ]
    if lacking or foreign:
        problem = f"which lacks {', '.join(lacking)}" if lacking else f"which has {', '.join(foreign)}"
        what = f"a {named}" if named else "no pipeline"
        raise ValueError(f"expected a Stable Diffusion or SDXL folder, got {folder} ({what}), {problem}; {WHERE}")
    return kind


def _load_autoencoder(folder: Path, dtype: str, variant: str | None, channels: int) -> Any:
    try:
        named = json.loads((folder / "config.json").read_text()).get("_class_name")
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {folder}/config.json: {first_line(error)}") from error
    if named not in AUTOENCODERS:
        raise ValueError(f"expected an autoencoder of {', '.join(AUTOENCODERS)} in {folder}, got {named}; give another")
    vae = load_part(AUTOENCODERS[named], folder, dtype=dtype, variant=variant)
    if vae.config.latent_channels != channels:
        raise ValueError(
            f"expected an autoencoder of {channels} latent channels, as the UNet's, got "
            f"{vae.config.latent_channels} in {folder}; give that of this model's family"
        )
    return vae


def _replace_weights(unet: Any, path: Path) -> str:
    """Load a file of weights into the UNet and return its hash."""
    try:
        state = load_file(path)
    except Exception as error:  # a broken file raises many unrelated types
        raise ValueError(f"cannot read the UNet weights {path} ({first_line(error)}); download them again") from error
    expected = {name: value.shape for name, value in unet.state_dict().items()}
    found = {name: value.shape for name, value in state.items()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        raise ValueError(
            f"the UNet weights {path} do not fit the base: {len(wrong)} of {len(expected)} are missing, surplus or of "
            f"another size ({', '.join(wrong[:2])}); give those of this base"
        )
    unet.load_state_dict(state)
    return file_hash(path)


def expand_prompts(text: Conditions, count: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Repeat the conditions of a negative prompt and a prompt for each image of a batch."""
    none, given = ({name: value[row].expand(count, *value.shape[1:]) for name, value in text.items()} for row in (0, 1))
    return none, given


class _PromptEncoder:
    """The text encoders, on the CPU; ``release`` frees their memory once all prompts are encoded."""

    def __init__(self, folder: Path, kind: str, *, dtype: str, variant: str | None) -> None:
        names: list[tuple[str, str, Any]] = [("tokenizer", "text_encoder", CLIPTextModel)]
        if kind == "sdxl":
            names.append(("tokenizer_2", "text_encoder_2", CLIPTextModelWithProjection))
        self.kind = kind
        self.pairs: list[tuple[Any, Any]] = []
        for tokenizer, encoder, network in names:
            try:
                words = CLIPTokenizer.from_pretrained(folder / tokenizer, local_files_only=True)
            except Exception as error:  # missing or broken files raise many unrelated types
                raise ValueError(f"cannot read the tokenizer in {folder / tokenizer} ({first_line(error)})") from error
            self.pairs.append((words, load_part(network, folder / encoder, dtype=dtype, variant=variant)))

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Encode each prompt, padded to the text encoders' full length, one at a time as no other prompt matters."""
        texts, pooled = [], []
        for tokenizer, encoder in self.pairs:
            length = tokenizer.model_max_length
            tokens = tokenizer(
                list(prompts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
            )
            masked = self.kind == "sd" and getattr(encoder.config, "use_attention_mask", False)
            device = encoder.device
            mask = tokens.attention_mask.to(device) if masked else None
            encoded = encoder(
                tokens.input_ids.to(device), attention_mask=mask, output_hidden_states=self.kind == "sdxl"
            )
            texts.append(encoded[0] if self.kind == "sd" else encoded.hidden_states[-2])
            pooled.append(encoded[0])
        made = {"text": torch.cat(texts, dim=-1)}
        return made if self.kind == "sd" else {**made, "pooled": pooled[-1]}

    def to(self, device: torch.device) -> None:
        """Move the encoders."""
        for _, encoder in self.pairs:
            encoder.to(device)

    def release(self) -> None:
        """Forget the encoders."""
        self.pairs.clear()
