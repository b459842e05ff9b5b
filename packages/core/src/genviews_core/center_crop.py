"""The center of an image, as torchvision's Resize and CenterCrop cut it, without its cost for long thin images."""

from PIL import Image

MAX_RESIZED = 2**24
"""Pixels up to which a whole image is resized: an image of 4000 x 1 pixels, resized to 256, would take 0.8 GB."""


def resize_and_center_crop(
    image: Image.Image, size: int, resize: int, resampling: Image.Resampling = Image.Resampling.BILINEAR
) -> Image.Image:
    """Resize the short side to `resize`, cut the central size x size pixels; black where the image is smaller.

    The pixels are torchvision's. Where the whole resized image would be of more than MAX_RESIZED pixels, only what is
    cut is resized, from the same places.

    Args:
        image: RGB.
        size: side of the square, pixels.
        resize: short side before the cut, pixels.
        resampling: Pillow's filter; it is antialiased.
    """
    width, height = image.size
    wide, tall = resized(width, height, resize)
    left, top = round((wide - size) / 2), round((tall - size) / 2)
    if wide * tall <= MAX_RESIZED:
        if image.size != (wide, tall):
            image = image.resize((wide, tall), resampling)
        return image.crop((left, top, left + size, top + size))
    first = max(left, 0), max(top, 0)
    last = min(left + size, wide), min(top + size, tall)
    across, down = width / wide, height / tall
    box = (first[0] * across, first[1] * down, last[0] * across, last[1] * down)
    part = image.resize((last[0] - first[0], last[1] - first[1]), resampling, box=box)
    return part.crop((left - first[0], top - first[1], left - first[0] + size, top - first[1] + size))


def resized(width: int, height: int, short: int) -> tuple[int, int]:
    """Return width and height with the short side at `short`, as torchvision's Resize rounds them."""
    least = min(width, height)
    return int(short * width / least), int(short * height / least)
