"""What a command would do to each slide and why, and about what that takes; nothing is written."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
