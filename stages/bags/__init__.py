"""Bags: the tiles of a slide with their features, as other programs write them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
