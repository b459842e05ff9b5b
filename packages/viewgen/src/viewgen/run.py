"""Make the views of a folder of images: resumable, in shards, each view whole or absent.

The views wanted are the sorted list of (key, k), cut into chunks of fixed size; a chunk is always computed whole, so a
view's bytes do not depend on what was interrupted or how the chunks were dealt to shards.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from viewgen.conditions import ConditionSource, WantedView
from viewgen.embed import Embeddings
from viewgen.files import replace_bytes
from viewgen.generator import Generator
from viewgen.images import key_path, list_images
from viewgen.interpolate import Interpolation
from viewgen.manifest import Journal, Row, journal_paths, journal_rows
from viewgen.seeding import view_seed
from viewgen.settings import Failures, claim_settings, run_settings, strength_of
from viewgen.verify import view_files
from viewgen.write import EncodedView, encode_views

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """Counts of views in this call's shard.

    Attributes:
        wanted: images times views per image.
        written: made now.
        already: found whole.
        failed: not made, because their source cannot be read or has no embedding.
    """

    wanted: int
    written: int
    already: int
    failed: int


def generate_views(
    images_root: str | os.PathLike[str],
    views_root: str | os.PathLike[str],
    generator: Generator,
    *,
    views_per_image: int = 1,
    seed: int = 0,
    strength: float | Mapping[str, float] | None = None,
    engine: str = "local",
    batch_size: int = 64,
    image_format: str = "png",
    embeddings: Embeddings | None = None,
    interpolate: Interpolation | None = None,
    shard: tuple[int, int] = (0, 1),
    workers: int = 0,
    on_progress: Progress | None = None,
) -> RunSummary:
    """Write ``views_per_image`` views of every image; go on where an interrupted call stopped.

    A view is the file ``<key>.<k>.<format>`` under ``views_root`` and a row in this shard's journal. A file without a
    row is made again, a row without a file as well. Images that cannot be read are listed in ``failures.jsonl``.

    Args:
        images_root: the images.
        views_root: where the views go; not inside ``images_root``, nor around it.
        generator: makes them.
        views_per_image: K; views k = 0..K-1.
        seed: of every draw, with key and k.
        strength: passed to the generator: one for all, or one per key.
        engine: "local" runs in this process.
        batch_size: views computed together. Another size may change a view by rounding.
        image_format: "png", or "jpg" at quality 95.
        embeddings: cached conditions; without them the generator makes the conditions from the images.
        interpolate: make interpolated views; needs ``embeddings``.
        shard: (which, of how many): this process's part of the chunks. Every process writes a journal of its own.
        workers: threads that read sources and encode views; 0 uses the calling thread.
        on_progress: called with (views settled, views in all) of this shard.

    Raises:
        ValueError: if the folder holds views of other settings, if an argument does not fit, or if the generator does
            not know the embeddings' encoder.
    """
    images, views = Path(images_root).resolve(), Path(views_root).resolve()
    _check(images, views, generator, engine, image_format, embeddings, interpolate, shard)
    keys = list_images(images)
    views.mkdir(parents=True, exist_ok=True)
    claim_settings(views, run_settings(generator, seed, strength, image_format, embeddings, interpolate))
    source = ConditionSource(generator, images, embeddings, interpolate, workers)
    failures = Failures(views / "failures.jsonl")
    name = f"{shard[0]:05d}-of-{shard[1]:05d}"
    wanted = written = already = failed = 0
    total = sum(len(chunk) for chunk in _chunks(keys, views_per_image, batch_size, shard, seed, image_format))
    with Journal(views / "journals" / f"{name}.jsonl") as journal:
        whole = {row["path"] for path in journal_paths(views) for row in journal_rows(path)} & set(view_files(views))
        for chunk in _chunks(keys, views_per_image, batch_size, shard, seed, image_format):
            missing = [view for view in chunk if view.path not in whole]
            made = _make(chunk, missing, source, generator, strength, image_format, failures, workers)
            for view, encoded in made:
                path = key_path(views, view.path)
                path.parent.mkdir(parents=True, exist_ok=True)
                replace_bytes(path, encoded.data, temporary=views / "journals" / f"{name}.tmp")
                journal.append(_row(view, encoded, source, generator, strength))
            wanted, already = wanted + len(chunk), already + len(chunk) - len(missing)
            written, failed = written + len(made), failed + len(missing) - len(made)
            if on_progress is not None:
                on_progress(wanted, total)
    return RunSummary(wanted=wanted, written=written, already=already, failed=failed)


def _check(
    images: Path,
    views: Path,
    generator: Generator,
    engine: str,
    image_format: str,
    embeddings: Embeddings | None,
    interpolate: Interpolation | None,
    shard: tuple[int, int],
) -> None:
    if images == views or images in views.parents or views in images.parents:
        raise ValueError(f"the views {views} and the images {images} must be folders apart, neither inside the other")
    if engine != "local":
        raise ValueError(f"there is no engine {engine!r}; there is: local")
    if image_format not in ("png", "jpg"):
        raise ValueError(f"image_format must be 'png' or 'jpg', but is {image_format!r}")
    if not 0 <= shard[0] < shard[1]:
        raise ValueError(f"shard must be (which, of how many) with 0 <= which < how many, but is {shard}")
    if interpolate is not None and embeddings is None:
        raise ValueError("interpolated views need embeddings=: make them with embed_images")
    accepted = getattr(generator, "encoder_hash", None)
    if embeddings is not None and accepted is not None and embeddings.encoder_hash != accepted:
        raise ValueError(
            f"the generator knows embeddings of the encoder with hash {accepted}, but these are of "
            f"{embeddings.encoder_name} (hash {embeddings.encoder_hash})"
        )


def _chunks(
    keys: Sequence[str], views_per_image: int, batch_size: int, shard: tuple[int, int], seed: int, suffix: str
) -> Iterator[list[WantedView]]:
    """This shard's chunks of the sorted list of (key, k): every ``shard[1]``-th, whole."""
    count = len(keys) * views_per_image
    for start in range(shard[0] * batch_size, count, shard[1] * batch_size):
        places = (divmod(place, views_per_image) for place in range(start, min(start + batch_size, count)))
        yield [WantedView(keys[i], k, f"{keys[i]}.{k}.{suffix}", view_seed(seed, keys[i], k)) for i, k in places]


def _make(
    chunk: list[WantedView],
    missing: list[WantedView],
    source: ConditionSource,
    generator: Generator,
    strength: float | Mapping[str, float] | None,
    image_format: str,
    failures: Failures,
    workers: int,
) -> list[tuple[WantedView, EncodedView]]:
    """The missing views of a chunk whose sources are good, encoded; nothing is computed if there is none."""
    if not missing:
        return []
    errors = source.read(chunk)
    for key, error in errors.items():
        failures.add(key, error)
    good = [view for view in chunk if view.key not in errors]
    lacking = {view.path for view in missing}
    if not any(view.path in lacking for view in good):
        return []
    strengths = strength_of(strength, [view.key for view in good])
    images = generator.generate(source.conditions(good), seeds=[view.seed for view in good], strength=strengths)
    kept = [place for place, view in enumerate(good) if view.path in lacking]
    return list(zip([good[i] for i in kept], encode_views(images[kept], image_format, workers), strict=True))


def _row(
    view: WantedView,
    encoded: EncodedView,
    source: ConditionSource,
    generator: Generator,
    strength: float | Mapping[str, float] | None,
) -> Row:
    strengths = strength_of(strength, [view.key])
    partner, alpha = source.partner_of(view)
    return Row(
        key=view.key,
        k=view.k,
        path=view.path,
        generator=getattr(generator, "name", type(generator).__name__),
        model=getattr(generator, "model_id", ""),
        model_hash=generator.model_hash,
        seed=view.seed,
        strength=None if strengths is None else float(strengths[0]),
        foreground_ratio=None,
        partner_key=partner,
        alpha=alpha,
        supervision=generator.supervision,
        licence=generator.licence,
        width=encoded.width,
        height=encoded.height,
        sha256=encoded.sha256,
    )
