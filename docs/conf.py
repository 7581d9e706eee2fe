"""The site: `python -m sphinx -W -b html docs docs/_build/html`.

What the code already says of itself is taken from it: the fields of the config, the rows of the
registries, the columns of the tables, and the public names with their docstrings.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]
# The notebook's kernel, a process of its own, finds the package where the site's sources lie.
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split()])

import generate  # noqa: E402

from lth_jax import __version__  # noqa: E402

project = "lth_jax"
author = "the lth_jax developers"
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "requirements.txt", "*.py"]
html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = "lth_jax"
html_theme_options = {"show_navbar_depth": 1, "home_page_in_toc": True}

myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "cache"  # run where its code is another than last time
nb_execution_in_temp = True  # a run directory is no part of the site's sources
nb_execution_raise_on_error = True
nb_execution_timeout = 600

default_role = "code"  # what a docstring has between backticks
autodoc_typehints = "none"  # shapes and types stand in the docstrings
autodoc_member_order = "bysource"
napoleon_use_ivar = True


def with_bars(*event):
    """Lets `|` in a docstring, outside code, be the magnitude that it is and no markup."""
    lines = event[-1]
    for number, line in enumerate(lines):
        parts = line.split("`")
        parts[::2] = [part.replace("|", "\\|") for part in parts[::2]]
        lines[number] = "`".join(parts)


def setup(app):
    """Writes the generated pages before the others are read."""
    app.connect("builder-inited", lambda app: generate.write(Path(app.srcdir) / "_generated"))
    app.connect("autodoc-process-docstring", with_bars)
