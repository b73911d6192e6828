"""The model: attention, draw, reading, encoding and prediction, composed once; and its checkpoint."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
