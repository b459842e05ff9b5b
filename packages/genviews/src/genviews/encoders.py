"""Open the encoder that embeds a folder of images, for any number of channels."""

from __future__ import annotations

from pathlib import Path

import pairdata
import sslzoo
import viewgen
from viewgen.formats import RGB


def open_encoder(
    name: str,
    images: Path,
    *,
    channels: int | None = None,
    value_range: tuple[float, ...] | None = None,
    device: str = "cpu",
) -> viewgen.ImageEncoder:
    """Return the encoder; the value range of other than three channels is measured if it is not known.

    Args:
        name: backbone folder, checkpoint file or timm/NAME.
        images: folder of the images.
        channels: channels of the images; None for those of the encoder. The first layer of timm's networks is adapted.
        value_range: values mapped to 0 and 255 in images of more than 8 bits and other than three channels; None for
            those in backbone.json.
        device: device of the encoder.

    Raises:
        ValueError: the encoder cannot be opened, or takes images of another number of channels.
    """
    given = {"channels": channels, "value_range": value_range}
    encoder = viewgen.load_encoder(name, other=sslzoo.resolve_backbone, device=device, **given)
    if encoder.channels != RGB and encoder.value_range is None:
        encoder.value_range = pairdata.channel_statistics(images, encoder.channels).value_range
    return encoder
