"""The page in a real browser, where Chromium is installed."""

import re
import shutil
import subprocess

import pytest

from lth_jax.report.page import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-logging=stderr", "--window-size=1100,900", "--virtual-time-budget=3000",
)  # fmt: skip

# Points at the first value of a figure, and says what the page then shows.
POINT = """
<script>
for (const name of ["accuracy", "first_layer_mask"]) {
  const [x, y] = JSON.parse(document.getElementById("data").textContent).figures[name][0];
  const svg = document.querySelector(`#figure-${name} svg`);
  const at = new DOMPoint(x, y).matrixTransform(svg.getScreenCTM());
  const where = { clientX: at.x, clientY: at.y, bubbles: true };
  svg.dispatchEvent(new PointerEvent("pointermove", where));
  const said = document.createElement("p");
  said.textContent = `said of ${name}: ` + document.getElementById("tip").textContent;
  document.body.append(said);
  svg.dispatchEvent(new PointerEvent("pointerleave"));
}
</script>
"""


def opened(page, folder):
    """(the document after its scripts ran, what the console says)."""
    done = subprocess.run(
        [CHROMIUM, *FLAGS, f"--user-data-dir={folder}", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_it_opens_without_errors_and_values_show_under_the_pointer(finished, read, tmp_path):
    write_report([read(finished)], tmp_path / "out")
    page = tmp_path / "out" / "report.html"
    content = page.read_text(encoding="utf-8")
    page.write_text(content.replace("</body>", POINT + "</body>"), encoding="utf-8")
    document, console = opened(page, tmp_path / "profile")
    assert console == []
    assert document.count("<table") == 5
    assert document.count("<figure") == document.count("<svg") == 9
    assert document.count('class="here"') == 9, "the script has reached every figure"
    said = dict(re.findall(r"said of ([\w-]+): (.*?)</p>", document))
    assert re.match(r"\w+, level \d, .* of the weights: \d+\.\d\d%", said["accuracy"])
    assert "pixel (row 0, column 0) keeps" in said["first_layer_mask"]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_console_of_a_page_with_an_error_is_seen(tmp_path):
    """What the other test looks at does tell of errors."""
    page = tmp_path / "page.html"
    page.write_text("<script>JSON.parse('NaN')</script>")
    assert len(opened(page, tmp_path / "profile")[1]) == 1
