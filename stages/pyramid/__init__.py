"""A slide as chunked OME-Zarr: opened, made, verified, exported, or shown with nothing copied.

Reading loads nothing that writes.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
