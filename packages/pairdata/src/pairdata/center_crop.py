"""Resize and center-crop an image as torchvision does, without its memory cost for very long or tall images."""

from PIL import Image

MAX_RESIZED = 2**24
"""Images are resized as a whole up to this many pixels: 4000 x 1 pixels resized to short side 256 would take 0.8 GB."""


def resize_and_center_crop(
    image: Image.Image, size: int, resize: int, resampling: Image.Resampling = Image.Resampling.BILINEAR
) -> Image.Image:
    """Resize the short side to `resize`, then crop the central size x size pixels, padding smaller images with black.

    The result equals torchvision's. If the whole resized image would have more than MAX_RESIZED pixels, only the
    cropped region is resized, with the same sampling positions.

    Args:
        image: RGB image.
        size: side of the square crop, pixels.
        resize: short side before the crop, pixels.
        resampling: Pillow's filter, with antialiasing.
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
    """Return width and height with the short side resized to `short`, rounded as in torchvision's Resize."""
    shorter = min(width, height)
    return int(short * width / shorter), int(short * height / shorter)
