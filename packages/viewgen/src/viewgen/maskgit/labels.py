"""Sources of the class label that MaskGIT requires: it has no unconditional mode.

Shapes: B images of a batch, H, W their sides in pixels.
"""

import csv
import json
import os
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from viewgen.encoder import ImageEncoder
from viewgen.maskgit.transformers import FAKE_CLASS

PathLike = str | os.PathLike[str]
LabelSource = Literal["given", "predicted", "fixed", "random", "none"]
SAMPLED_PER_VIEW = -1  # in place of a class: drawn from the view's seed


@runtime_checkable
class Labels(Protocol):
    """Source of a class for every image.

    Attributes:
        settings: its entries in the manifest.
    """

    settings: dict[str, Any]

    def __call__(self, images: UInt8[Tensor, "B 3 H W"], keys: Sequence[str] | None) -> Int[Tensor, " B"]:
        """Return the images' classes."""
        ...


def choose_labels(
    source: LabelSource,
    *,
    classes: int,
    label_free: bool,
    labels_file: PathLike | None,
    class_id: int | None,
    classifier: str | None,
    device: torch.device,
) -> Labels:
    """Create the label source of that name.

    Args:
        source: its name.
        classes: that the transformer knows.
        label_free: whether it was trained without labels; then only "none" fits.
        labels_file: with "given" only.
        class_id: with "fixed" only.
        classifier: with "predicted" only.
        device: device of the classifier.

    Raises:
        ValueError: if an option is missing, or one is given that this source does not read.
    """
    if (source == "none") != label_free:
        fitting = '"none", as MAGE knows no labels' if label_free else '"given", "predicted", "fixed" or "random"'
        raise ValueError(f'expected label={fitting}, got label="{source}"')
    wanted = {"given": "labels_file", "fixed": "class_id", "predicted": "classifier"}.get(source)
    for option, value in {"labels_file": labels_file, "class_id": class_id, "classifier": classifier}.items():
        if (value is None) == (option == wanted):
            raise ValueError(f'expected {option} {"with" if option == wanted else "to be None with"} label="{source}"')
    if labels_file is not None:
        return GivenLabels(labels_file, classes)
    if classifier is not None:
        return PredictedLabels(classifier, classes, device)
    if class_id is None:
        return ConstantLabel(FAKE_CLASS if label_free else SAMPLED_PER_VIEW)
    if not 0 <= class_id < classes:
        raise ValueError(f"expected class_id in 0..{classes - 1}, got {class_id}")
    return ConstantLabel(class_id)


class ConstantLabel:
    """The same class for all images, or ``SAMPLED_PER_VIEW``.

    Args:
        class_id: the class.
    """

    def __init__(self, class_id: int) -> None:
        self.class_id = class_id
        self.settings: dict[str, Any] = {} if class_id == SAMPLED_PER_VIEW else {"class_id": class_id}

    def __call__(self, images: UInt8[Tensor, "B 3 H W"], keys: Sequence[str] | None) -> Int[Tensor, " B"]:
        """Return the constant B times."""
        return torch.full((len(images),), self.class_id)


class GivenLabels:
    """Classes from a file: a JSON object ``{key: class}``, or CSV rows ``key,class`` with an optional header.

    Args:
        path: the file.
        classes: number of classes; a class is in 0..classes-1.

    Raises:
        ValueError: if the file cannot be read so, naming the first wrong entry.
    """

    def __init__(self, path: PathLike, classes: int) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ValueError(f"expected a .json or .csv of keys and classes, got {path}, which does not exist")
        self.table = _read_csv(self.path) if self.path.suffix.lower() == ".csv" else _read_json(self.path)
        for key, value in self.table.items():
            if type(value) is not int or not 0 <= value < classes:
                raise ValueError(f"{path}: expected an integer class in 0..{classes - 1} for {key!r}, got {value!r}")
        self.settings = {"labels_hash": blake2b(self.path.read_bytes(), digest_size=16).hexdigest()}

    def __call__(self, images: UInt8[Tensor, "B 3 H W"], keys: Sequence[str] | None) -> Int[Tensor, " B"]:
        """Look up the classes of the keys.

        Raises:
            ValueError: without keys, or if the file lacks one.
        """
        if keys is None:
            raise ValueError(
                "expected keys to look up labels, got none; call condition_for(keys, images), not condition(images)"
            )
        missing = [key for key in keys if key not in self.table]
        if missing:
            raise ValueError(
                f"expected a class for every image, got none for {', '.join(missing[:3])}; "
                f"add {len(missing)} rows to {self.path}"
            )
        return torch.tensor([self.table[key] for key in keys])


class PredictedLabels:
    """The most likely class by a timm classifier.

    Args:
        classifier: a name that timm.list_models(pretrained=True) gives, or a folder written by timm's
            ``push_to_hf_hub`` or ``save_for_hf``.
        classes: required number of classes.
        device: device to run on.

    Raises:
        ValueError: if it cannot be had, or knows another number of classes.
    """

    def __init__(self, classifier: str, classes: int, device: torch.device) -> None:
        import timm  # takes seconds, and most label sources do without
        from timm.data.config import resolve_model_data_config

        name = f"local-dir:{classifier}" if Path(classifier).is_dir() else classifier
        try:
            module = timm.create_model(name, pretrained=True)
        except Exception as error:  # unknown names, the hub, the network and broken files raise unrelated types
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f"cannot load the classifier {classifier!r} ({reason}); give a timm name or folder"
            ) from error
        if module.num_classes != classes:
            raise ValueError(
                f"expected a classifier of {classes} classes, got {classifier!r} with {module.num_classes}"
            )
        data = resolve_model_data_config(module)
        size, mean, std = data["input_size"][-1], (*data["mean"],), (*data["std"],)
        self.encoder = ImageEncoder(module, size=size, mean=mean, std=std, name=classifier, device=device)
        self.settings = {"classifier": classifier, "classifier_hash": self.encoder.hash}

    def __call__(self, images: UInt8[Tensor, "B 3 H W"], keys: Sequence[str] | None) -> Int[Tensor, " B"]:
        """Return the class with the highest score."""
        return self.encoder(images).argmax(1).cpu()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"cannot read {path} as JSON ({error}); write an object of keys and classes") from error
    if not isinstance(table, dict):
        kind = type(table).__name__
        raise ValueError(f'expected a JSON object like {{"cat/1.jpg": 281}} in {path}, got a {kind}')
    return table


def _read_csv(path: Path) -> dict[str, Any]:
    table: dict[str, Any] = {}
    with path.open(newline="", encoding="utf-8") as stream:
        for number, row in enumerate(csv.reader(stream), start=1):
            if len(row) != 2:
                raise ValueError(f"{path}, row {number}: expected key,class, got {len(row)} columns")
            if number > 1 or row[1].strip().isdecimal():
                table[row[0]] = int(row[1]) if row[1].strip().isdecimal() else row[1]
    return table
