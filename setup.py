"""Build: everything is declared in pyproject.toml except the helper, which the host's C compiler makes here.

`python setup.py build_helper` makes sampan/_helper/sampan-helper in place for development (also `make helper`). The
wheel holds one static program and no extension module: any Python 3, one platform.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
import tempfile

from setuptools import Command, setup
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution
from setuptools.errors import CompileError, PlatformError

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools < 70.1
    from wheel.bdist_wheel import bdist_wheel

HERE = os.path.dirname(os.path.abspath(__file__))
FLAGS = ["-std=c11", "-Os", "-g0", "-Wall", "-Wextra", "-Werror", "-D_FORTIFY_SOURCE=2"]
FLAGS += ["-fPIE", "-ffunction-sections", "-fdata-sections", "-fstack-protector-strong"]
# The helper is copied into memory at each start: symbols and unused functions are left out.
LINK = ["-Wl,-z,relro,-z,now,-z,noexecstack", "-Wl,--gc-sections", "-s"]


def compiler() -> str:
    """Return the C compiler: $CC, else cc, gcc or clang."""
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        if name and shutil.which(name.split()[0]):
            return name
    raise PlatformError("sampan has a small helper in C: no C compiler (cc, gcc, clang or $CC) was found")


def links_static(cc: str) -> bool:
    """Say whether a static PIE can be linked: it needs the static C library."""
    with tempfile.TemporaryDirectory() as scratch:
        source = os.path.join(scratch, "probe.c")
        with open(source, "w", encoding="ascii") as file:
            file.write("#include <unistd.h>\nint main(void) { return getpid() == 0; }\n")
        words = [*cc.split(), "-fPIE", "-static-pie", source, "-o", os.path.join(scratch, "probe")]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0


def compile_helper(target: str) -> None:
    """Compile helper/*.c into one program at `target`, replacing it in one step."""
    sources = sorted(glob.glob(os.path.join(HERE, "helper", "*.c")))
    if not sources:
        raise CompileError("the C sources of the helper (helper/*.c) are missing from this tree")
    cc = compiler()
    link = ["-static-pie"] if links_static(cc) else ["-pie"]
    if link == ["-pie"]:
        print("sampan: no static C library here: the helper is linked dynamically", file=sys.stderr)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    result = subprocess.run([*cc.split(), *FLAGS, *link, *LINK, *sources, "-o", target + ".new"], check=False)
    if result.returncode != 0:
        raise CompileError(f"{cc} could not compile the helper (its messages are above)")
    os.chmod(target + ".new", 0o755)
    os.replace(target + ".new", target)


class BuildPy(build_py):
    """Copy the package, then put the helper into it."""

    def run(self) -> None:
        super().run()
        package = os.path.join(HERE, "sampan") if self.editable_mode else os.path.join(self.build_lib, "sampan")
        compile_helper(os.path.join(package, "_helper", "sampan-helper"))


class BuildHelper(Command):
    """Make the helper in the source tree."""

    description = "compile the helper in place"
    user_options: list[tuple[str, str, str]] = []

    def initialize_options(self) -> None:
        """Take no options."""

    def finalize_options(self) -> None:
        """Take no options."""

    def run(self) -> None:
        compile_helper(os.path.join(HERE, "sampan", "_helper", "sampan-helper"))


class PlatformWheel(bdist_wheel):
    """Tag the wheel py3-none-<platform>."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


class PlatformDistribution(Distribution):
    """Tell setuptools that the result depends on the platform."""

    def has_ext_modules(self) -> bool:
        return True


setup(
    distclass=PlatformDistribution,
    cmdclass={"build_py": BuildPy, "build_helper": BuildHelper, "bdist_wheel": PlatformWheel},
)
