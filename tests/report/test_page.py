"""The page: what is on it, escaped and without a network, and what a damaged run leaves out."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from lth_jax.config import from_config
from lth_jax.report import drawings, write
from lth_jax.report.contents import read_contents
from lth_jax.report.drawings import result_figures
from lth_jax.report.page import draw, render, spec_fields
from lth_jax.report.write import write_comparison, write_report

from ..tiny import data_file, flip_byte, tiny_spec, train

ALL = [
    "accuracy", "early_stop", "paired_difference", "curves", "layer_density",
    "first_layer_mask", "initial_weights", "mask_overlap", "mask_overlap_levels",
]  # fmt: skip


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
        return [id.removeprefix("figure-") for id in ids]


def data_of(text):
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])


def quick_page(store):
    """The page with one figure, which is quickly drawn."""
    contents = read_contents(store)
    figures = draw(result_figures(contents)[:1])
    notes = [contents.remark, *contents.notes]
    return render({contents.name: contents}, figures, folder=store.path, notes=notes)


@pytest.fixture
def without_files(monkeypatch):
    """Figures go on the page only."""
    monkeypatch.setattr(write, "write_figures", lambda *_: [])


@pytest.fixture(scope="module")
def written(finished, tmp_path_factory):
    from lth_jax.store import RunDirectory

    return write_report(RunDirectory.read(finished), tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def text(written):
    return written.page.read_text(encoding="utf-8")


def test_every_figure_is_on_the_page_and_in_files(written, text):
    assert written.notes == []
    page = Page(text)
    assert page.figures() == ALL
    files = [f"{name}.{suffix}" for name in ALL for suffix in ("png", "svg")]
    assert [path.name for path in written.figures] == files
    assert all(path.stat().st_size > 1000 for path in written.figures)
    assert sum(tag == "svg" for tag, _ in page.elements) == len(ALL)


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
    repeated = {id for id in page.ids if page.ids.count(id) > 1}
    # Matplotlib draws equal pictures under one id.
    assert not {id for id in repeated if "-image" not in id}
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
    accuracy = data["figures"]["figure-accuracy"]
    assert len([p for p in accuracy["points"] if p[2].startswith("ticket, level 2")]) >= 2
    x, y, said = accuracy["points"][0]
    assert 0 < x < 600 and 0 < y < 400  # noqa: PT018
    assert "% of the weights" in said or "100%" in said
    (grid, *_) = data["figures"]["figure-first_layer_mask"]["grids"]
    assert len(grid["values"]) == len(grid["values"][0]) == 8
    assert "connections" in grid["text"]


def test_what_is_not_a_number_is_null_in_the_data(copy, read):
    rows = copy / "results.csv"
    lines = rows.read_text().splitlines()
    cells = lines[-1].split(",")
    cells[-5] = "nan"
    rows.write_text("\n".join([*lines[:-1], ",".join(cells)]) + "\n")
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


def test_a_damaged_checkpoint_leaves_out_its_figures_with_a_line(copy, read, without_files):
    flip_byte(data_file(copy / "checkpoints/replicate_0/level_02"))
    shutil.rmtree(copy / "checkpoints/replicate_1/level_02")
    written = write_report(read(copy))
    notes = "\n".join(written.notes)
    assert "replicate 1 level 2" in notes
    assert "replicate_0/level_02" in notes
    assert "left out" in notes
    page = Page(written.page.read_text())
    assert "replicate_0/level_02" in page.words()
    assert page.figures() == ALL, "what the other checkpoints give is drawn"


def test_without_checkpoints_the_results_are_drawn(copy, read, without_files):
    shutil.rmtree(copy / "checkpoints")
    written = write_report(read(copy))
    assert Page(written.page.read_text()).figures() == ALL[:4]
    assert len(written.notes) == 1


def test_damaged_curves_are_named(copy, read):
    (copy / "metrics/reinit/level_02.csv").write_text("replicate\nx\n")
    (note,) = read_contents(read(copy)).notes
    assert "reinit" in note
    assert "damaged" in note


def test_a_figure_that_fails_takes_no_other_with_it(
    finished, read, tmp_path, monkeypatch, without_files
):
    def fail(*_, **__):
        raise RuntimeError("no colours left")

    monkeypatch.setattr(drawings, "curves_figure", fail)
    written = write_report(read(finished), tmp_path)
    assert written.notes == ["figure curves is left out: RuntimeError: no colours left"]
    assert Page(written.page.read_text()).figures() == [name for name in ALL if name != "curves"]


def test_a_run_that_has_only_begun_has_a_page(tmp_path, read):
    train(tmp_path, tiny_spec(levels=0, replicates=1, branches=()))
    written = write_report(read(tmp_path), tmp_path)
    assert written.notes == []
    assert Page(written.page.read_text()).figures() == ["accuracy", "early_stop", "curves",
                                                        "layer_density"]  # fmt: skip
    (tmp_path / "results.csv").unlink()
    written = write_report(read(tmp_path))
    assert "No results yet." in Page(written.page.read_text()).words()
    assert written.figures == []


def test_rows_that_the_spec_does_not_ask_for_are_named_not_shown(copy, read):
    record = copy / "spec.json"
    record.write_text(record.read_text().replace('"replicates": 2', '"replicates": 1'))
    text = quick_page(read(copy))
    assert "7 rows of results.csv are not of this spec" in Page(text).words()
    assert len(data_of(text)["runs"][0]["results"]) == 7


def test_several_runs_are_overlaid_and_told_apart(finished, copy, read, tmp_path):
    written = write_comparison([read(finished), read(copy)], tmp_path / "both")
    assert written.notes == []
    page = Page(written.page.read_text())
    assert page.figures() == ALL[:4]
    assert "tiny (run)" in page.words()
    assert "tiny (copy)" in page.words()
    said = [p[2] for p in data_of(written.page.read_text())["figures"]["figure-accuracy"]["points"]]
    assert any(text.startswith("tiny (copy): reinit, level 1") for text in said)
    assert [run["label"] for run in data_of(written.page.read_text())["runs"]] == [
        "tiny (run)", "tiny (copy)"
    ]  # fmt: skip


def test_published_points_are_drawn_and_named(copy, read):
    record = copy / "spec.json"
    content = json.loads(record.read_text())
    points = {"title": "Somebody 1999", "ticket.early_stop_test_accuracy": [[0.7, 0.3]]}
    content["spec"]["reference"] = points
    record.write_text(json.dumps(content))
    text = quick_page(read(copy))
    assert "Somebody 1999 in grey" in text
    said = [p[2] for p in data_of(text)["figures"]["figure-accuracy"]["points"]]
    assert "Somebody 1999: ticket, 70.0% of the weights: 30%" in said


def test_fields_of_a_spec_are_held_against_their_defaults():
    spec = from_config({"levels": 3, "branch": {"reinit": {"draws": 2}}})
    changed = {field.name: field[1:] for field in spec_fields(spec) if field.value != field.default}
    assert changed == {"levels": ("3", "12"), "branch.reinit.draws": ("2", "1")}
