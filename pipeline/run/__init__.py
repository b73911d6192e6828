"""Prediction of a cohort: one task a slide, failures recorded, a rerun does only what is missing."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
