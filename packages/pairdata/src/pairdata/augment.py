"""Configuration of the batched augmentation, importable without torch.

Legend: B images, C channels, S x S pixels in the input, `size` x `size` in the output.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

    import pairdata.batch_augment

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random resized crop, flip, color jitter, grayscale, blur, solarize, normalize, as in torchvision.

    The number of channels is that of `mean` and `std`. Saturation, hue and grayscale are defined for RGB alone. For
    other than three channels, brightness and contrast are drawn for each channel, and contrast is about its mean.

    Every image of a batch gets its own random parameters. Calling an instance draws them and applies them; `draw` and
    `apply` do these two steps separately, for example to keep the crop boxes.

    Attributes:
        size: output height and width in pixels.
        crop_scale: smallest and largest fraction of the area.
        crop_ratio: smallest and largest width / height.
        interpolation: how crops are resized, with antialiasing: "bilinear" (torchvision's default) or "bicubic".
        flip: probability of a horizontal flip.
        jitter: brightness, contrast, saturation and hue as in torchvision's ColorJitter; None for no jitter.
        jitter_p: probability of jitter.
        gray_p: probability of grayscale.
        blur_p: probability of blur.
        blur_sigma: smallest and largest sigma in output pixels; the kernel is cut off at 3 sigma.
        solarize_p: probability of inverting the values above one half.
        mean: subtracted from each channel, for values in [0, 1].
        std: each channel is divided by it.
    """

    size: int
    crop_scale: tuple[float, float] = (0.2, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bilinear"
    flip: float = 0.5
    jitter: tuple[float, float, float, float] | None = (0.4, 0.4, 0.4, 0.1)
    jitter_p: float = 0.8
    gray_p: float = 0.2
    blur_p: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_p: float = 0.0
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise ValueError(f"expected mean and std of as many channels, got {len(self.mean)} and {len(self.std)}")
        if self.channels != 3 and (self.gray_p > 0 or (self.jitter and max(self.jitter[2:]) > 0)):
            raise ValueError(
                f"expected no saturation, hue and grayscale for {self.channels} channels, got jitter={self.jitter} and "
                "gray_p={:g}; set jitter=(brightness, contrast, 0.0, 0.0) and gray_p=0.0".format(self.gray_p)
            )

    @property
    def channels(self) -> int:
        """Number of channels of the images."""
        return len(self.mean)

    def __call__(self, images: "torch.Tensor", sizes: "torch.Tensor", generator: "torch.Generator") -> "torch.Tensor":
        """Augment a batch.

        Args:
            images: uint8 [B, C, S, S] on any device; channels_last is fastest on a CPU.
            sizes: int64 [B, 2], height and width of each original image.
            generator: a CPU generator, so that the views are the same on every device.

        Returns:
            float32 [B, C, size, size] on the device of the images.
        """
        return self.apply(images, self.draw(sizes, generator))

    def draw(self, sizes: "torch.Tensor", generator: "torch.Generator") -> "pairdata.batch_augment.AugmentDraws":
        """Draw the random parameters of every image; see `pairdata.batch_augment.draw`."""
        from pairdata.batch_augment import draw

        return draw(self, sizes, generator)

    def apply(self, images: "torch.Tensor", draws: "pairdata.batch_augment.AugmentDraws") -> "torch.Tensor":
        """Augment a batch with given random parameters; see `pairdata.batch_augment.apply`."""
        from pairdata.batch_augment import apply

        return apply(self, images, draws)
