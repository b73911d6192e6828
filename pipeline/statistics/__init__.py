"""How well predictions fit labels: metrics, intervals over patients, curves, thresholds, comparisons; arrays only."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
