"""What the README shows is there; its commands and its Python are tried with the other pages'."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("place", re.findall(r"\]\(((?!http)[^)#]+)\)", README))
def test_every_link_and_picture_is_there(place):
    assert (ROOT / place).exists()


def test_it_is_short():
    assert len(README.splitlines()) <= 140
