"""Training the small network of the distilled scorer on any images and any frozen encoder.

Shapes: b images of S x S pixels, n = 2b views, l tokens of a view, d the encoder's width, k the subspace's.
"""

import math
import pickle
import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cosine_similarity

from pairquality.encoder import FeatureEncoder
from pairquality.fit_folder import Progress, choose_keys
from pairquality.images import iter_images, read_batches
from pairquality.pca import ForegroundPCA
from pairquality.score import EPSILON, PairScores
from pairquality.scorers.crops import MakeViews, crops
from pairquality.scorers.distilled import About, direction_pca, read_about, save_distilled, scaled_down
from pairquality.scorers.rank_correlation import rank_correlation
from pairquality.scorers.scorer import score_tokens
from pairquality.scorers.student import WIDTHS, Student
from pairquality.scorers.subspace import Subspace, fit_subspace, pooled


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """How to train.

    Attributes:
        steps: of the optimizer.
        pairs: images a step, two crops of each.
        side: pixels of the small network's images.
        subspace: most dimensions of the encoder's token space that it reproduces.
        widths: channels of its stages.
        lr: AdamW's peak learning rate; it rises over a twentieth of the steps and falls by a cosine.
        weight_decay: AdamW's.
        count: most images trained on, chosen at random.
        held_out: most images kept for the rank correlation; at most a tenth of all.
        seed: of every draw.
    """

    steps: int = 3000
    pairs: int = 64
    side: int = 112
    subspace: int = 128
    widths: tuple[int, ...] = WIDTHS
    lr: float = 2e-3
    weight_decay: float = 0.02
    count: int = 50_000
    held_out: int = 1000
    seed: int = 0


def distill(
    images_root: str | Path,
    out: str | Path,
    encoder: FeatureEncoder,
    pca: ForegroundPCA,
    config: Distillation | None = None,
    *,
    make_views: MakeViews | None = None,
    workers: int = 4,
    checkpoint_seconds: float = 30.0,
    on_progress: Progress | None = None,
    device: str | torch.device = "cpu",
) -> About:
    """Train a scorer and write it; the same call goes on after a kill, on a CPU to the same bits.

    The network reproduces the tokens of the encoder within the subspace of its foreground and background vectors, and
    the scores of two crops of an image. It learns from crops, as it will see them, never from whole images.

    Args:
        images_root: folder of images.
        out: the .safetensors file; while it runs, its state lies beside it.
        encoder: frozen; the small network is trained in the type that it computes in.
        pca: fitted on it.
        config: how to train.
        make_views: draws augmented views; `crops` of the encoder's size if None.
        workers: threads that read images.
        checkpoint_seconds: between two states.
        on_progress: called with (steps done, steps in all).
        device: where the small network is trained; the encoder stays where it is.

    Raises:
        ValueError: too few images, another run's file, or a PCA of another encoder.
    """
    pca.require(encoder)
    out, config = Path(out), config or Distillation()
    trained, held_out = _split(images_root, config)
    training = {**asdict(config), "widths": list(config.widths), "keys": _digest(trained), "data": str(images_root)}
    if out.exists():
        return _finished(out, encoder, pca, training)
    make_views = make_views or partial(crops, size=encoder.size)
    teacher = _Teacher(encoder, pca, make_views, torch.device(device))
    run = _Run(images_root, trained, teacher, config, workers)
    out.parent.mkdir(parents=True, exist_ok=True)
    state = out.with_name(out.name + ".state")
    run.train(state, {**training, "encoder": encoder.hash, "pca": pca.hash}, checkpoint_seconds, on_progress)
    about = About(
        encoder=encoder.name,
        encoder_hash=encoder.hash,
        pca_hash=pca.hash,
        size=config.side,
        mean=encoder.normalisation[0],
        std=encoder.normalisation[1],
        grid=encoder.grid,
        widths=config.widths,
        training={**training, "kept": run.subspace.kept},
        rank_correlation=run.validate(images_root, held_out),
    )
    save_distilled(out, run.student, run.pca.direction, about)
    state.unlink(missing_ok=True)
    return about


def _split(root: str | Path, config: Distillation) -> tuple[list[str], list[str]]:
    chosen = choose_keys(iter_images(root), config.count + config.held_out, config.seed)
    held_out = choose_keys(iter(chosen), min(config.held_out, len(chosen) // 10), config.seed + 1)
    trained = sorted(set(chosen) - set(held_out))
    if len(held_out) < 3 or len(trained) < config.pairs:
        raise ValueError(f"{len(chosen)} images under {root} are too few: give {max(30, 2 * config.pairs)} or more.")
    return trained, held_out


def _digest(keys: list[str]) -> str:
    return blake2b("\n".join(keys).encode(errors="surrogateescape"), digest_size=16).hexdigest()


def _finished(out: Path, encoder: FeatureEncoder, pca: ForegroundPCA, training: dict[str, Any]) -> About:
    about = read_about(out)
    same = all(about.training.get(name) == value for name, value in training.items() if name != "data")
    if (about.encoder_hash, about.pca_hash) != (encoder.hash, pca.hash) or not same:
        raise ValueError(
            f"{out} holds a scorer of another encoder, PCA or training: choose another file, or delete it."
        )
    return about


def generator_of(*names: object) -> torch.Generator:
    """One for every draw, by name."""
    digest = blake2b("/".join(map(str, ("distill", *names))).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Lesson:
    """Views in [0, 1], the encoder's tokens of them, and its scores of the pairs (i, b + i)."""

    views: Tensor
    tokens: Tensor
    scores: PairScores


@dataclass(frozen=True)
class _Teacher:
    encoder: FeatureEncoder
    pca: ForegroundPCA
    make_views: MakeViews
    device: torch.device

    @torch.no_grad()
    def lesson(self, images: Tensor, generator: torch.Generator) -> _Lesson:
        images = images.to(self.encoder.mean.device)
        views = torch.cat([self.make_views(images, generator) for _ in range(2)])
        tokens = self.encoder(views)
        scores = score_tokens(self.pca, *tokens.chunk(2))
        views, tokens = views.to(self.device), tokens.to(self.device)
        parts = {name: getattr(scores, name).to(self.device) for name in ("foreground", "background", "quality")}
        return _Lesson(views=views, tokens=tokens, scores=PairScores(**parts))


class _Run:
    """A network in training."""

    def __init__(
        self, root: str | Path, keys: list[str], teacher: _Teacher, config: Distillation, workers: int
    ) -> None:
        self.root, self.keys, self.teacher, self.config, self.workers = root, keys, teacher, config, workers
        self.stored = teacher.encoder.size * 8 // 7  # crops are of a larger image
        lessons = self._first_lessons()
        tokens = torch.cat([lesson.tokens for lesson in lessons])
        self.subspace: Subspace = fit_subspace(teacher.pca, tokens, config.subspace)
        self.pca = direction_pca(self.subspace.project_pca(teacher.pca).direction)
        targets = self.subspace.project(tokens)
        self.variance = targets.var(dim=(0, 1)).sum()
        self.spreads = [
            torch.cat([getattr(lesson.scores, name) for lesson in lessons]).var()
            for name in ("foreground", "background", "quality")
        ]
        self.student = self._new_student(targets.mean(dim=(0, 1)))
        decay = [parameter for parameter in self.student.parameters() if parameter.ndim > 1]
        rest = [parameter for parameter in self.student.parameters() if parameter.ndim <= 1]
        groups = [{"params": decay, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr)

    def _new_student(self, mean: Tensor) -> Student:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator_of(self.config.seed, "weights").initial_seed())
            student = Student(self.subspace.basis.shape[0], self.teacher.encoder.grid, self.config.widths)
        student.heads[-1].bias.data.copy_(mean)  # pyright: ignore
        return student.to(self.teacher.device).to(memory_format=torch.channels_last)  # pyright: ignore

    def _first_lessons(self) -> list[_Lesson]:
        """Enough views for the subspace and for the spread of tokens and scores."""
        wanted = math.ceil(512 / self.config.pairs)
        batches = self._batches(0)
        found = [self.teacher.lesson(images, self._generator("first", number)) for number, images in
                 zip(range(wanted), batches, strict=False)]  # fmt: skip
        batches.close()
        return found

    def _generator(self, *names: object) -> torch.Generator:
        return generator_of(self.config.seed, *names)

    def _batches(self, start: int) -> Generator[Tensor, None, None]:
        """The images of each step from `start` on, without those that cannot be read."""
        size = self.config.pairs
        for read in read_batches(self.root, self._order(start * size), self.stored, batch_size=size,
                                 workers=self.workers):  # fmt: skip
            images = [image for _, image in read if isinstance(image, Tensor)]
            if not images:
                raise ValueError(f"None of {size} images under {self.root} can be read.")
            yield torch.stack(images)

    def _order(self, start: int) -> Iterator[str]:
        """Every image once an epoch, each epoch in an order of its own."""
        epoch, skipped = divmod(start, len(self.keys))
        while True:
            seed = self._generator("order", epoch).initial_seed()
            for place in np.random.default_rng(seed).permutation(len(self.keys))[skipped:]:
                yield self.keys[place]
            epoch, skipped = epoch + 1, 0

    def train(self, state: Path, about: dict[str, Any], seconds: float, told: Progress | None) -> None:
        """All steps from where the state stands."""
        step, saved = self._resume(state, about), time.monotonic()
        self.student.train()
        batches = self._batches(step)
        while step < self.config.steps:
            self._step(step, self.teacher.lesson(next(batches), self._generator("views", step)))
            step += 1
            if told is not None:
                told(step, self.config.steps)
            if time.monotonic() - saved > seconds or step == self.config.steps:
                self._save(state, about, step)
                saved = time.monotonic()
        batches.close()

    def _step(self, step: int, lesson: _Lesson) -> None:
        total = self.config.steps
        rise, fall = min(1.0, (step + 1) / max(1, total // 20)), (1 + math.cos(math.pi * step / total)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * min(rise, fall)
        loss = self.loss(lesson)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def loss(self, lesson: _Lesson) -> Float[Tensor, ""]:
        """Unexplained share of the tokens' variance, and of the three scores'."""
        tokens = self.tokens(lesson.views)
        error = (tokens - self.subspace.project(lesson.tokens)).square().sum(dim=2).mean() / self.variance
        maps = soft_maps(tokens, self.pca.direction)
        similarities = [cosine_similarity(*vectors.chunk(2), dim=1) for vectors in pooled(tokens, maps)]
        mine = [*similarities, similarities[0] - similarities[1]]
        theirs = (lesson.scores.foreground, lesson.scores.background, lesson.scores.quality)
        for score, target, spread in zip(mine, theirs, self.spreads, strict=True):
            error = error + (score - target).square().mean() / (spread + EPSILON)
        return error

    def tokens(self, views: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n l k"]:
        """The student's, of views in [0, 1]."""
        encoder = self.teacher.encoder
        mean, std = (views.new_tensor(triple)[:, None, None] for triple in encoder.normalisation)
        small = (scaled_down(views, self.config.side) - mean) / std
        with torch.autocast(views.device.type, encoder.autocast, enabled=encoder.autocast is not None):
            found = self.student(small.contiguous(memory_format=torch.channels_last))
        return found.float().flatten(2).transpose(1, 2)

    def validate(self, root: str | Path, keys: list[str]) -> dict[str, float]:
        """Rank correlations of its scores with the encoder's, for two crops of each held-out image."""
        self.student.eval()
        mine: list[PairScores] = []
        theirs: list[PairScores] = []
        batches = read_batches(root, keys, self.stored, batch_size=self.config.pairs, workers=self.workers)
        for number, read in enumerate(batches):
            images = [image for _, image in read if isinstance(image, Tensor)]
            if images:
                lesson = self.teacher.lesson(torch.stack(images), self._generator("held out", number))
                with torch.no_grad():
                    mine.append(score_tokens(self.pca, *self.tokens(lesson.views).chunk(2)))
                theirs.append(lesson.scores)
        return {
            name: rank_correlation(*(torch.cat([getattr(part, name) for part in side]) for side in (mine, theirs)))
            for name in ("quality", "foreground", "background")
        }

    def _save(self, path: Path, about: dict[str, Any], step: int) -> None:
        held = {
            "about": about,
            "step": step,
            "student": self.student.state_dict(),
            "adamw": self.optimizer.state_dict(),
        }
        unfinished = path.with_name(path.name + ".part")
        torch.save(held, unfinished)
        unfinished.replace(path)

    def _resume(self, path: Path, about: dict[str, Any]) -> int:
        if not path.exists():
            return 0
        try:
            held = torch.load(path, self.teacher.device, weights_only=True)
            found, step, student, adamw = (held[name] for name in ("about", "step", "student", "adamw"))
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise ValueError(
                f"{path} is not a whole state ({type(error).__name__}): delete it to begin again."
            ) from error
        if found != about:
            differing = ", ".join(name for name in about if found.get(name) != about[name])
            raise ValueError(f"{path} belongs to another training ({differing} differ): delete it to begin again.")
        self.student.load_state_dict(student)
        self.optimizer.load_state_dict(adamw)
        return step


def soft_maps(tokens: Float[Tensor, "n l k"], direction: Float[Tensor, " k"]) -> Float[Tensor, "n l"]:
    """As `foreground_maps`, with gradients."""
    projections = tokens @ direction.to(tokens.device)
    low, high = projections.aminmax(dim=1, keepdim=True)
    return (projections - low) / (high - low + EPSILON)
