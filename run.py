"""Find a winning ticket: `python run.py --config=configs/lenet_mnist.py`. See `--help`."""

import sys

from lth_jax.cli.run import main

if __name__ == "__main__":
    sys.exit(main())
