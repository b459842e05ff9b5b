"""Weights that timm, torchvision and open_clip fetch, without waiting for a network that is not there."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

TIMM = "timm/"
PATIENCE = 5.0
"""Seconds for the hub's first answer; huggingface_hub itself tries six times for each of two files, about a minute."""


def load_timm(name: str, *, size: int | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """A network of timm with timm's weights, in evaluation mode, and its images: `size` in pixels, `mean`, `std`.

    Args:
        name: "<model>" or "<model>.<tag>", as timm.list_pretrained() writes them.
        size: side of its images where it is not the model's own; a vision transformer's positions are interpolated.

    Raises:
        ValueError: timm has no such weights, or they cannot be had.
    """
    import timm

    from genviews_core.backbones.create import create_backbone

    if not timm.is_model_pretrained(name):
        raise ValueError(f"timm has no weights called {name}; timm.list_pretrained() names those it has.")
    network = create_backbone(TIMM + name, image_size=size, pretrained=True)
    images = timm_images(network)
    return network.eval(), images if size is None else {**images, "size": size}


def timm_images(network: nn.Module | str) -> dict[str, Any]:
    """The images that timm's configuration of a network, or of a name, asks for: `size`, `mean`, `std`."""
    import timm
    from timm.data.config import resolve_data_config, resolve_model_data_config

    if isinstance(network, str):
        config = timm.get_pretrained_cfg(network)
        images = resolve_data_config(pretrained_cfg={} if config is None else config.to_dict())
    else:
        images = resolve_model_data_config(network)
    return {"size": images["input_size"][-1], "mean": tuple(images["mean"]), "std": tuple(images["std"])}


@contextmanager
def from_hub(name: str, otherwise: str = "give a backbone folder") -> Iterator[None]:
    """Weights are fetched inside; where the hub does not answer they come from its cache, or one line says how.

    Args:
        name: what is fetched, for the line.
        otherwise: what the user can give instead, for the line.

    Raises:
        ValueError: whatever kept the weights away.
    """
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = offline or not _answers(constants.ENDPOINT)  # asked by the hub's client at every call
    try:
        yield
    except TypeError:  # an option that the network does not have
        raise
    except Exception as error:  # the hub's, torch's and the network's errors have no common base
        reason = first_line(error)
        if constants.HF_HUB_OFFLINE and any(isinstance(each, OSError) for each in _chain(error)):
            reason = f"{constants.ENDPOINT} is not reached, and they are not in its cache"
        raise ValueError(
            f"cannot get the weights of {name} ({reason}); load them on a machine with network and copy its HF_HOME "
            f"here, or {otherwise}"
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = offline


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=PATIENCE):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False


def first_line(error: BaseException) -> str:
    """What went wrong, in one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
