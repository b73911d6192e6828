"""What kind of label a model predicts: classes, labels, grades, a value, survival."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
