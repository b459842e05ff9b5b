"""MaskGIT and MAGE as generators of views: keep some of an image's codes and generate the others (GenCL).

Shapes: B images of a batch, S their side in pixels, G the side of the code grid, L = G * G cells, C what a condition
holds per image: its class, then its codes, then (with the composite) its pixels.
"""

import os
from collections.abc import Sequence
from hashlib import blake2b
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Int16, UInt8
from torch import Tensor

from genviews_core.backbones import backbone_hash
from viewgen.generator import Supervision
from viewgen.maskgit.checkpoint import load_predictor, load_tokenizer
from viewgen.maskgit.decoding import CHOICE_TEMPERATURE, STEPS, decode
from viewgen.maskgit.labels import SAMPLED_PER_VIEW, LabelSource, choose_labels
from viewgen.maskgit.masks import GENCL_FRACTION, MaskKind, MaskRule, mask_from_file
from viewgen.maskgit.masks import composite as compose
from viewgen.seeding import generator_for

PathLike = str | os.PathLike[str]
LARGEST_TOKEN = 2**15 - 1  # of a condition's int16


class MaskGITGenerator:
    """Views that keep a part of the image's code grid and generate the rest.

    With the official MaskGIT weights this is GenCL's mask-based view; they were trained on ImageNet's labels, so their
    supervision is "labels" for any source of the class. MAGE's weights are accepted as well; they were trained without
    labels (label="none") and give such views without human supervision.

    Rounding errors can change a sampled code in near ties, and depend on how many images the networks process at once.
    ``group`` fixes that number, so that a view does not depend on its batch.

    Args:
        tokenizer: the VQGAN's weights: the official flax file, MAGE's tokenizer or whole checkpoint, or a converted
            .safetensors.
        transformer: the weights of MaskGIT's transformer (flax) or MAGE's (PyTorch), or a converted .safetensors.
        label: source of the class: "given" (labels_file), "predicted" (classifier), "fixed" (class_id),
            "random" (drawn per view), or "none" (MAGE only).
        labels_file: JSON {key: class} or CSV key,class; only with label="given".
        class_id: the class of all images; only with label="fixed".
        classifier: timm name or folder of a classifier of the transformer's classes; only with label="predicted".
        mask: masked cells: "ring" all but a ring along the border (GenCL), "square" a square at a random position,
            "random" random cells, "reverse_crop" the surroundings of the shrunk image, "file" mask_file.
        mask_file: image that is white where cells are masked; only with mask="file".
        masked_fraction: fraction of the cells that is generated if no strength is given; 196/256 is GenCL's. Squares
            are rounded to whole cells.
        steps: decoding steps; GenCL and the official demo use 12.
        start: index of the first step; the official editing demo starts at 2 of 12, GenCL does not specify it.
        choice_temperature: randomness of which cells are kept first; 4.5 officially.
        composite: keep the source's pixels where nothing was generated, with a blurred border (official demo).
        group: images per call of the networks; smaller calls are padded. By default 1 on a CPU, where more are not
            faster, and the whole batch elsewhere.
        device: device of the networks.
        dtype: dtype of the transformer, whose logits stay float32; the decoder uses bfloat16 too, but not float16.
        compile: compile transformer and decoder with torch.compile: a slow first batch, then faster ones.

    Raises:
        ValueError: if weights are missing, broken or do not fit each other, or if options do not fit.
    """

    name = "maskgit"
    strength_unit: str

    def __init__(
        self,
        *,
        tokenizer: PathLike,
        transformer: PathLike,
        label: LabelSource,
        labels_file: PathLike | None = None,
        class_id: int | None = None,
        classifier: str | None = None,
        mask: MaskKind = "ring",
        mask_file: PathLike | None = None,
        masked_fraction: float = GENCL_FRACTION,
        steps: int = STEPS,
        start: int = 0,
        choice_temperature: float = CHOICE_TEMPERATURE,
        composite: bool = False,
        group: int | None = None,
        device: str = "cpu",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        compile: bool = False,
    ) -> None:
        if not 0 <= start < steps:
            raise ValueError(f"expected start in 0..steps-1, got start {start} and steps {steps}")
        if group is not None and group < 1:
            raise ValueError(f"expected group of 1 or more images, got {group}")
        self.group = group
        self.device = torch.device(device)
        self.tokenizer = load_tokenizer(tokenizer)
        self.transformer = load_predictor(transformer, codes=self.tokenizer.sizes.codes)
        hashes = backbone_hash(self.tokenizer) + backbone_hash(self.transformer)
        self.model_hash = blake2b(hashes.encode(), digest_size=16).hexdigest()
        self.grid = round(self.transformer.cells**0.5)
        if self.grid**2 != self.transformer.cells or self.transformer.mask_id > LARGEST_TOKEN:
            raise ValueError(
                f"{transformer}: {self.transformer.cells} cells and {self.transformer.mask_id} tokens do not fit"
            )
        self.input_size: int | None = self.grid * self.tokenizer.patch
        label_free = self.transformer.label_free
        self.supervision: Supervision = "none" if label_free else "labels"
        self.licence = "MIT (official MAGE)" if label_free else "Apache-2.0 (official MaskGIT)"
        self.model_id = f"{'mage' if label_free else 'maskgit'}-{self.input_size}px"
        self.labels = choose_labels(
            label,
            classes=self.transformer.classes,
            label_free=label_free,
            labels_file=labels_file,
            class_id=class_id,
            classifier=classifier,
            device=self.device,
        )
        mask_image = None if mask_file is None else mask_from_file(mask_file, self.grid)
        self.masks = MaskRule(kind=mask, grid=self.grid, fraction=masked_fraction, image=mask_image)
        if self.masks.takes_strength:
            self.strength_unit = "fraction masked"
        self.steps, self.start, self.choice_temperature = steps, start, choice_temperature
        self.composite = composite
        self.settings = {
            "label": label,
            **self.labels.settings,
            **self.masks.settings,
            "steps": steps,
            "start": start,
            "choice_temperature": choice_temperature,
            "composite": composite,
            "dtype": dtype,
        }
        self._place(getattr(torch, dtype), compile)

    def _place(self, dtype: torch.dtype, compiled: bool) -> None:
        """Move the networks to the device; the encoder stays in float32, so that codes do not depend on ``dtype``."""
        self.tokenizer.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.tokenizer.to(self.device)
        self.tokenizer.decoder.to(torch.bfloat16 if dtype == torch.bfloat16 else torch.float32)
        self.transformer.to(self.device, dtype)
        if compiled:
            self.tokenizer.decoder.compile()
            self.transformer.code_logits = torch.compile(self.transformer.code_logits)

    def condition(self, images: UInt8[Tensor, "B 3 H W"]) -> Int16[Tensor, "B C"]:
        """Compute each image's class and codes.

        Raises:
            ValueError: if the images are not of ``input_size``, or labels are given by key (see ``condition_for``).
        """
        return self._condition(images, None)

    def condition_for(self, keys: Sequence[str], images: UInt8[Tensor, "B 3 H W"] | None) -> Int16[Tensor, "B C"]:
        """Compute each image's codes and its class, which is looked up by key if labels are given.

        Raises:
            ValueError: if the images are missing or not of ``input_size``, or a key has no label.
        """
        if images is None:
            raise ValueError("expected the images, of which MaskGIT keeps a part, got none")
        return self._condition(images, keys)

    @torch.no_grad()
    def _condition(self, images: Tensor, keys: Sequence[str] | None) -> Tensor:
        size = self.input_size
        if images.shape[-2:] != (size, size):
            raise ValueError(
                f"{self.model_id} expected {size} x {size} images, got {tuple(images.shape[-2:])}; resize them"
            )
        rows = [self.labels(images, keys)[:, None]]
        values = self.masks.canvas(images.to(self.device).float() / 255)
        codes = [self.tokenizer.encode(values[group])[:kept] for group, kept in self._groups(len(values))]
        rows.append(torch.cat(codes).flatten(1).cpu())
        if self.composite:
            rows.append((values * 255).round().flatten(1).cpu())
        return torch.cat([row.to(torch.int16) for row in rows], 1)

    @torch.no_grad()
    def generate(
        self, condition: Tensor, *, seeds: Sequence[int], strength: Float[Tensor, " B"] | None = None
    ) -> UInt8[Tensor, "B 3 S S"]:
        """Generate one view per condition.

        Args:
            condition: result of ``condition`` or ``condition_for``, or a cached copy in any dtype.
            seeds: one per view; random masks, random classes and the decoding depend on it.
            strength: fraction of the cells to generate, in [0, 1].

        Raises:
            ValueError: if shapes or values do not fit.
        """
        condition = self._checked(condition, len(seeds))
        masks = self._drawn_masks(seeds, strength)
        labels = self._drawn(condition[:, :1], seeds)
        tokens = torch.cat([labels + self.transformer.codes, condition[:, 1 : 1 + len(masks[0])]], 1).to(self.device)
        pixels = condition[:, 1 + len(masks[0]) :]
        views = []
        for group, kept in self._groups(len(seeds)):
            generated = self._decode(tokens[group], masks[group], [seeds[index] for index in group])[:kept]
            if self.composite:
                source = pixels[group[:kept]].view_as(generated).to(self.device) / 255
                generated = compose(generated, source, masks[group[:kept]])
            views.append((generated.clamp(0, 1) * 255).round().to(torch.uint8).cpu())
        return torch.cat(views)

    def _decode(self, tokens: Int[Tensor, "B N"], masks: Bool[Tensor, "B L"], seeds: Sequence[int]) -> Tensor:
        codes = decode(
            self.transformer,
            tokens,
            masks,
            seeds=seeds,
            steps=self.steps,
            start=self.start,
            choice_temperature=self.choice_temperature,
        )
        return self.tokenizer.decode(codes.unflatten(1, (self.grid, self.grid)))

    def _groups(self, count: int) -> list[tuple[list[int], int]]:
        """Yield the indices in the batch that are processed at once, and how many of them are not padding."""
        size = self.group or (1 if self.device.type == "cpu" else count)
        starts = range(0, count, size)
        return [([min(start + step, count - 1) for step in range(size)], min(size, count - start)) for start in starts]

    def _checked(self, condition: Tensor, count: int) -> Int[Tensor, "B C"]:
        cells, size = self.transformer.cells, self.input_size or 0
        width = 1 + cells + (3 * size * size if self.composite else 0)
        if condition.shape != (count, width):
            raise ValueError(
                f"expected a condition of {count} x {width} (seeds x class and codes{' and pixels' * self.composite}), "
                f"got {tuple(condition.shape)}; take it from condition() of the same options"
            )
        whole = condition.cpu().long()
        label, codes = whole[:, 0], whole[:, 1 : 1 + cells]
        fits = (
            (label >= SAMPLED_PER_VIEW)
            & (label < self.transformer.classes)
            & ((codes >= 0) & (codes < self.transformer.codes)).all(1)
        )
        if not fits.all() or not torch.equal(whole.to(condition.dtype), condition.cpu()):
            raise ValueError("expected classes and codes as condition, got other values; take it from condition()")
        return whole

    def _drawn(self, labels: Int[Tensor, "B 1"], seeds: Sequence[int]) -> Int[Tensor, "B 1"]:
        """Return the labels; those to be sampled are drawn from the seeds of the views."""
        classes = self.transformer.classes
        drawn = [torch.randint(classes, (1,), generator=generator_for(seed, "label")) for seed in seeds]
        return torch.where(labels == SAMPLED_PER_VIEW, torch.stack(drawn), labels)

    def _drawn_masks(self, seeds: Sequence[int], strength: Float[Tensor, " B"] | None) -> Bool[Tensor, "B L"]:
        if strength is None:
            return torch.stack([self.masks.draw(seed) for seed in seeds])
        if not self.masks.takes_strength:
            raise ValueError(f'expected no strength with mask="{self.masks.kind}", got one; leave it None')
        if strength.shape != (len(seeds),) or not ((strength >= 0) & (strength <= 1)).all():
            raise ValueError(
                f"expected one strength in [0, 1] per view, got {strength.tolist()}; give fractions of the cells"
            )
        return torch.stack([self.masks.draw(*each) for each in zip(seeds, strength.tolist(), strict=True)])
