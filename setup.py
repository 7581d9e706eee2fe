"""Puts `configs/` into the wheel, as `lth_jax.configs`; `pyproject.toml` says everything else."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Takes the files of `configs/` for modules of the package `lth_jax.configs`."""

    def find_package_modules(self, package, package_dir):
        """Returns (package, module, file) of each module in `package`, `paper/figure4` as well."""
        modules = super().find_package_modules(package, package_dir)
        if package == "lth_jax.configs":
            for file in sorted(Path("configs").rglob("*.py")):
                module = file.relative_to("configs").with_suffix("").as_posix()
                modules.append((package, module, str(file)))
        return modules


setup(cmdclass={"build_py": BuildWithConfigs})
