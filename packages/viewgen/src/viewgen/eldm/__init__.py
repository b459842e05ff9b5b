"""E-LDM: a diffusion model that generates an image from an encoder's embedding of it (Gen-SIS, arXiv 2412.01672).

Names are imported when they are used, so that the command line and the configurations do not import torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
