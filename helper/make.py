"""Makes the helper with the host's C compiler: `python helper/make.py [TARGET]`; needs Python and a compiler only."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TARGET = os.path.join(os.path.dirname(HERE), "sampan", "_helper", "sampan-helper")

FLAGS = ["-std=c11", "-Os", "-g0", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE=", "-D_FORTIFY_SOURCE=2"]
FLAGS += ["-fPIE", "-ffunction-sections", "-fdata-sections", "-fstack-protector-strong"]
# The helper is copied into memory at each start: symbols and unused functions are left out.
LINK = ["-Wl,-z,relro,-z,now,-z,noexecstack", "-Wl,--gc-sections", "-s"]


def compiler() -> list[str]:
    """Return the C compiler's words: $CC, else cc, gcc or clang."""
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        if name and shutil.which(name.split()[0]):
            return name.split()
    raise SystemExit("sampan has a small helper in C: no C compiler (cc, gcc, clang or $CC) was found on this host")


def links_static(cc: list[str]) -> bool:
    """Say whether a static PIE can be linked: it needs the static C library."""
    with tempfile.TemporaryDirectory() as scratch:
        source = os.path.join(scratch, "probe.c")
        with open(source, "w", encoding="ascii") as file:
            file.write("#include <unistd.h>\nint main(void) { return getpid() == 0; }\n")
        words = [*cc, "-fPIE", "-static-pie", source, "-o", os.path.join(scratch, "probe")]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0


def build(target: str) -> None:
    """Compile helper/*.c into one program at `target`, replacing it in one step."""
    sources = sorted(glob.glob(os.path.join(HERE, "*.c")))
    if not sources:
        raise SystemExit(f"the C sources of the helper are missing from {HERE}")
    cc = compiler()
    kind = "-static-pie" if links_static(cc) else "-pie"
    if kind == "-pie":
        print("sampan: no static C library here: the helper is linked dynamically", file=sys.stderr)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    new = f"{target}.{os.getpid()}"
    result = subprocess.run([*cc, *FLAGS, kind, *LINK, *sources, "-o", new], check=False)
    if result.returncode != 0:
        raise SystemExit(f"{' '.join(cc)} could not compile sampan's helper (its messages are above)")
    os.chmod(new, 0o755)
    os.replace(new, target)


if __name__ == "__main__":
    build(sys.argv[1] if len(sys.argv) > 1 else TARGET)
