"""The page: what is on it, escaped and without a network, and what a damaged run leaves out."""

import json
import math
import re
import shutil
from html.parser import HTMLParser

import pytest

from lth_jax.config import from_config
from lth_jax.errors import StoreError
from lth_jax.report.contents import Contents
from lth_jax.report.figures import FIGURES, curves, render_figures
from lth_jax.report.page import labelled, render, spec_tables, write_report

from ..tiny import change_row, data_file, finished_run, flip_byte, tiny_spec, train

# What is drawn of every run; these are only where they are asked for, or where masks move.
ASKED_FOR = ("paths", "methods", "mask_moves", "curvature", "mask_distances")
ALL = [name for name in FIGURES if name not in ASKED_FOR]


class Page(HTMLParser):
    """The elements of a page, its ids and its visible text; fails on unbalanced markup."""

    VOID = ("meta", "link", "br", "img", "input", "hr")

    def __init__(self, text):
        super().__init__()
        self.stack, self.elements, self.ids, self.text = [], [], [], []
        self.feed(text)
        assert not self.stack

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.stack):
            self.text.append(data)

    def words(self):
        return " ".join(" ".join(self.text).split())

    def figures(self):
        ids = [attrs.get("id") for tag, attrs in self.elements if tag == "figure"]
        return [name.removeprefix("figure-") for name in ids]


def data_of(text):
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])


def quick_page(store):
    """The page with one figure, which is quickly drawn."""
    runs = {contents.name: contents for contents in [Contents(store)]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lth_jax.report.figures.FIGURES", {"accuracy": FIGURES["accuracy"]})
        return render(runs, render_figures(runs, [], files=False), store.path)


@pytest.fixture
def report(tmp_path):
    """Writes the report of runs; gives (the text of the page, what was left out)."""

    def report(*stores):
        notes = write_report(stores, tmp_path / "out")
        return (tmp_path / "out" / "report.html").read_text("utf-8"), notes

    return report


@pytest.fixture(scope="module")
def written(finished, tmp_path_factory):
    from lth_jax.store import RunDirectory

    folder = tmp_path_factory.mktemp("out")
    assert write_report([RunDirectory.read(finished)], folder) == []
    return folder


@pytest.fixture(scope="module")
def text(written):
    return (written / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_figure_is_on_the_page_and_in_files(written, text):
    page = Page(text)
    assert page.figures() == ALL
    files = {f"{name}.{suffix}" for name in ALL for suffix in ("png", "svg")}
    assert {path.name for path in (written / "figures").iterdir()} == files
    assert all(path.stat().st_size > 1000 for path in (written / "figures").iterdir())
    assert sum(tag == "svg" for tag, _ in page.elements) == len(ALL)
    assert "mathdefault" not in text, "a tick is labelled by a formula"


def test_it_has_summary_table_spec_versions_and_command(text):
    page = Page(text)
    words = page.words()
    assert "The ticket" in words or "matches" in words
    assert sum(tag == "table" for tag, _ in page.elements) == 5
    for part in ("Test accuracy at early stop, %", "data.validation_size", "orbax-checkpoint"):
        assert part in words
    assert "python run.py" in words


def test_no_id_is_there_twice_and_every_link_within_leads_somewhere(text):
    page = Page(text)
    repeated = {name for name in page.ids if page.ids.count(name) > 1}
    # Matplotlib draws equal pictures under one id.
    assert not {name for name in repeated if "-image" not in name}
    inner = [a["href"][1:] for tag, a in page.elements if tag == "a" and a["href"][0] == "#"]
    assert inner
    assert set(inner) <= set(page.ids)


def test_nothing_is_fetched(text):
    assert "default-src 'none'" in text
    for tag, attrs in Page(text).elements:
        for name in ("src", "href", "xlink:href"):
            value = attrs.get(name) or "#"
            assert value.startswith(("#", "data:")) or tag == "a", (tag, value)
            assert "//" not in value or value.startswith("data:"), value


def test_its_data_are_json_with_every_row_and_a_place_for_every_value(text):
    data = data_of(text)
    (run,) = data["runs"]
    assert len(run["results"]) == 14
    assert run["spec"]["levels"] == 2
    accuracy = data["figures"]["accuracy"]
    assert len([mark for mark in accuracy if mark[-1].startswith("ticket, level 2")]) >= 2
    x, y, *_, said = accuracy[0]
    assert 0 < x < 600 and 0 < y < 400  # noqa: PT018
    assert "% of the weights" in said or "100%" in said
    pixels = data["figures"]["first_layer_mask"]
    assert len(pixels) == 2 * 8 * 8, "two pruned levels of 8 × 8 pixels"
    (x, _, wide, _, said), (right, *_) = pixels[:2]
    assert "pixel (row 0, column 0) keeps" in said
    assert right - x == pytest.approx(2 * wide, abs=0.2), "cells touch"


def test_what_is_not_a_number_is_null_in_the_data(copy, read):
    change_row(copy, -1, final_train_loss=math.nan)
    data = data_of(quick_page(read(copy)))
    assert None in data["runs"][0]["results"][-1].values()


def test_names_are_escaped(copy, read):
    record = copy / "spec.json"
    content = json.loads(record.read_text())
    content["name"] = "<script>alert(1)</script>&</title>"
    content["command"] = ["run.py", "--workdir=</pre><b>'"]
    record.write_text(json.dumps(content))
    text = quick_page(read(copy))
    page = Page(text)
    assert sum(tag == "script" for tag, _ in page.elements) == 2
    assert not any(tag == "b" for tag, _ in page.elements)
    assert "<script>alert(1)</script>" in page.words()
    assert data_of(text)["runs"][0]["name"] == content["name"]


@pytest.mark.slow
def test_a_damaged_checkpoint_leaves_out_its_figures_with_a_line(copy, read, report):
    flip_byte(data_file(copy / "checkpoints/replicate_0/level_02"))
    shutil.rmtree(copy / "checkpoints/replicate_1/level_02")
    text, notes = report(read(copy))
    notes = "\n".join(notes)
    assert "replicate 1 level 2" in notes
    assert "replicate_0/level_02" in notes
    assert "left out" in notes
    page = Page(text)
    assert "replicate_0/level_02" in page.words()
    assert page.figures() == ALL, "what the other checkpoints give is drawn"


@pytest.mark.slow
def test_paths_are_drawn_where_they_were_measured(tmp_path, read, report):
    asked = {"branch.sibling.draws": 2, "paths.pairs": ("siblings", "levels"), "paths.points": 5}
    branches = {"branches": ("sibling",), "branch.sibling.at": ("0", "7")}
    train(tmp_path / "run", tiny_spec(levels=1, **asked, **branches))
    text, notes = report(read(tmp_path / "run"))
    assert notes == []
    assert "paths" in Page(text).figures()
    words = Page(text).words()
    assert "copies of the dense network" in words
    assert "The dense network is" in words or "is undecided" in words


def test_without_checkpoints_the_results_are_drawn(copy, read, report):
    shutil.rmtree(copy / "checkpoints")
    text, notes = report(read(copy))
    assert Page(text).figures() == ALL[:4]
    assert len(notes) == 1


def test_damaged_curves_are_never_drawn(copy, read):
    (copy / "metrics/reinit/level_02.csv").write_text("replicate\nx\n")
    with pytest.raises(StoreError, match=r"reinit/level_02.csv is damaged"):
        curves.draw({"run": Contents(read(copy))})


@pytest.mark.slow
def test_a_figure_that_fails_takes_no_other_with_it(finished, read, report, monkeypatch):
    def fail(_):
        raise RuntimeError("no colours left")

    monkeypatch.setitem(FIGURES, "curves", FIGURES["curves"]._replace(draw=fail))
    text, notes = report(read(finished))
    assert notes == ["figure curves is left out: RuntimeError: no colours left"]
    assert Page(text).figures() == [name for name in ALL if name != "curves"]


@pytest.mark.slow
def test_a_run_that_has_only_begun_has_a_page(tmp_path, read, report):
    finished_run(tiny_spec(levels=0, replicates=1, branches=()), tmp_path / "run")
    text, notes = report(read(tmp_path / "run"))
    assert notes == []
    assert Page(text).figures() == ["accuracy", "early_stop", "curves", "layer_density"]
    (tmp_path / "run" / "results.csv").unlink()
    page = Page(report(read(tmp_path / "run"))[0])
    assert "No results yet." in page.words()
    assert page.figures() == []


def test_rows_that_the_spec_does_not_ask_for_are_named_not_shown(copy, read):
    record = copy / "spec.json"
    record.write_text(record.read_text().replace('"replicates": 2', '"replicates": 1'))
    text = quick_page(read(copy))
    assert "7 rows of results.csv are not of this spec" in Page(text).words()
    assert len(data_of(text)["runs"][0]["results"]) == 7


def test_several_runs_are_overlaid_and_told_apart(finished, copy, read, report):
    text, notes = report(read(finished), read(copy))
    assert notes == []
    page = Page(text)
    assert page.figures() == ALL[:4]
    assert "tiny (run)" in page.words()
    assert "tiny (copy)" in page.words()
    said = [mark[-1] for mark in data_of(text)["figures"]["accuracy"]]
    assert any(text.startswith("tiny (copy): reinit, level 1") for text in said)
    assert [run["label"] for run in data_of(text)["runs"]] == ["tiny (run)", "tiny (copy)"]


def test_runs_of_one_name_in_folders_of_one_name_have_their_paths(finished, read, tmp_path):
    other = read(shutil.copytree(finished, tmp_path / "run"))
    labels = labelled([Contents(read(finished)), Contents(other)])
    assert list(labels) == [f"tiny ({finished})", f"tiny ({tmp_path / 'run'})"]


def test_published_points_are_drawn_and_named(copy, read):
    record = copy / "spec.json"
    content = json.loads(record.read_text())
    points = {"title": "Somebody 1999", "ticket.early_stop_test_accuracy": [[0.7, 0.3]]}
    content["spec"]["reference"] = points
    record.write_text(json.dumps(content))
    text = quick_page(read(copy))
    assert "Somebody 1999 in grey" in text
    said = [mark[-1] for mark in data_of(text)["figures"]["accuracy"]]
    assert "Somebody 1999: ticket, 70.0% of the weights: 30%" in said


def test_fields_of_a_spec_are_held_against_their_defaults():
    spec = from_config({"levels": 3, "branch": {"reinit": {"draws": 2}}})
    changed, unchanged = spec_tables(spec)
    fields = {name.text: (value.text, default.text) for name, value, default in changed.rows}
    assert fields == {"levels": ("3", "12"), "branch.reinit.draws": ("2", "1")}
    assert all(value == default for _, value, default in unchanged.rows)
