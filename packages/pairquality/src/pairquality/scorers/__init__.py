"""Scorers of the pairs of a training step: exact, online (by the network in training), or distilled.

Names are imported when they are used, so that the command line and the configurations do not import torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
