"""A run in the browser: its slides with what was read of them, served on loopback or written as pages."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
