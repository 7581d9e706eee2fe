"""Every command that is shown is tried somewhere; `test_installed` calls most of them."""

import re
from pathlib import Path

import pytest

from lth_jax.cli import COMMANDS

from .shown import LEFT_OUT, MINUTES, ROOT, commands, mentions


def test_every_command_is_tried_or_left_out_for_a_reason():
    untried = [f"{one.place}: {one}" for one in commands() if not one.kind]
    assert untried == []
    texts = [" ".join(one.words) for one in commands()]
    stale = [p for p in LEFT_OUT if not any(re.match(p, text) for text in texts)]
    assert stale == []
    assert len([one for one in commands() if one.kind == "experiment"]) > 60


MINUTES_LONG = {str(one): one for one in (*commands(), *mentions()) if one.kind == "minutes"}


@pytest.mark.parametrize("shown", MINUTES_LONG.values(), ids=MINUTES_LONG)
def test_what_takes_minutes_has_the_flags_that_are_shown(shown):
    name = re.match(MINUTES, " ".join(shown.words))[1].removeprefix("-m ")
    file = ROOT / (name if name.endswith(".py") else name.replace(".", "/"))
    files = [file, file.with_suffix(".py"), *file.glob("*.py"), ROOT / "benchmarks/options.py"]
    code = "".join(path.read_text(encoding="utf-8") for path in files if path.is_file())
    assert code
    for word in shown.words:
        if word.startswith("--"):
            flag = word.split("=")[0]
            assert re.search(rf'"(--)?{flag[2:]}"|\b{flag[2:]}=', code), flag


def test_what_is_mentioned_is_a_command_with_such_flags():
    known = {**dict.fromkeys(("COMMAND", "--version"), "")}
    for name in COMMANDS:
        known[name] = Path(ROOT / f"lth_jax/cli/{name}.py").read_text(encoding="utf-8")
    known["run"] += '"--config"'
    for one in (one for one in mentions() if one.words[0] == "lth-jax"):
        command, *rest = one.words[1:] or ("run",)
        assert command.split("|")[0] in known, f"{one.place}: {one}"
        flags = {word.split("=")[0].strip("[]") for word in rest if word.startswith(("--", "[--"))}
        shared = {"--help", "--version", "--json"}
        for flag in flags - shared:
            found = flag.startswith("--config.") or f'"{flag}"' in known[command]
            assert found, f"{one.place}: {one}"
