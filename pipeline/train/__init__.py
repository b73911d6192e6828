"""Training on a cohort: the loop, the held-out slides, and the calibration of intervals."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
