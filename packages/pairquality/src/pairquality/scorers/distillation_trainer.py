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

from genviews_core.tensor_files import load_torch, save_torch, step_of
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

    Cosines are of z_f and z_b, not of their deviations from a mean, so the basis is that of the uncentred second
    moments: no other k directions keep the inner products as well on average.

    Attributes:
        basis: its rows.
        kept: share of the vectors' squared length that lies in it.
    """

    basis: Float[Tensor, "k d"]
    kept: float

    def project(self, tokens: Float[Tensor, "n l d"]) -> Float[Tensor, "n l k"]:
        """Coordinates of tokens."""
        return tokens.float() @ self.basis.to(tokens.device).T

    def project_pca(self, pca: ForegroundPCA) -> ForegroundPCA:
        """The same direction there: projections of tokens stay what they are."""
        direction, mean = pca.direction.cpu(), pca.mean.cpu()
        return replace(pca, direction=self.basis @ direction, mean=self.basis @ mean, fitted_on=None)


@torch.no_grad()
def fit_subspace(pca: ForegroundPCA, tokens: Float[Tensor, "n l d"], width: int) -> Subspace:
    """The best k directions for these views, at most `width`, by an exact decomposition in float64."""
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
    """z_f and z_b: means of the tokens weighted by the map and by its complement."""
    shares = torch.stack([maps, 1 - maps], dim=1)
    shares = shares / (shares.sum(dim=2, keepdim=True) + EPSILON)
    found = shares @ tokens
    return found[:, 0], found[:, 1]


PARTS = ("foreground", "background", "quality")
SUBSPACE_OVER = 512  # images of the first lessons, for the subspace and the variance of tokens


class DistillationTrainer:
    """A network in training.

    Args:
        folder: what it is trained on.
        teacher: what it is to reproduce.
        config: how.
        side: of its images in pixels.

    Attributes:
        student: the network.
        subspace: of the encoder's tokens, that it reproduces.
        pca: the foreground's direction there.
    """

    def __init__(self, folder: PairDataset, teacher: Teacher, config: DistillConfig, side: int) -> None:
        self.folder, self.teacher, self.config, self.side = folder, teacher, config, side
        tokens = self._first_tokens()
        self.subspace: Subspace = fit_subspace(teacher.pca, tokens, config.subspace)
        self.pca = direction_pca(self.subspace.project_pca(teacher.pca).direction)
        targets = self.subspace.project(tokens)
        self.variance = targets.var(dim=(0, 1)).sum()
        self.student = self._new_student(targets.mean(dim=(0, 1)))
        decay = [parameter for parameter in self.student.parameters() if parameter.ndim > 1]
        rest = [parameter for parameter in self.student.parameters() if parameter.ndim <= 1]
        groups = [{"params": decay, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr)

    def _new_student(self, mean: Float[Tensor, " k"]) -> ScorerNet:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeded_generator(self.config.seed, "weights").initial_seed())
            student = ScorerNet(len(mean), self.teacher.encoder.grid, self.config.widths, self.config.depths)
        student.heads[-1].bias.data.copy_(mean)  # pyright: ignore
        return student.to(self.teacher.device).to(memory_format=torch.channels_last)  # pyright: ignore

    def _first_tokens(self) -> Float[Tensor, "n l d"]:
        batches, seed = self.folder.shuffled(self.config.pairs, self.config.seed), self.config.seed
        drawn = (
            seeded_generator(seed, "first", number) for number in range(math.ceil(SUBSPACE_OVER / self.config.pairs))
        )
        return torch.cat([self.teacher.lesson(next(batches), draws).tokens for draws in drawn])

    def train(self, state: Path, about: dict[str, Any], seconds: float, told: Progress | None) -> None:
        """All steps from where the state stands; `seconds` from one state to the next."""
        step, saved = self._resume(state, about), time.monotonic()
        self.student.train()
        batches = self.folder.shuffled(self.config.pairs, self.config.seed, start=step)
        while step < self.config.steps:
            self.step(step, self.teacher.lesson(next(batches), seeded_generator(self.config.seed, "views", step)))
            step += 1
            if told is not None:
                told(step, self.config.steps)
            if time.monotonic() - saved > seconds or step == self.config.steps:
                self._save(state, about, step)
                saved = time.monotonic()

    def step(self, step: int, lesson: DistillBatch) -> None:
        """One update."""
        done = step / self.config.steps
        rise, fall = min(1.0, 20 * (step + 1) / self.config.steps), (1 + math.cos(math.pi * done)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * min(rise, fall)
        loss = self.loss(lesson)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def loss(self, lesson: DistillBatch) -> Float[Tensor, ""]:
        """Unexplained share of the tokens' variance.

        The scores themselves are left out: of tokens that are not right yet they are so noisy that their loss beside
        this one makes the scores worse.
        """
        targets = self.subspace.project(lesson.tokens)
        return (self.tokens(lesson.views) - targets).square().sum(dim=2).mean() / self.variance

    def tokens(self, views: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n l k"]:
        """The student's, of views in [0, 1]."""
        encoder = self.teacher.encoder
        mean, std = (views.new_tensor(triple)[:, None, None] for triple in encoder.normalization)
        small = (scaled_down(views, self.side) - mean) / std
        with torch.autocast(views.device.type, encoder.autocast, enabled=encoder.autocast is not None):
            found = self.student(small.contiguous(memory_format=torch.channels_last))
        return found.float().flatten(2).transpose(1, 2)

    def agreement(self, held_out: PairDataset) -> dict[str, float]:
        """Rank correlations of its scores with the encoder's, on one pair of each held-out image."""
        self.student.eval()
        found = list(self._both(held_out))
        return {
            part: rank_correlation(*(torch.cat([getattr(scores[side], part) for scores in found]) for side in (0, 1)))
            for part in PARTS
        }

    @torch.no_grad()
    def _both(self, held_out: PairDataset) -> Iterator[tuple[PairScores, PairScores]]:
        for number, pictures in enumerate(held_out.in_order(self.config.pairs)):
            lesson = self.teacher.lesson(pictures, seeded_generator(self.config.seed, "held out", number))
            yield score_tokens(self.pca, *self.tokens(lesson.views).chunk(2)), lesson.scores

    def _save(self, path: Path, about: dict[str, Any], step: int) -> None:
        student, adamw = self.student.state_dict(), self.optimizer.state_dict()
        save_torch(path, {"about": about, "step": step, "student": student, "adamw": adamw})

    def _resume(self, path: Path, about: dict[str, Any]) -> int:
        if not path.exists():
            return 0
        held = load_torch(path)
        try:
            found, step, student, adamw = (held[name] for name in ("about", "step", "student", "adamw"))
            if found != about:
                differing = ", ".join(name for name in about if found.get(name) != about[name])
                raise ValueError(f"{path} belongs to another training ({differing} differ): delete it to begin again.")
            step = step_of(path, step, self.config.steps)
            self.student.load_state_dict(student)
            self.optimizer.load_state_dict(adamw)
        except (RuntimeError, LookupError, TypeError, AttributeError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"{path} is not a complete state ({reason}): delete it to begin again.") from error
        return step
