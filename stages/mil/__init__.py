"""Heads of multiple-instance learning: features of all cells of a slide -> its logits, and where they looked."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
