"""An experiment that is not measured by accuracy: its tables, sentences and figures."""

import math

import pytest

from lth_jax.analysis.references import Within, compare
from lth_jax.analysis.verdicts import Standard, Verdict, judge
from lth_jax.config import from_config
from lth_jax.report.claims import claims_table
from lth_jax.report.figures import accuracy, curves, paired_difference
from lth_jax.report.table import legend, results_tables
from lth_jax.report.verdict import verdict
from lth_jax.store.table import named
from lth_jax.store.tables import CURVES, RESULTS, TRUNK, CurvePoint
from lth_jax.training.metrics import ACCURACY, Metric, recorded_metric, wrong_metric

from ..analysis.score_rows import score_rows
from .example_rows import example_runs

ERROR = Metric("absolute error", unit="mm", decimals=1, higher_is_better=False)
STANDARD = Standard(margin=1.0, metric=ERROR)
DENSE = [40.0, 41.0, 42.0]
# Level 1 errs less than the dense network, level 2 as much, level 3 clearly more.
ROWS = score_rows(
    {
        TRUNK: [DENSE, [38.0, 39.1, 40.0], DENSE, [50.0, 51.1, 52.0]],
        "reinit": [[45.0, 46.0, 47.1], [46.0, 47.1, 48.0], [60.0, 61.1, 62.0]],
    }
)


def test_where_less_is_better_a_smaller_error_matches_and_a_larger_one_is_below():
    found = judge(ROWS, STANDARD)
    told = [found[TRUNK, level].verdict for level in (1, 2, 3)]
    assert told == [Verdict.MATCHES, Verdict.MATCHES, Verdict.BELOW]
    assert found[TRUNK, 1].pair.mean > 0
    assert {found["reinit", level].verdict for level in (1, 2, 3)} == {Verdict.BELOW}


def test_sentences_and_tables_name_the_metric_and_its_unit():
    text = verdict(ROWS, STANDARD)
    assert "matches the dense network (within 1 mm) down to 64.0% of the weights" in text
    assert "Best ticket by validation absolute error: 80.0% of the weights" in text
    assert "39.0 mm (dense 41.0 mm), better than it" in text
    assert "accuracy" not in text
    titles = [table.title for table in results_tables(ROWS, STANDARD)]
    assert titles[1:] == [
        "Test absolute error at early stop, mm", "Test absolute error at the end, mm"
    ]  # fmt: skip
    assert "of which less is better" in legend(ROWS, STANDARD)


def test_the_margin_is_in_the_metric_s_own_unit():
    half = from_config({"analysis": {"margin": 0.5}})
    assert Standard.of(half, ERROR) == Standard(0.5, 0.95, 0.0, ERROR)
    assert Standard.of(from_config({})).margin == ACCURACY.margin / 100
    bits = Metric("bits", margin=0.02)
    assert Standard.of(from_config({}), bits).margin == 0.02


def test_published_points_are_named_by_the_column_and_gains_are_turned():
    reference = {
        "ticket.early_stop_test_absolute_error": ((1.0, 41.0, 1.0),),
        "claims": ({"says": "less", "kind": "gain", "at": 0.8, "value": 2.0, "uncertainty": 0.5},),
    }
    gain, point = compare(ROWS, reference, ERROR)
    assert gain.ours == pytest.approx(41 - 39.033, abs=0.01)
    assert (gain.within, point.within) == (Within.YES, Within.YES)
    table, _ = claims_table(ROWS, from_config({"reference": reference}), ERROR)
    assert table.rows[0][2].text == "2.0 ± 0.5 mm"
    assert table.rows[1][0].text == "ticket: test absolute error at early stop"


def test_figures_have_the_metric_on_their_axes():
    points = {
        (TRUNK, 0): [CurvePoint(0, 0, 5 * i, 1.0, 90.0 - i, 1.0) for i in range(20)],
    }
    runs = example_runs(ROWS, metric=ERROR, curves=points, densities={0: 1.0})
    labels = [draw(runs).axes[0].get_ylabel() for draw in (accuracy.draw, curves.draw)]
    assert labels == ["test absolute error, mm", "validation absolute error, mm"]
    low, high = accuracy.draw(runs).axes[0].get_ylim()
    assert low < 38
    assert high > 42
    figure = paired_difference.draw(runs)
    assert figure.axes[0].get_ylabel() == "difference, mm of absolute error"
    assert "below 0, the ticket is ahead" in figure.caption


def test_tables_are_read_whatever_their_metric_is_called():
    text = RESULTS.to_csv(ROWS, ERROR.column)
    header = text.splitlines()[0].split(",")
    assert "early_stop_test_absolute_error" in header
    assert not any("accuracy" in name for name in header)
    assert RESULTS.from_csv(text) == ROWS
    assert RESULTS.metric(text) == "absolute_error"
    with pytest.raises(ValueError, match="accepted: 0 to 1"):
        RESULTS.from_csv(RESULTS.to_csv(ROWS))
    curve = [CurvePoint(0, 0, step, 1.0, 40.0, math.inf) for step in (0, 5)]
    text = CURVES.to_csv(curve, ERROR.column)
    assert "val_absolute_error" in text
    assert CURVES.from_csv(text) == curve
    with pytest.raises(ValueError, match="checksum"):
        CURVES.from_csv(text.replace("40.0", "41.0"))
    assert named(ROWS[0], ERROR.column)["final_test_absolute_error"] == ROWS[0].final_test_accuracy


def test_a_metric_is_recorded_without_its_functions():
    metric = ERROR._replace(measure=abs)
    assert recorded_metric({"metric": metric.record()}) == ERROR
    assert recorded_metric({}) == ACCURACY
    with pytest.raises(ValueError, match="accepted: lower-case"):
        recorded_metric({"metric": {**ERROR.record(), "name": "../x"}})
    assert wrong_metric(ERROR._replace(decimals=99)) != ""
    assert wrong_metric(ERROR._replace(margin=0.0)) != ""
