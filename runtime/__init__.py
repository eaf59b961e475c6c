"""Adds the network and the command line: deploying a plan, recording the run, reporting.

The public names stand in ``__init__.pyi``; each is imported when first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
