"""Train the network of the distilled scorer: the subspace that it reproduces, loss, steps and resume state.

Shapes: n views, l tokens of a view, d the encoder's token width, k the subspace's.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from genviews_core.checkpoint import load_checkpoint, restoring, save_checkpoint
from pairquality.fit import Progress
from pairquality.foreground import ForegroundPCA, foreground_maps
from pairquality.score import EPSILON, PairScores, rank_correlation
from pairquality.scorers.distill_config import DistillConfig
from pairquality.scorers.distillation_data import DistillBatch, PairDataset, Teacher, seeded_generator
from pairquality.scorers.distilled import ScorerNet, direction_pca, scaled_down
from pairquality.scorers.scorer import score_tokens


@dataclass(frozen=True, kw_only=True, eq=False)
class Subspace:
    """An orthonormal basis: the foreground direction, then the main directions of foreground and background vectors.

    Scores are cosines of z_f and z_b without centering, so the basis is that of the uncentered second moments, which
    preserves inner products best on average.

    Attributes:
        basis: rows of the basis.
        kept: fraction of the vectors' squared length within the subspace.
    """

    basis: Float[Tensor, "k d"]
    kept: float

    def project(self, tokens: Float[Tensor, "n l d"]) -> Float[Tensor, "n l k"]:
        """Return the coordinates of tokens."""
        return tokens.float() @ self.basis.to(tokens.device).T

    def project_pca(self, pca: ForegroundPCA) -> ForegroundPCA:
        """Return the PCA in these coordinates; projections of tokens do not change."""
        direction, mean = pca.direction.cpu(), pca.mean.cpu()
        return replace(pca, direction=self.basis @ direction, mean=self.basis @ mean, fitted_on=None)


@torch.no_grad()
def fit_subspace(pca: ForegroundPCA, tokens: Float[Tensor, "n l d"], width: int) -> Subspace:
    """Return the best subspace of at most `width` dimensions, by an exact decomposition in float64."""
    vectors = torch.cat(pooled(tokens.float(), foreground_maps(pca, tokens.float()))).double()
    direction = pca.direction.double().to(tokens.device)
    rest = vectors - torch.outer(vectors @ direction, direction)
    found = torch.linalg.eigh(rest.T @ rest).eigenvectors.flip(1)[:, : min(width, len(direction)) - 1].T
    basis = torch.linalg.qr(torch.cat([direction[None], found]).T).Q.T
    kept = (vectors @ basis.T).square().sum() / vectors.square().sum()
    return Subspace(basis=basis.float().cpu(), kept=float(kept))


def pooled(
    tokens: Float[Tensor, "n l d"], maps: Float[Tensor, "n l"]
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """Return z_f and z_b, the means of the tokens weighted by the map and by its complement."""
    weights = torch.stack([maps, 1 - maps], dim=1)
    weights = weights / (weights.sum(dim=2, keepdim=True) + EPSILON)
    means = weights @ tokens
    return means[:, 0], means[:, 1]


PARTS = ("foreground", "background", "quality")
SUBSPACE_OVER = 512  # images from which the subspace and the variance of tokens are computed


class DistillationTrainer:
    """Trains a small network to reproduce an encoder's tokens within a subspace.

    Args:
        dataset: training images.
        teacher: encoder to reproduce.
        config: configuration.
        size: image size of the network in pixels.

    Attributes:
        network: the network in training.
        subspace: subspace of the encoder's tokens that it reproduces.
        pca: the foreground direction in the subspace.
    """

    def __init__(self, dataset: PairDataset, teacher: Teacher, config: DistillConfig, size: int) -> None:
        self.dataset, self.teacher, self.config, self.size = dataset, teacher, config, size
        tokens = self._first_tokens()
        self.subspace: Subspace = fit_subspace(teacher.pca, tokens, config.subspace)
        self.pca = direction_pca(self.subspace.project_pca(teacher.pca).direction)
        targets = self.subspace.project(tokens)
        self.variance = targets.var(dim=(0, 1)).sum()
        self.network = self._new_network(targets.mean(dim=(0, 1)))
        decay = [parameter for parameter in self.network.parameters() if parameter.ndim > 1]
        rest = [parameter for parameter in self.network.parameters() if parameter.ndim <= 1]
        groups = [{"params": decay, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr)

    def _new_network(self, mean: Float[Tensor, " k"]) -> ScorerNet:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeded_generator(self.config.seed, "weights").initial_seed())
            network = ScorerNet(len(mean), self.teacher.encoder.grid, self.config.widths, self.config.depths)
        network.heads[-1].bias.data.copy_(mean)  # pyright: ignore
        return network.to(self.teacher.device).to(memory_format=torch.channels_last)  # pyright: ignore

    def _first_tokens(self) -> Float[Tensor, "n l d"]:
        batches, seed = self.dataset.shuffled(self.config.pairs, self.config.seed), self.config.seed
        drawn = (
            seeded_generator(seed, "first", number) for number in range(math.ceil(SUBSPACE_OVER / self.config.pairs))
        )
        return torch.cat([self.teacher.batch(next(batches), draws).tokens for draws in drawn])

    def train(self, state: Path, about: dict[str, Any], seconds: float, on_progress: Progress | None) -> None:
        """Take the remaining steps, saving the state every `seconds`."""
        step, saved = self._resume(state, about), time.monotonic()
        self.network.train()
        batches = self.dataset.shuffled(self.config.pairs, self.config.seed, start=step)
        while step < self.config.steps:
            self.step(step, self.teacher.batch(next(batches), seeded_generator(self.config.seed, "views", step)))
            step += 1
            if on_progress is not None:
                on_progress(step, self.config.steps)
            if time.monotonic() - saved > seconds or step == self.config.steps:
                self._save(state, about, step)
                saved = time.monotonic()

    def step(self, step: int, batch: DistillBatch) -> None:
        """Take one optimizer step."""
        done = step / self.config.steps
        rise, fall = min(1.0, 20 * (step + 1) / self.config.steps), (1 + math.cos(math.pi * done)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * min(rise, fall)
        loss = self.loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def loss(self, batch: DistillBatch) -> Float[Tensor, ""]:
        """Return the unexplained fraction of the tokens' variance.

        A loss on the scores themselves is not added: scores of inaccurate tokens are so noisy that it makes the final
        scores worse.
        """
        targets = self.subspace.project(batch.tokens)
        return (self.tokens(batch.views) - targets).square().sum(dim=2).mean() / self.variance

    def tokens(self, views: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n l k"]:
        """Return the network's tokens of views in [0, 1]."""
        encoder = self.teacher.encoder
        mean, std = (views.new_tensor(triple)[:, None, None] for triple in encoder.normalization)
        small = (scaled_down(views, self.size) - mean) / std
        with torch.autocast(views.device.type, encoder.autocast, enabled=encoder.autocast is not None):
            found = self.network(small.contiguous(memory_format=torch.channels_last))
        return found.float().flatten(2).transpose(1, 2)

    def agreement(self, held_out: PairDataset) -> dict[str, float]:
        """Return the rank correlations of the scores with the encoder's, on one pair per held-out image."""
        self.network.eval()
        found = list(self._both(held_out))
        return {
            part: rank_correlation(*(torch.cat([getattr(scores[side], part) for scores in found]) for side in (0, 1)))
            for part in PARTS
        }

    @torch.no_grad()
    def _both(self, held_out: PairDataset) -> Iterator[tuple[PairScores, PairScores]]:
        for number, images in enumerate(held_out.in_order(self.config.pairs)):
            batch = self.teacher.batch(images, seeded_generator(self.config.seed, "held out", number))
            yield score_tokens(self.pca, *self.tokens(batch.views).chunk(2)), batch.scores

    def _save(self, path: Path, about: dict[str, Any], step: int) -> None:
        network, adamw = self.network.state_dict(), self.optimizer.state_dict()
        save_checkpoint(path, step=step, settings=about, state={"student": network, "adamw": adamw})

    def _resume(self, path: Path, about: dict[str, Any]) -> int:
        loaded = load_checkpoint(path, about, last_step=self.config.steps)
        if loaded is None:
            return 0
        step, state = loaded
        with restoring(path):
            self.network.load_state_dict(state["student"])
            self.optimizer.load_state_dict(state["adamw"])
        return step
