"""Patches to features: pretrained encoders as data, frozen or learning; small networks trained from the start."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
