"""Published results beside ours, as people see them."""

import io
import json
import re

import pytest
from rich.console import Console

from lth_jax.config import from_config
from lth_jax.report.claims import METRICS, claims_markdown, claims_table, print_claims
from lth_jax.report.page import write_report

from .example_rows import example_rows

REFERENCE = {
    "title": "Them 1999",
    "source": "Figure 1 | read off",
    "steps": 50_000,
    "ticket": {
        "early_stop_test_accuracy": ((1.0, 0.979, 0.002), (0.41, 0.2)),
        "early_stop_step": ((0.21, 4600, 300), (0.001, 100)),
    },
    "claims": (
        {"says": "it gains", "kind": "gain", "at": (0.8, 0.5), "value": 0.0, "relation": "over",
         "where": "§2"},
        {"says": "the control falls", "kind": "falls", "branch": "reinit", "at": 0.8,
         "value": 0.64, "uncertainty": 0.2},
    ),
}  # fmt: skip
SPEC = from_config({"reference": REFERENCE, "train": {"steps": "5000"}})


def test_each_published_number_has_its_line():
    table, sentence = claims_table(example_rows(), SPEC)
    lines = [[cell.text for cell in row] for row in table.rows]
    assert table.title == "Published results: Them 1999"
    assert [line[0] for line in lines] == [
        "it gains (§2)", "the control falls", "ticket: test accuracy at early stop",
        "ticket: test accuracy at early stop", "ticket: early-stop step", "ticket: early-stop step",
    ]  # fmt: skip
    assert lines[0][1].startswith("80.0%–50.0%, worst at ")
    assert lines[0][2] == "> 0.00 points"
    assert lines[2][1:3] == ["100%", "97.90 ± 0.20%"]
    assert lines[3][4].startswith("+7")
    assert lines[4][2] == "4,600 ± 300"
    assert [line[-1] for line in lines] == ["open", "yes", "yes", "no", "yes", "not run"]
    assert re.fullmatch(r"97\.\d\d ± 0\.\d\d%", lines[2][3])
    assert re.fullmatch(r"[\d.]+ \([\d.]+ to [\d.]+\)%|nowhere", lines[1][3])
    assert sentence == (
        "3 of 5 points reproduced, 1 left open; 1 not run. Theirs trained for 50,000 steps, these "
        "for 5000."
    )


def test_a_terminal_gets_what_was_compared_within_its_width():
    console = Console(file=io.StringIO(), width=80)
    print_claims(console, example_rows(), SPEC)
    printed = console.file.getvalue()
    assert max(map(len, printed.splitlines())) <= 80
    assert "97.90 ± 0.20%" in printed
    assert "3 of 5 points reproduced, 1 left open; 1 not run." in printed
    assert "0.1%" not in printed, "what was not run is counted, and not listed"


def test_a_difference_that_rounds_to_zero_has_no_minus():
    falls = METRICS["falls"]
    assert [falls.number(x, "+") for x in (-0.0004, 0.0, -0.0006)] == ["+0.0", "+0.0", "-0.1"]


def test_without_a_reference_there_is_nothing_to_say():
    assert claims_table(example_rows(), from_config({})) == (None, "")
    assert claims_markdown(example_rows(), from_config({"reference": {"title": "x"}})) == ""


def test_the_markdown_is_a_table_whatever_a_source_is_called():
    header, rule, *lines = claims_markdown(example_rows(), SPEC).split("\n\n")[1].splitlines()
    assert {line.count(" | ") for line in (header, *lines)} == {5}
    assert rule.count("---") == 6
    assert "Figure 1 \\| read off" in claims_markdown(example_rows(), SPEC)


@pytest.mark.slow
def test_a_report_has_the_claims_on_its_page_and_beside_it(copy, read, monkeypatch):
    monkeypatch.setattr("lth_jax.report.figures.FIGURES", {})
    record = copy / "spec.json"
    content = json.loads(record.read_text())
    points = {"title": "Them 1999", "ticket.early_stop_test_accuracy": [[1.0, 0.3]]}
    content["spec"]["reference"] = points
    record.write_text(json.dumps(content))
    write_report([read(copy)])
    page = (copy / "report.html").read_text("utf-8")
    assert "of 1 point reproduced." in page
    assert "Published results: Them 1999" in page
    assert (copy / "claims.md").read_text("utf-8").startswith("**Published results: Them 1999**")
