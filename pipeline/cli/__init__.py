"""The `saccade` command: parse, call, report. Everything heavy is imported when a command needs it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
