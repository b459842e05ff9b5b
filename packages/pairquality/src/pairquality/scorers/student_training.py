"""The training of the distilled scorer's network: its loss, its steps, its state on disk.

Shapes: n views, l tokens of a view, d the encoder's width, k the subspace's.
"""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from genviews_core.tensor_files import load_torch, save_torch, step_of
from pairquality.fit_folder import Progress
from pairquality.score import PairScores
from pairquality.scorers.distilled import direction_pca, scaled_down
from pairquality.scorers.lessons import Folder, Lesson, Teacher, generator_of
from pairquality.scorers.rank_correlation import rank_correlation
from pairquality.scorers.recipe import Distillation
from pairquality.scorers.scorer import score_tokens
from pairquality.scorers.student import Student
from pairquality.scorers.subspace import Subspace, fit_subspace

PARTS = ("foreground", "background", "quality")
SUBSPACE_OVER = 512  # images of the first lessons, for the subspace and the variance of tokens


class StudentTraining:
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

    def __init__(self, folder: Folder, teacher: Teacher, config: Distillation, side: int) -> None:
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

    def _new_student(self, mean: Float[Tensor, " k"]) -> Student:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator_of(self.config.seed, "weights").initial_seed())
            student = Student(len(mean), self.teacher.encoder.grid, self.config.widths, self.config.depths)
        student.heads[-1].bias.data.copy_(mean)  # pyright: ignore
        return student.to(self.teacher.device).to(memory_format=torch.channels_last)  # pyright: ignore

    def _first_tokens(self) -> Float[Tensor, "n l d"]:
        batches, seed = self.folder.shuffled(self.config.pairs, self.config.seed), self.config.seed
        drawn = (generator_of(seed, "first", number) for number in range(math.ceil(SUBSPACE_OVER / self.config.pairs)))
        return torch.cat([self.teacher.lesson(next(batches), draws).tokens for draws in drawn])

    def train(self, state: Path, about: dict[str, Any], seconds: float, told: Progress | None) -> None:
        """All steps from where the state stands; `seconds` from one state to the next."""
        step, saved = self._resume(state, about), time.monotonic()
        self.student.train()
        batches = self.folder.shuffled(self.config.pairs, self.config.seed, start=step)
        while step < self.config.steps:
            self.step(step, self.teacher.lesson(next(batches), generator_of(self.config.seed, "views", step)))
            step += 1
            if told is not None:
                told(step, self.config.steps)
            if time.monotonic() - saved > seconds or step == self.config.steps:
                self._save(state, about, step)
                saved = time.monotonic()

    def step(self, step: int, lesson: Lesson) -> None:
        """One update."""
        done = step / self.config.steps
        rise, fall = min(1.0, 20 * (step + 1) / self.config.steps), (1 + math.cos(math.pi * done)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * min(rise, fall)
        loss = self.loss(lesson)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def loss(self, lesson: Lesson) -> Float[Tensor, ""]:
        """Unexplained share of the tokens' variance.

        The scores themselves are left out: of tokens that are not right yet they are so noisy that their loss beside
        this one makes the scores worse.
        """
        targets = self.subspace.project(lesson.tokens)
        return (self.tokens(lesson.views) - targets).square().sum(dim=2).mean() / self.variance

    def tokens(self, views: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n l k"]:
        """The student's, of views in [0, 1]."""
        encoder = self.teacher.encoder
        mean, std = (views.new_tensor(triple)[:, None, None] for triple in encoder.normalisation)
        small = (scaled_down(views, self.side) - mean) / std
        with torch.autocast(views.device.type, encoder.autocast, enabled=encoder.autocast is not None):
            found = self.student(small.contiguous(memory_format=torch.channels_last))
        return found.float().flatten(2).transpose(1, 2)

    def agreement(self, held_out: Folder) -> dict[str, float]:
        """Rank correlations of its scores with the encoder's, on one pair of each held-out image."""
        self.student.eval()
        found = list(self._both(held_out))
        return {
            part: rank_correlation(*(torch.cat([getattr(scores[side], part) for scores in found]) for side in (0, 1)))
            for part in PARTS
        }

    @torch.no_grad()
    def _both(self, held_out: Folder) -> Iterator[tuple[PairScores, PairScores]]:
        for number, pictures in enumerate(held_out.in_order(self.config.pairs)):
            lesson = self.teacher.lesson(pictures, generator_of(self.config.seed, "held out", number))
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
