"""No string of a user's or a stranger's is markup: for a terminal, Rich, HTML or Matplotlib.

A run directory with hostile names goes through every command; what is there is shown as it is, but
for what a terminal would obey.
"""

import json
import re
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from lth_jax.cli import main as command
from lth_jax.export.inference import Inference

OBEYED = "\x1b]0;owned\x07\x9b2J\u202e\n"
MARKUP = "[bold]:smile: $x_$ &<b>'\"{{7*7}}"
HOSTILE = f"{OBEYED}{MARKUP}"
FOLDER = f"javascript:{OBEYED}{MARKUP}%2F#?"


@pytest.fixture
def hostile(finished, tmp_path, monkeypatch):
    """A run whose folder, name, versions and command line are a stranger's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "1000")
    path = shutil.copytree(finished, tmp_path / FOLDER)
    record = json.loads((path / "spec.json").read_text())
    record["name"] = HOSTILE
    record["versions"] = {HOSTILE: HOSTILE}
    record["command"] = [HOSTILE]
    (path / "spec.json").write_text(json.dumps(record))
    shutil.copytree(path, tmp_path / f"other {FOLDER}")
    return path


@pytest.fixture
def said(capsys):
    """What a command says on both streams, none of which a terminal obeys."""

    def said(*arguments, status=0):
        assert command(list(map(str, arguments))) == status
        captured = capsys.readouterr()
        text = captured.out + captured.err
        assert re.findall(r"[^\n\x20-\x7e\u00a0-\u2027\u202f-\u2065\u206a-\uffff]", text) == []
        return text

    return said


class Page(HTMLParser):
    """The tags of a page, and where its links go."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.links |= {value for name, value in attributes if name == "href"}


def test_list_and_inspect_show_names_as_they_are(hostile, said):
    table = said("list", ".")
    assert table.count(MARKUP) >= 4  # of two runs, folder and name
    assert "␛]0;owned" in table
    text = said("inspect", FOLDER)
    assert text.count(MARKUP) >= 3  # name and versions; the command line is quoted for a shell
    (one, _) = json.loads(said("list", "--json", "."))["runs"]
    assert one["name"] == json.loads(said("inspect", "--json", FOLDER))["name"] == HOSTILE
    record = json.loads((hostile / "spec.json").read_text())
    (hostile / "spec.json").write_text(json.dumps({**record, "identity": HOSTILE}))
    assert said("list", ".").count(MARKUP) > table.count(MARKUP)
    assert said("inspect", FOLDER).count(MARKUP) > text.count(MARKUP)


def test_exports_and_errors_are_lines(hostile, said, tmp_path):
    text = said("export", FOLDER, "--level=1", "--format=npz", f"--out={HOSTILE}")
    assert MARKUP in text
    assert len(text.splitlines()) == 3
    for arguments in (
        ("inspect", f"none {HOSTILE}"),
        ("inspect", FOLDER, f"--branch={HOSTILE}"),
        ("list", f"none {HOSTILE}"),
        ("report", f"none {HOSTILE}"),
        ("predict", FOLDER, "--level=1", f"none {HOSTILE}"),
        ("run", f"--config={HOSTILE}"),
        ("run", f"--config.model.name={HOSTILE}"),
        (HOSTILE,),
    ):
        text = said(*arguments, status=2)
        assert "error: " in text
        assert len(text.splitlines()) == 1


@pytest.mark.parametrize("runs", [1, 2])
def test_the_page_has_no_markup_but_ours(runs, hostile, finished, said, without_figures, tmp_path):
    said("report", finished, f"--out={tmp_path / 'plain'}")
    plain = Page((tmp_path / "plain" / "report.html").read_text())
    paths = [hostile, tmp_path / f"other {FOLDER}"][:runs]
    said("report", *paths, "--out=.")
    page = Page(text := (tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.tags <= plain.tags | {"strong"}
    assert "{{7*7}}" in text
    assert re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text) == []
    linked = [link for link in page.links if "results.csv" in link]
    assert len(linked) == runs
    assert not any(re.match(r"[a-z]*:|[^%]*[#?]", link) for link in linked)


@pytest.mark.slow
def test_figures_take_any_name(hostile, said, tmp_path):
    said("report", hostile, tmp_path / f"other {FOLDER}", "--out=.")
    document = (tmp_path / "figures" / "accuracy.svg").read_text(encoding="utf-8")
    texts = "".join(element.text or "" for element in ET.fromstring(document).iter())
    assert MARKUP in texts


def test_predictions_take_any_name(hostile, said, monkeypatch, tmp_path):
    names = tuple(f"{HOSTILE} {index}" for index in range(10))
    of = property(lambda self: names)
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(tmp_path / "image.png")
    image = (tmp_path / "image.png").rename(tmp_path / HOSTILE)
    monkeypatch.setattr(Inference, "names", of)
    text = said("predict", FOLDER, "--level=1", "--index=0", image)
    assert text.count(MARKUP) >= 20
    assert (hostile / "figures" / "prediction_level_01_replicate_0.png").exists()
