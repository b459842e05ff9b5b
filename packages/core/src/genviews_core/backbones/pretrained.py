"""Download weights through timm, torchvision and open_clip, without long waits when there is no network."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

TIMM = "timm/"
PATIENCE = 5.0
"""Seconds to wait for the hub's first response; huggingface_hub tries each of two files six times, about a minute."""


def load_timm(name: str, *, size: int | None = None, channels: int = 3) -> tuple[nn.Module, dict[str, Any]]:
    """Load a pretrained timm network in evaluation mode, with `size` in pixels, `mean` and `std` of its images.

    Args:
        name: "<model>" or "<model>.<tag>", as listed by timm.list_pretrained().
        size: image size if not the model's own; position embeddings of vision transformers are interpolated.
        channels: channels of the images. For other than three, the first layer is adapted as timm does, and mean and
            standard deviation are the average of the model's.

    Raises:
        ValueError: timm has no such weights, or they cannot be downloaded.
    """
    import timm

    from genviews_core.backbones.create import create_backbone

    if not timm.is_model_pretrained(name):
        raise ValueError(f"timm has no weights called {name}; timm.list_pretrained() lists those it has")
    network = create_backbone(TIMM + name, image_size=size, pretrained=True, in_chans=channels)
    images = timm_images(network)
    if channels != 3:
        images |= {kind: (sum(images[kind][:3]) / 3,) * channels for kind in ("mean", "std")}
    return network.eval(), images if size is None else {**images, "size": size}


def timm_images(network: nn.Module | str) -> dict[str, Any]:
    """Return `size`, `mean` and `std` of the images in timm's data config of a network or model name."""
    import timm
    from timm.data.config import resolve_data_config, resolve_model_data_config

    if isinstance(network, str):
        config = timm.get_pretrained_cfg(network)
        images = resolve_data_config(pretrained_cfg={} if config is None else config.to_dict())
    else:
        images = resolve_model_data_config(network)
    return {"size": images["input_size"][-1], "mean": tuple(images["mean"]), "std": tuple(images["std"])}


@contextmanager
def from_hub(name: str, otherwise: str = "give a backbone folder or a local file") -> Iterator[None]:
    """Download weights in this context, from the hub's cache if the hub does not respond.

    Args:
        name: the model, for the error message.
        otherwise: alternative named in the error message.

    Raises:
        ValueError: the weights cannot be downloaded; the message gives the reason and the remedy.
    """
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = offline or not _answers(constants.ENDPOINT)  # the hub's client reads it on every call
    try:
        yield
    except TypeError:  # an option that the network does not have
        raise
    except Exception as error:  # errors of the hub, torch and the network have no common base class
        reason = first_line(error)
        if constants.HF_HUB_OFFLINE and any(isinstance(each, OSError) for each in _chain(error)):
            reason = f"{constants.ENDPOINT} is unreachable, and they are not in its cache"
        raise ValueError(
            f"cannot get the weights of {name} ({reason}); load them on a machine with network and copy its HF_HOME "
            f"here, or {otherwise}"
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = offline


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and the errors that it was raised from."""
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
    """Return the first non-empty line of an error's message, or the name of its type."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
