"""Put the recipes into the wheel; the metadata is in pyproject.toml."""

import pathlib
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithRecipes(build_py):
    """Copies ``hparams/`` and ``recipes/`` into the built package.

    They stay beside each other, so that a relative ``base:`` still holds. In a
    clone that is installed as editable they are found where they are.
    """

    def run(self):
        """Build the package."""
        super().run()
        if self.editable_mode:
            return
        package = pathlib.Path(self.build_lib) / "speechbrain_ssl"
        for name in ("hparams", "recipes"):
            # What was left there by an earlier build may be gone by now.
            shutil.rmtree(package / name, ignore_errors=True)
            shutil.copytree(
                name,
                package / name,
                # Runs of a clone are in results/ and save/.
                ignore=shutil.ignore_patterns(
                    "__pycache__", "results", "save", "*.md"
                ),
            )


setup(cmdclass={"build_py": BuildWithRecipes})
