"""The log of a run, read again: what it said of the time left, and what was true."""

import pytest

LOG = """\
loading digits
23:59:30 level 0 of 2, 100% of weights: 3 runs, 300 steps to do
23:59:30 level 0: compiling
23:59:40 level 0 of 2, 100% of weights  50 of 300 steps  3% in all  0:50 left
23:59:50 level  0    100%   0:20  ticket 97.81
00:00:00 level 1 of 2, 80.2% of weights  100 of 900 steps  loss 0.2  40% in all  1:00 left
00:00:10 level 1 of 2, 80.2% of weights  500 of 900 steps  loss 0.2  50% in all  1:01:00 left
00:00:40 level  2    64.3%   0:20  ticket 97.81
00:00:41 stopped
"""


def test_each_line_is_held_against_the_end(benchmark_of, tmp_path, capsys):
    time_left = benchmark_of("time_left")
    found = time_left.predictions(LOG.splitlines())
    assert [(one.level, one.at, one.said, one.true) for one in found] == [
        (0, 10, 50, 60),
        (1, 30, 60, 40),
        (1, 40, 3660, 30),
    ]
    assert found[1].error == pytest.approx(0.5)
    (tmp_path / "log").write_text(LOG)
    assert time_left.main([str(tmp_path / "log")]) == 0
    out = capsys.readouterr().out
    assert "0% of 2 lines within 30%; the worst +12100%, in level 1 with 30 s to go" in out
