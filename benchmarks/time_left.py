"""How far the time left that a run showed was from the time that it took.

    python run.py lenet_digits 2> log; python benchmarks/time_left.py log

It reads the lines with the time of day that `run.py` writes to a file: each says what is left, and
the last one of all, a level's, when that was over. The report that is drawn at the end is no part
of it. Lines of level 0 are told, and count for nothing: what a pruned level takes is not known yet.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

DAY = 24 * 3600
LINE = re.compile(r"(\d\d):(\d\d):(\d\d) (.*)")
LEVEL, LEFT = re.compile(r"level +(\d+)"), re.compile(r"(?:(\d+):)?(\d+):(\d\d) left$")
# What is left of the last seconds is a matter of the clock's own seconds.
LEAST_LEFT = 20


class Prediction(NamedTuple):
    """What one line said, in seconds since the first line, and what then came."""

    level: int
    at: int
    said: int
    true: int

    @property
    def error(self) -> float:
        """How much too much was said, as a share of the truth."""
        return self.said / self.true - 1


def predictions(lines: Iterable[str]) -> list[Prediction]:
    """Returns what the lines of a log said of the time left, in order."""
    told, at, day, before = [], 0, 0, None
    first = None
    for line in lines:
        match = LINE.match(line)
        if not match or not (level := LEVEL.match(match[4])):
            continue
        clock = int(match[1]) * 3600 + int(match[2]) * 60 + int(match[3])
        if before is not None and clock < before:  # midnight
            day += DAY
        before = clock
        first = clock if first is None else first
        at = clock + day - first
        if left := LEFT.search(match[4]):
            hours, minutes, seconds = (int(part or 0) for part in left.groups())
            told.append((int(level[1]), at, hours * 3600 + minutes * 60 + seconds))
    return [Prediction(level, when, said, at - when) for level, when, said in told if at > when]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", nargs="+", type=Path, help="what run.py wrote to standard error")
    options = parser.parse_args(arguments)
    for log in options.logs:
        found = predictions(log.read_text(encoding="utf-8").splitlines())
        print(f"{log}: {len(found)} lines tell the time left")
        for level in sorted({one.level for one in found}):
            here = [one for one in found if one.level == level]
            errors = [f"{one.error:+.0%}" for one in (here[0], here[len(here) // 2], here[-1])]
            print(
                f"  level {level:2}: said {here[0].said:6} s, true {here[0].true:6} s; error at "
                f"its first, middle and last line {', '.join(errors)}"
            )
        counted = [one for one in found if one.level >= 1 and one.true >= LEAST_LEFT]
        if counted:
            within = sum(abs(one.error) <= 0.3 for one in counted) / len(counted)
            worst = max(counted, key=lambda one: abs(one.error))
            print(
                f"  from level 1 on: {within:.0%} of {len(counted)} lines within 30%; the worst "
                f"{worst.error:+.0%}, in level {worst.level} with {worst.true} s to go"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
