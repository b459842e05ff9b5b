"""Iterative decoding: predict all cells, keep the most confident ones, mask the others again, repeat.

https://arxiv.org/abs/2202.04200, section 3.2, with the schedule of the official code.
Shapes: B images of a batch, L the cells of the grid, N = L + 1 (the label's token first), T steps, K codes.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from viewgen.seeding import generator_for

STEPS, CHOICE_TEMPERATURE = 12, 4.5  # GenCL's and the official demo's steps; the official configuration's temperature


@runtime_checkable
class TokenPredictor(Protocol):
    """Protocol of the transformers that can be decoded.

    Attributes:
        mask_id: the token of a cell that is not known.
    """

    mask_id: int

    def code_logits(self, tokens: Int[Tensor, "B N"]) -> Float[Tensor, "B L K"]:
        """Compute the float32 logits of every cell over the codes."""
        ...


class DecodingNoise(NamedTuple):
    """All random numbers of a decoding.

    Attributes:
        uniforms: numbers in [0, 1) that select the code of each cell.
        gumbels: standard Gumbel, which cells stay.
    """

    uniforms: Float[Tensor, "B T L"]
    gumbels: Float[Tensor, "B T L"]


def draw_noise(seeds: Sequence[int], steps: int, cells: int) -> DecodingNoise:
    """Draw each image's random numbers from its own seed, on the CPU: equally many for any mask and first step."""
    draws = [torch.rand(2, steps, cells, generator=generator_for(seed, "decoding")) for seed in seeds]
    chosen, kept = torch.stack(draws, 1)
    tiny = torch.finfo(torch.float32).tiny
    return DecodingNoise(chosen, -torch.log(-torch.log(kept.clamp(min=tiny))))


def masked_counts(unknown: Int[Tensor, " B"], steps: int = STEPS) -> Int[Tensor, "T B"]:
    """Compute how many of ``n`` unknown cells are masked again after each step t: ``floor(n cos(pi/2 (t + 1) / T))``.

    In float64: where the cosine is one half the official float32 code may come out one lower, by its backend.
    """
    shares = torch.tensor([math.cos(math.pi / 2 * (step + 1) / steps) for step in range(steps)], dtype=torch.float64)
    return (shares[:, None] * unknown.cpu()).floor().long()


def decode(
    transformer: TokenPredictor,
    tokens: Int[Tensor, "B N"],
    mask: Bool[Tensor, "B L"],
    *,
    seeds: Sequence[int],
    steps: int = STEPS,
    start: int = 0,
    choice_temperature: float = CHOICE_TEMPERATURE,
) -> Int[Tensor, "B L"]:
    """Generate the codes of the masked cells.

    Args:
        transformer: predicts codes; on the device of ``tokens``.
        tokens: the label's token, then the code of every cell; codes under the mask are not looked at.
        mask: True for cells to generate.
        seeds: one per image.
        steps: number of steps of the whole schedule.
        start: the first step taken; later ones trust more of the first predictions (the official editing demo: 2).
        choice_temperature: initial temperature of the choice of cells to keep; it falls to 0 linearly.

    Raises:
        ValueError: if the steps do not fit, or there is not one seed per image.
    """
    if not 0 <= start < steps:
        raise ValueError(f"expected start in 0..steps-1, got start {start} and steps {steps}")
    if len(seeds) != len(tokens):
        raise ValueError(f"expected one seed per image, got {len(seeds)} seeds for {len(tokens)} images")
    noise = draw_noise(seeds, steps, mask.shape[1])
    return decode_with(transformer, tokens, mask, noise, start=start, choice_temperature=choice_temperature)


@torch.no_grad()
def decode_with(
    transformer: TokenPredictor,
    tokens: Int[Tensor, "B N"],
    mask: Bool[Tensor, "B L"],
    noise: DecodingNoise,
    *,
    start: int = 0,
    choice_temperature: float = CHOICE_TEMPERATURE,
) -> Int[Tensor, "B L"]:
    """Run ``decode`` with given random numbers, one row per step; they are moved to the device once."""
    device, steps = tokens.device, noise.uniforms.shape[1]
    planned = masked_counts(mask.sum(1), steps).to(device)
    uniforms, gumbels = noise.uniforms.to(device), noise.gumbels.to(device)
    label, codes = tokens[:, :1], tokens[:, 1:].masked_fill(mask.to(device), transformer.mask_id)
    for step in range(start, steps):
        unknown = codes == transformer.mask_id
        probabilities = transformer.code_logits(torch.cat([label, codes], 1)).softmax(-1)
        codes = torch.where(unknown, _sample(probabilities, uniforms[:, step]), codes)
        if step < steps - 1:
            temperature = choice_temperature * (1 - (step + 1) / steps)
            confidence = _log_probability(probabilities, codes) + temperature * gumbels[:, step]
            again = _least_sure(confidence.masked_fill(~unknown, torch.inf), planned[step], unknown.sum(1))
            codes = codes.masked_fill(again, transformer.mask_id)
    return codes


def _sample(probabilities: Float[Tensor, "B L K"], uniforms: Float[Tensor, "B L"]) -> Int[Tensor, "B L"]:
    """Sample one code per cell by the inverse CDF: one random number each, for any number of codes."""
    cumulated = probabilities.cumsum(-1)
    return torch.searchsorted(cumulated, uniforms[..., None] * cumulated[..., -1:], right=True).squeeze(-1)


def _log_probability(probabilities: Float[Tensor, "B L K"], codes: Int[Tensor, "B L"]) -> Float[Tensor, "B L"]:
    return probabilities.gather(-1, codes[..., None]).squeeze(-1).log()


def _least_sure(
    confidence: Float[Tensor, "B L"], planned: Int[Tensor, " B"], unknown: Int[Tensor, " B"]
) -> Bool[Tensor, "B L"]:
    """Select the planned number of cells with the lowest confidence: at least one, and not all of several."""
    count = torch.minimum(planned, unknown - 1).clamp(min=1)
    threshold = confidence.sort(1).values.gather(1, count[:, None])
    return confidence < threshold
