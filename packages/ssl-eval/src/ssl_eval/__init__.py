"""Evaluation of encoders: kNN, linear probe, fine-tuning, detection, retrieval, and their results.

Names are imported when they are used: `import ssl_eval` does not import torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
