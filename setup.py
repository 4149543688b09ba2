"""Cleans build/ before every build: setuptools would pack a module that was removed since."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class CleanBuildPy(build_py):
    """build_py that starts from an empty folder. An editable install has none of its own."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(Path(self.build_lib) / "rpcd_wireguard_uplink", ignore_errors=True)
        super().run()


setup(cmdclass={"build_py": CleanBuildPy})
