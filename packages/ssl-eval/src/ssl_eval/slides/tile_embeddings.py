"""Embeddings of tiles: computed slide by slide, cached as one safetensors file each, read one slide at a time.

Shapes: b tiles of a batch, n tiles of a slide, d feature width, h x w pixels.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from genviews_core.distributed import rank, world_size
from genviews_core.files import atomic_write
from ssl_eval.distributed import raise_on_all_ranks
from ssl_eval.features import evaluating
from ssl_eval.slides.slide_sets import EMBEDDED, Slide, tiles_of

FEATURES = "features"
BACKBONE = "backbone"
LONGEST = 200  # bytes; longer names are hashed, since name, suffix and process id must fit into 255


def embed_slides(
    backbone: nn.Module,
    slides: Sequence[Slide],
    read: Callable[[Slide], Iterable[Float[Tensor, "b 3 h w"]]],
    folder: Path,
    *,
    about: Mapping[str, str],
    device: str | torch.device = "cpu",
    amp: torch.dtype | None = None,
    group: dist.ProcessGroup | None = None,
    on_slide: Callable[[int, int], object] = lambda done, slides: None,
) -> None:
    """Embed the tiles of all slides that are not cached yet, as float16 in FOLDER/<name>.safetensors.

    If interrupted, it continues with the next slide. A slide is embedded again if its tiles or `about` have changed.
    The embeddings of one slide and one batch of tiles are in memory at a time.

    Args:
        backbone: tiles [b, 3, h, w] to features [b, d].
        slides: the slides; those given as embeddings are skipped.
        read: yields the tiles of a slide in batches, in the order of `tiles_of`.
        folder: folder of the cached embeddings.
        about: what the embeddings depend on: the hash of the backbone and the preprocessing.
        device: device of the backbone.
        amp: dtype of autocast; None for none.
        group: processes that share the slides; all return after all slides are embedded.
        on_slide: called after each slide with the numbers of finished and of all slides of this process.

    Raises:
        ValueError: on every process, if a tile cannot be read or features are not finite vectors.
    """
    backbone.to(device)
    mine = [slide for slide in slides if slide.place.suffix != EMBEDDED][rank(group) :: world_size(group)]
    with raise_on_all_ranks(group):
        for done, slide in enumerate(mine, start=1):
            path, said = embedding_path(folder, slide), {**about, "tiles": _tiles_hash(slide.place)}
            if _metadata(path) != said:
                _write(path, _embed(backbone, read(slide), device, amp, slide), said)
            on_slide(done, len(mine))


def embedding_path(folder: Path, slide: Slide) -> Path:
    """Return the file of a slide's embeddings: its own, or the cached one."""
    if slide.place.suffix == EMBEDDED:
        return slide.place
    name = slide.name
    if len(os.fsencode(name.rpartition("/")[2])) > LONGEST:
        name = hashlib.blake2b(os.fsencode(name), digest_size=16).hexdigest()
    return folder / f"{name}{EMBEDDED}"


class CachedBags(Sequence[Tensor]):
    """Embeddings of slides, read on access.

    Args:
        slides: the slides.
        folder: folder that `embed_slides` wrote to.
        backbone: expected hash of the backbone, for files that contain one.
    """

    def __init__(self, slides: Sequence[Slide], folder: Path, *, backbone: str):
        self._paths, self._backbone = [embedding_path(folder, slide) for slide in slides], backbone

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, row: int) -> Float[Tensor, "n d"]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return read_bag(self._paths[row], backbone=self._backbone)


def read_bag(path: Path, *, backbone: str) -> Float[Tensor, "n d"]:
    """Read the embeddings of one slide as float32.

    Raises:
        ValueError: the file is missing, invalid, empty, or of another backbone.
    """
    try:
        with safe_open(path, "pt") as file:
            said, features = file.metadata() or {}, file.get_tensor(FEATURES)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"expected embeddings [tiles, width] named {FEATURES} in {path}, got none ({error})") from None
    if features.ndim != 2 or len(features) == 0:
        raise ValueError(
            f"expected embeddings [tiles, width] of at least one tile in {path}, got {list(features.shape)}"
        )
    if said.get(BACKBONE, backbone) != backbone:
        raise ValueError(f"expected embeddings of the backbone {backbone} in {path}, got {said[BACKBONE]}")
    return features.float()


@torch.no_grad()
def _embed(
    backbone: nn.Module,
    batches: Iterable[Float[Tensor, "b 3 h w"]],
    device: str | torch.device,
    amp: torch.dtype | None,
    slide: Slide,
) -> Float[Tensor, "n d"]:
    outputs = []
    with evaluating(backbone), torch.autocast(torch.device(device).type, dtype=amp, enabled=amp is not None):
        for images in batches:
            output = backbone(images.to(device, non_blocking=True))
            if output.ndim != 2:
                raise ValueError(
                    f"expected features [batch, width] from the backbone, got {list(output.shape)}; pool them"
                )
            outputs.append(output.to("cpu", torch.float16))
    features = torch.cat(outputs)
    if not features.isfinite().all():
        raise ValueError(
            f"expected finite features for tiles of {slide.place}, got NaN or infinity; check the backbone's weights"
        )
    return features


def _write(path: Path, features: Float[Tensor, "n d"], said: dict[str, str]) -> None:
    """Write atomically, safe for concurrent evaluations of the same slide."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    atomic_write(
        path, lambda file: save_file({FEATURES: features}, file, metadata=said), sync=False, temporary=unfinished
    )


def _metadata(path: Path) -> dict[str, str] | None:
    """Return the metadata of a cached file; None if it is missing or invalid."""
    try:
        with safe_open(path, "pt") as file:
            return file.metadata()
    except (OSError, SafetensorError):
        return None


def _tiles_hash(folder: Path) -> str:
    """Return a hash of the tiles' names and sizes in bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for tile in tiles_of(folder):
        digest.update(f"{tile.name} {tile.stat().st_size}\n".encode())
    return digest.hexdigest()
