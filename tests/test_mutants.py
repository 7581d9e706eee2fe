"""The patches of `tests/mutants.py` fit the code; whether tests kill them, it says itself."""

import shutil

import pytest

from . import mutants


def test_every_mutant_applies_to_the_code_as_it_is(tmp_path):
    shutil.copytree(mutants.ROOT / "lth_jax", tmp_path / "lth_jax")
    for mutant in mutants.MUTANTS:
        text = mutants.apply(mutant, tmp_path)
        broken = tmp_path / "lth_jax" / mutant.file
        compile(broken.read_text(), mutant.file, "exec")
        broken.write_text(text)


def test_what_stands_elsewhere_is_refused_by_name(tmp_path):
    shutil.copytree(mutants.ROOT / "lth_jax", tmp_path / "lth_jax")
    wrong = mutants.MUTANTS[0]._replace(old="no such line")
    with pytest.raises(ValueError, match=r"stands 0 times in pruning/selection\.py"):
        mutants.apply(wrong, tmp_path)


def test_mutants_are_told_apart_and_guarded_by_the_core_suite():
    names = [mutant.breaks for mutant in mutants.MUTANTS]
    assert len(set(names)) == len(names) >= 40
    for mutant in mutants.MUTANTS:
        for test in mutant.tests:
            assert (mutants.ROOT / "tests" / test).is_file(), test
            assert test.split("/")[0] in ("pruning", "training", "lottery", "store", "analysis")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wanted", "found"),
    [("one() == 1", "test_one.py::test"), ("one() > 0", ""), ("one() == 3", None)],
)
def test_a_slow_test_kills_only_what_is_sound_without_the_mutant(tmp_path, wanted, found):
    (tmp_path / "lth_jax").mkdir()
    (tmp_path / "lth_jax" / "one.py").write_text("def one():\n    return 1\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\npythonpath = .\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_one.py").write_text(
        "import pytest\nfrom lth_jax.one import one\n\n\n"
        f"@pytest.mark.slow\ndef test():\n    assert {wanted}\n"
    )
    mutant = mutants.Mutant("one is two", "one.py", "return 1", "return 2", ("test_one.py",))
    if found is None:
        with pytest.raises(ValueError, match=r"test_one\.py::test fails without any mutant"):
            mutants.killer(mutant, tmp_path, tmp_path / "cache")
    else:
        assert mutants.killer(mutant, tmp_path, tmp_path / "cache") == found
