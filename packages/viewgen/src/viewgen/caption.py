"""Image to caption to image: a captioner describes it, a text-to-image model generates from that (GenCL's future work).

The condition is the caption itself: bytes of UTF-8, so that it can be cached, read, and written by hand.

Shapes: B images of a batch, H, W their sides in pixels, N bytes kept of a caption.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
import transformers
from diffusers import AutoPipelineForText2Image
from diffusers.utils import is_accelerate_available
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from genviews_core.backbones import first_line
from viewgen.generator import to_uint8
from viewgen.pretrained import licence_of, load_part, local_folder, parts_hash

CAPTION_BYTES = 256  # more than the 77 tokens that Stable Diffusion reads of a prompt, mostly
CHAT_INSTRUCTION = "Describe this image in one sentence."
CAPTIONER = "give captioner= the folder or the hub id of a transformers image captioner"
TEXT_TO_IMAGE = "give model= the folder or the hub id of a diffusers text-to-image pipeline"


class CaptionGenerator:
    """Views generated from the image's caption by a text-to-image model; they keep only what the caption says.

    Args:
        captioner: a folder or hub id of a transformers captioner (BLIP, BLIP-2, GIT, an encoder-decoder as ViT-GPT2) or
            of a chat model that sees images; only safetensors are read.
        model: a folder or hub id of a diffusers text-to-image pipeline; only safetensors are read. Its safety checker,
            if it has one, stays on and blackens what it refuses.
        instruction: instruction for the captioner. None asks a chat model to describe the image in one sentence, and
            gives a captioner none.
        max_tokens: longest caption, in the captioner's tokens.
        caption_batch: images captioned together. More than one is faster, but near ties between two words may then be
            resolved differently from batch to batch.
        template: the prompt, with {caption} where the caption goes.
        negative_prompt: negative prompt for guidance.
        steps: denoising steps; 50 is diffusers' default for Stable Diffusion.
        guidance: guidance scale; 7.5 is diffusers' default for Stable Diffusion.
        render_size: size in pixels of the generated images; None uses the pipeline's default.
        output_size: size of the views in pixels, resized from the generated images; None keeps their size.
        input_size: size in pixels of the square crops to caption, 384 as BLIP's; None uses whole images.
        variant: variant of the pipeline's weights if there are several, for example "fp16".
        dtype: dtype of the networks.
        compile: compile the pipeline's denoising network on first use; takes minutes, then runs faster on a GPU.
        vae_slicing: decode one image at a time, for less memory.
        device: device to run on.

    Raises:
        ValueError: if a model is missing or of the wrong kind.
    """

    name = "caption"
    supervision = "captions"

    def __init__(
        self,
        *,
        captioner: str | os.PathLike[str],
        model: str | os.PathLike[str],
        instruction: str | None = None,
        max_tokens: int = 32,
        caption_batch: int = 1,
        template: str = "{caption}",
        negative_prompt: str = "",
        steps: int = 50,
        guidance: float = 7.5,
        render_size: int | None = None,
        output_size: int | None = None,
        input_size: int | None = 384,
        variant: str | None = None,
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        compile: bool = False,
        vae_slicing: bool = False,
        device: str = "cpu",
    ) -> None:
        if "{caption}" not in template:
            raise ValueError(f"expected a template that contains {{caption}}, got {template!r}")
        eyes = local_folder(captioner, variant=None, nested=False, hint=CAPTIONER)
        brush = local_folder(model, variant=variant, nested=True, hint=TEXT_TO_IMAGE)
        self.captioner = Captioner(eyes, instruction=instruction, max_tokens=max_tokens, dtype=dtype, device=device)
        self.pipeline = load_pipeline(brush, dtype=dtype, variant=variant).to(device)
        self.caption_batch, self.template, self.negative_prompt = caption_batch, template, negative_prompt
        self.steps, self.guidance = steps, guidance
        self.render_size, self.output_size, self.input_size = render_size, output_size, input_size
        self.model_hash = parts_hash([eyes, *(brush / part for part in sorted(self.pipeline.components))], variant)
        self.model_id = f"{captioner} -> {model}"
        self.licence = f"{licence_of(eyes, captioner)} (captioner), {licence_of(brush, model)} (text to image)"
        _tune(self.pipeline, compile=compile, vae_slicing=vae_slicing)
        self.settings = {
            "instruction": instruction,
            "max_tokens": max_tokens,
            "template": template,
            "negative_prompt": negative_prompt,
            "steps": steps,
            "guidance": guidance,
            "render_size": render_size,
            "output_size": output_size,
            "input_size": input_size,
            "dtype": dtype,
        }

    def condition(self, images: UInt8[Tensor, "B 3 H W"]) -> UInt8[Tensor, "B N"]:
        """Return the images' captions, encoded by ``encode_captions``."""
        captions = [self.captioner(batch) for batch in images.split(self.caption_batch)]
        return encode_captions([caption for batch in captions for caption in batch])

    def captions(self, condition: Tensor) -> list[str]:
        """Decode conditions to captions; errors as for ``decode_captions``."""
        return decode_captions(condition)

    def generate(
        self, condition: Tensor, *, seeds: Sequence[int], strength: Float[Tensor, " B"] | None = None
    ) -> UInt8[Tensor, "B 3 H W"]:
        """Generate one view per caption.

        Args:
            condition: captions, [B, N].
            seeds: one per view.
            strength: must be None.

        Raises:
            ValueError: if a strength is given, or the conditions are not one caption a seed.
        """
        if strength is not None:
            raise ValueError("expected no strength, which caption does not support, got one; leave it None")
        captions = decode_captions(condition)
        if len(captions) != len(seeds):
            raise ValueError(f"expected one caption per seed, got {len(captions)} captions for {len(seeds)} seeds")
        options: dict[str, Any] = {"num_inference_steps": self.steps, "guidance_scale": self.guidance}
        if self.render_size is not None:
            options |= {"height": self.render_size, "width": self.render_size}
        if self.negative_prompt:
            options["negative_prompt"] = [self.negative_prompt] * len(seeds)
        painted = self.pipeline(
            prompt=[self.template.replace("{caption}", caption) for caption in captions],
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="pt",
            **options,
        )
        return to_uint8(painted.images, self.output_size)


def encode_captions(captions: Sequence[str]) -> UInt8[Tensor, "B N"]:
    """Encode captions as UTF-8, truncated at a character boundary to at most N bytes and padded with zeros."""
    rows = torch.zeros(len(captions), CAPTION_BYTES, dtype=torch.uint8)
    for row, caption in zip(rows, captions, strict=True):
        text = caption.encode()[:CAPTION_BYTES].decode(errors="ignore").encode()
        row[: len(text)] = torch.tensor(list(text), dtype=torch.uint8)
    return rows


def decode_captions(condition: Tensor) -> list[str]:
    """Decode the captions of ``encode_captions`` from any numeric dtype, such as that of a cache.

    Raises:
        ValueError: if they are not captions, or were interpolated.
    """
    whole = condition.ndim == 2 and torch.equal(condition.float(), condition.to(torch.uint8).float())
    try:
        if not whole:
            raise ValueError("values that are not bytes")
        return [bytes(row).rstrip(b"\0").decode() for row in condition.to(torch.uint8).tolist()]
    except ValueError as error:
        raise ValueError(f"expected captions from condition(), got other values ({error})") from error


class Captioner:
    """A frozen transformers captioning model with greedy decoding.

    Args:
        folder: its files.
        instruction: instruction, or None.
        max_tokens: longest caption.
        dtype: dtype of its weights.
        device: device to run on.

    Raises:
        ValueError: if the files are not those of a captioner.
    """

    def __init__(self, folder: Path, *, instruction: str | None, max_tokens: int, dtype: str, device: str) -> None:
        self.network: Any = load_part(AutoModelForImageTextToText, folder, dtype=dtype, surplus=True).to(device)
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, **local)
            self.image_processor: Any = AutoImageProcessor.from_pretrained(folder, **local)
            joint = self.network.config.model_type != "vision-encoder-decoder"
            self.processor: Any = AutoProcessor.from_pretrained(folder, **local) if joint else None
        except Exception as error:  # missing or broken files raise many unrelated types
            raise ValueError(
                f"{folder} lacks a captioner's tokenizer or image processor: {first_line(error)}"
            ) from error
        if instruction is not None and self.processor is None:
            raise ValueError(f"the captioner {folder} takes no instruction; leave instruction None")
        self.chats = bool(getattr(self.processor, "chat_template", None))
        self.instruction, self.max_tokens, self.device = instruction, max_tokens, device

    @torch.no_grad()
    def __call__(self, images: UInt8[Tensor, "B 3 H W"]) -> list[str]:
        """Return one caption per image, without line breaks."""
        inputs = [Image.fromarray(image.permute(1, 2, 0).cpu().numpy()) for image in images]
        inputs = self._inputs(inputs).to(self.device)
        inputs = {key: self._cast(value) for key, value in inputs.items()}
        prompt = inputs.get("input_ids")
        tokens = self.network.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=self.max_tokens)
        if prompt is not None and torch.equal(tokens[:, : prompt.shape[1]], prompt):  # decoder-only models repeat it
            tokens = tokens[:, prompt.shape[1] :]
        return [" ".join(text.split()) for text in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)]

    def _inputs(self, images: list[Image.Image]) -> Any:
        if self.chats:
            text = {"type": "text", "text": self.instruction or CHAT_INSTRUCTION}
            turns = [[{"role": "user", "content": [{"type": "image", "image": one}, text]}] for one in images]
            options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
            return self.processor.apply_chat_template(turns, **options)
        if self.instruction is None:
            return self.image_processor(images=images, return_tensors="pt")
        return self.processor(images=images, text=[self.instruction] * len(images), return_tensors="pt")

    def _cast(self, value: Tensor) -> Tensor:
        return value.to(self.network.dtype) if value.is_floating_point() else value


def load_pipeline(folder: Path, *, dtype: str, variant: str | None) -> Any:
    """Load the text-to-image pipeline in a folder and check that every weight matches.

    Raises:
        ValueError: if it is no such pipeline, or its weights do not fit.
    """
    index_file = folder / "model_index.json"
    if not index_file.is_file():
        raise ValueError(f"expected a model_index.json in {folder}, got none; {TEXT_TO_IMAGE}")
    libraries = {"diffusers": diffusers, "transformers": transformers}
    networks = {}
    for part, entry in json.loads(index_file.read_text()).items():
        if isinstance(entry, list) and entry[0] in libraries and (folder / part / "config.json").is_file():
            networks[part] = load_part(
                getattr(libraries[entry[0]], entry[1]), folder / part, dtype=dtype, variant=variant, surplus=True
            )
    try:
        pipeline = AutoPipelineForText2Image.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=is_accelerate_available(),
            **networks,
        )
    except Exception as error:  # other pipelines and broken files raise many unrelated types
        raise ValueError(f"cannot load {folder} ({first_line(error)}): {TEXT_TO_IMAGE}") from error
    if type(pipeline.scheduler).__name__ == "DPMSolverSDEScheduler":
        raise ValueError(
            f"unsupported scheduler DPMSolverSDEScheduler in {folder}: it draws one noise for a whole batch; "
            "use another"
        )
    for part, component in pipeline.components.items():
        if isinstance(component, nn.Module) and part not in networks:
            component.to(dtype=getattr(torch, dtype))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _tune(pipeline: Any, *, compile: bool, vae_slicing: bool) -> None:
    denoiser = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
    if hasattr(pipeline, "unet"):
        denoiser.to(memory_format=torch.channels_last)
    if vae_slicing:
        pipeline.vae.enable_slicing()
    if compile:
        denoiser.compile()
