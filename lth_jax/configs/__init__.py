"""The experiments of the package, one a file: `from lth_jax.configs.lenet_mnist import get_config`.

An installed package holds them in this folder; a checkout, in `configs/` at its top.
"""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
if not (FOLDER / "lenet_digits.py").is_file():
    FOLDER = FOLDER.parents[1] / "configs"
    __path__ = [str(FOLDER)]
