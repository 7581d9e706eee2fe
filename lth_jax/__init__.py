"""Winning tickets in JAX: masks, exact pruning and rewinding for any parameter pytree.

Names are loaded when they are first used, so that `import lth_jax` costs nothing. Which there are,
and where each lives, is said by `__init__.pyi` alone, which type checkers read as well.
"""

import lazy_loader

from lth_jax._version import __version__

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ = [*__all__, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]
