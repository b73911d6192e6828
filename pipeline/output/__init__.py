"""What lands on disk: tables, a slide's folder, bags of features, the record of a run.

Each is written beside its place and renamed; nothing that another program wrote is replaced.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
