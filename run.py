"""Find a winning ticket: `python run.py lenet_mnist`, or `python run.py COMMAND`. See `--help`."""

import sys

if __name__ == "__main__":
    try:
        from lth_jax.system import signals

        signals.end_in_one_line()  # before anything else is imported, which takes seconds
    except KeyboardInterrupt:  # within these first milliseconds
        sys.exit(130)
    from lth_jax.system import streams

    streams.open_standard()
    from lth_jax import cli

    if sys.argv[1:2] and sys.argv[1] in cli.COMMANDS:
        sys.exit(cli.main())
    from lth_jax.cli.run import main

    sys.exit(main())
