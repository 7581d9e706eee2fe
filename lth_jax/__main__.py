"""`lth-jax COMMAND`, or `python -m lth_jax COMMAND`."""

import sys


def main() -> int:
    """Calls the command that this process's arguments name; returns the exit status."""
    try:
        from lth_jax.system import signals

        signals.end_in_one_line()  # before anything else is imported, which takes seconds
    except KeyboardInterrupt:  # within these first milliseconds
        return 130
    from lth_jax.system import streams

    streams.open_standard()
    from lth_jax.cli import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
