"""Patches to unit features: the built-in network, any timm model, or a local checkpoint of either."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
