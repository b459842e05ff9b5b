"""DAVIS 2017: read the official folders, propagate masks, and measure them.

    ImageSets/2017/val.txt                    names of videos, one a line
    JPEGImages/480p/<video>/00000.jpg         frames
    Annotations/480p/<video>/00000.png        a palette image each: 0, or the number of an object; 255 is void

The objects of the first mask are segmented and measured, with any numbering. Void and objects that appear later count
as background, as in the official semi-supervised evaluation.

https://davischallenge.org/davis2017/code.html
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch.distributed as dist
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image
from torch import nn

from genviews_core.distributed import all_gather_object, rank, world_size
from genviews_core.files import make_folder, writing
from genviews_core.images import UnreadableImage, read_label_map
from genviews_core.listing import images_in
from ssl_eval.distributed import raise_on_all_ranks
from ssl_eval.feature_maps import OutputAndFeatureMap
from ssl_eval.image_files import read_rgb
from ssl_eval.item_loader import OnUnreadable, raise_error
from ssl_eval.text import read_names
from ssl_eval.video.davis_metrics import ObjectScores, compare_masks
from ssl_eval.video.mask_propagation import Frames, PropagationConfig, propagate_masks

VOID = 255


@dataclass(frozen=True)
class Video:
    """Frames of a video and their masks, in order."""

    name: str
    frames: Sequence[Path]
    masks: Sequence[Path]


def read_davis(folder: str | Path, *, subset: str = "val", resolution: str = "480p") -> list[Video]:
    """Read the videos of a subset with masks: train or val.

    Raises:
        ValueError: a file or folder is missing.
    """
    folder = Path(folder)
    listing = folder / "ImageSets/2017" / f"{subset}.txt"
    if not listing.is_file():
        raise ValueError(f"{listing} is missing; give DAVIS' folder, with ImageSets, JPEGImages, Annotations")
    names = read_names(listing)
    if not names:
        raise ValueError(f"expected names of videos in {listing}, got none")
    return [_video(folder, name, resolution) for name in names]


def _video(folder: Path, name: str, resolution: str) -> Video:
    images, annotations = (folder / part / resolution / name for part in ("JPEGImages", "Annotations"))
    frames = images_in(images, [".jpg"])
    if len(frames) < 3:
        raise ValueError(
            f"expected three or more frames in {images}, got {len(frames)}; the first and last are not evaluated"
        )
    masks = [annotations / f"{frame.stem}.png" for frame in frames]
    if missing := [mask for mask in masks if not mask.is_file()]:
        raise ValueError(f"{len(missing)} of {len(masks)} masks of {name} are missing, first {missing[0]}")
    return Video(name, frames, masks)


def read_mask(path: Path) -> UInt8[ndarray, "h w"]:
    """Read a mask of object numbers; background and void are 0.

    Raises:
        ValueError: the image does not have one channel.
    """
    return _without_void(_read_numbers(path))


def _read_numbers(path: Path) -> UInt8[ndarray, "h w"]:
    """Read the object numbers as stored in the file."""
    return np.array(read_label_map(path))


def _without_void(mask: UInt8[ndarray, "h w"]) -> UInt8[ndarray, "h w"]:
    return np.where(mask == VOID, 0, mask).astype(np.uint8)


def _objects_in(mask: UInt8[ndarray, "h w"], path: Path) -> list[int]:
    """Return the object numbers of a first mask, without void."""
    numbers = [int(number) for number in np.unique(mask) if number not in (0, VOID)]
    if not numbers:
        void = f"0 and {VOID}, which is void" if (mask == VOID).any() else "0 alone"
        raise ValueError(f"expected objects numbered 1 to {VOID - 1} in {path}, got {void}")
    return numbers


def segment_video(
    network: OutputAndFeatureMap, video: Video, frames: Frames, options: PropagationConfig
) -> list[UInt8[ndarray, "h w"]]:
    """Return a mask of each frame; the first one is the annotation.

    Raises:
        ValueError: a file cannot be read, the first mask has no object, or sizes differ.
    """
    numbered = _read_numbers(video.masks[0])
    _objects_in(numbered, video.masks[0])
    first = _without_void(numbered)
    images = (np.asarray(read_rgb(path)) for path in video.frames)
    try:
        return [first, *propagate_masks(network, images, first, frames, options)]
    except UnreadableImage:
        raise
    except ValueError as error:
        raise ValueError(f"{video.name}: {error}") from None


def measure_video(video: Video, predicted: Sequence[UInt8[ndarray, "h w"]]) -> list[ObjectScores]:
    """Compute J and F of each object of the first mask; the first and the last frame are excluded.

    Raises:
        ValueError: masks differ in size, or see compare_masks.
    """
    masks = [read_mask(path) for path in video.masks]
    numbers = _objects_in(masks[0], video.masks[0])
    if odd := [path for path, mask in zip(video.masks, masks, strict=True) if mask.shape != masks[0].shape]:
        raise ValueError(f"expected masks of the size of the first one of {video.name}, got another size in {odd[0]}")
    truth = np.stack([np.where(np.isin(mask, numbers), mask, 0) for mask in masks[1:-1]])
    return compare_masks(truth, np.stack(list(predicted)[1:-1]), numbers)


def unusual_masks(videos: Sequence[Video]) -> list[str]:
    """Return notes on unusual first masks: gaps in the object numbers, void pixels.

    Raises:
        ValueError: a first mask has no object.
    """
    remarks = []
    for video in videos:
        try:
            mask = _read_numbers(video.masks[0])
        except UnreadableImage:  # reported by the evaluation
            continue
        numbers = _objects_in(mask, video.masks[0])
        if numbers != list(range(1, len(numbers) + 1)):
            listed = ", ".join(map(str, numbers))
            remarks.append(f"{video.name}: the objects' numbers have gaps; {listed} are measured, and no others")
        if (mask == VOID).any():
            remarks.append(f"{video.name}: {VOID} in the first mask is void and counts as background")
    return remarks


def write_masks(folder: str | Path, video: Video, predicted: Sequence[UInt8[ndarray, "h w"]]) -> None:
    """Write masks for the official evaluation: <folder>/<video>/00000.png, with the palette of the first annotation.

    Raises:
        ValueError: a mask cannot be written.
    """
    place = make_folder(Path(folder) / video.name)
    palette = read_label_map(video.masks[0]).getpalette()
    for path, mask in zip(video.masks, predicted, strict=True):
        image = Image.fromarray(mask)
        if palette is not None:
            image.putpalette(palette)
        with writing(place / path.name):
            image.save(place / path.name)


def evaluate_davis(
    backbone: nn.Module,
    videos: Sequence[Video],
    frames: Frames,
    options: PropagationConfig,
    *,
    masks: str | Path | None = None,
    group: dist.ProcessGroup | None = None,
    on_video: Callable[[str, Sequence[ObjectScores]], object] = lambda name, followed: None,
    on_unreadable: OnUnreadable = raise_error,
) -> list[ObjectScores]:
    """Compute J and F of every object of every video, for `davis_table`.

    Args:
        backbone: a vision transformer or a ResNet.
        videos: see `read_davis`.
        frames: preprocessing of the frames.
        options: options of the propagation.
        masks: folder for the predicted masks.
        group: processes that share the videos; each gets the result of all.
        on_video: called after each video of this process with its name and scores.
        on_unreadable: called with an error message for each video with an unreadable file, which is then skipped.

    Raises:
        ValueError: no video can be read, the backbone has no feature map, or see `segment_video` and `measure_video`;
            raised on every process.
    """
    network, followed = OutputAndFeatureMap(backbone), {}
    with raise_on_all_ranks(group):
        for row in range(rank(group), len(videos), world_size(group)):
            video = videos[row]
            try:
                predicted = segment_video(network, video, frames, options)
                followed[row] = measure_video(video, predicted)
            except UnreadableImage as error:
                on_unreadable(f"the video {video.name}: {error}")
                continue
            if masks is not None:
                write_masks(masks, video, predicted)
            on_video(video.name, followed[row])
    everyone = {row: objects for part in all_gather_object(followed, group) for row, objects in part.items()}
    if not everyone:
        raise ValueError(f"none of {len(videos)} videos can be read")
    return [each for row in sorted(everyone) for each in everyone[row]]
