"""Pairs of real and synthetic images on disk, as augmented batches on the device.

Names are imported when they are used: `from pairdata import Augment` does not import torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
