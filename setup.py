"""Build: pyproject.toml declares everything but the helper, which the host's C compiler makes (helper/make.py).

The wheel holds one static program and no extension module: any Python 3, one platform.
"""

from __future__ import annotations

import os
import sys

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools < 70.1
    from wheel.bdist_wheel import bdist_wheel

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "helper"))

import make as helper  # noqa: E402


class BuildPy(build_py):
    """Copy the package, then put the helper into it; an editable installation has it in the source tree."""

    def run(self) -> None:
        super().run()
        root = HERE if self.editable_mode else self.build_lib
        helper.build(os.path.join(root, "sampan", "_helper", "sampan-helper"))


class PlatformWheel(bdist_wheel):
    """Tag the wheel py3-none-<platform>."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


class PlatformDistribution(Distribution):
    """Tell setuptools that the result depends on the platform."""

    def has_ext_modules(self) -> bool:
        return True


setup(distclass=PlatformDistribution, cmdclass={"build_py": BuildPy, "bdist_wheel": PlatformWheel})
