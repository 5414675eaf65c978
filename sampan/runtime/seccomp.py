"""Seccomp filters as the kernel takes them: an array of struct sock_filter (linux/filter.h). Pure.

The default profile's programs for the usual capabilities lie ready in `seccomp_ready.py`, because making one takes 2 ms
and every container needs one; a test makes them anew and compares. All others are made by `seccomp_profile.py`.
"""

from __future__ import annotations

from sampan.runtime.seccomp_ready import CAPABILITIES, PROGRAMS

DEFAULT_FLAGS = 4  # seccomp_json.DEFAULT_FLAGS, which the run path does not load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def compile_default(caps: frozenset[str], arch: str) -> bytes:
    """Return the default profile's program for these capabilities and an image of this architecture.

    NotSupported if the architecture's system calls are not known.
    """
    relevant = " ".join([name for name in CAPABILITIES if name in caps])
    ready = PROGRAMS.get((_SAME.get(arch, arch), relevant))
    if ready is not None:
        return bytes.fromhex(ready)
    from sampan.runtime import seccomp_profile

    return seccomp_profile.compile_default(caps, arch)


def compile_profile(
    profile: dict[str, Any], caps: frozenset[str], arch: str, kernel: tuple[int, int] = (5, 12)
) -> bytes:
    """Return the program of a user's profile, in Docker's format or that of the OCI runtime configuration.

    InvalidArgument if the profile is wrong or too long; NotSupported if it needs a listener.
    """
    from sampan.runtime import seccomp_profile

    return seccomp_profile.compile_profile(profile, caps, arch, kernel)


def profile_flags(profile: dict[str, Any]) -> int:
    """Return the flags for seccomp(2) that a user's profile asks for.

    InvalidArgument, by its name, if one is not known.
    """
    from sampan.runtime import seccomp_json

    return seccomp_json.flags(profile)


_SAME = {"amd64": "x86_64", "arm64": "aarch64"}
