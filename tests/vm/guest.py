"""Tests of sampan inside the virtual machine of run.py: as root, as an ordinary user with and without delegated groups.

Every check prints `ok NAME`, or `FAIL NAME` with the commands that ran in it and what they printed; the last line
counts the failures. Half-way the machine is rebooted: what was done before is told by a file. A word `sampan.only=a,b`
on the kernel's command line picks checks by the beginnings of their names.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import asroot
import asuser
import detached
import legacy
import reboot
import scenarios
from guestkit import ROOT, check, failures

DONE = "/var/tmp/before-the-reboot.json"


def before() -> None:
    """Run the checks of the first boot."""
    only = picked()
    for test in asroot.FIRST:
        if test is asroot.root_import or wanted(test.__name__, only):
            check(test.__name__, test)
    for name in scenarios.ALL:
        if wanted(f"root_{name}", only):
            check(f"root_{name}", getattr(scenarios, name), ROOT)
    for test in asroot.TESTS:
        if wanted(test.__name__, only):
            check(test.__name__, test)
    if wanted("root_disk", only):
        check("root_disk", scenarios.disk, ROOT)
    asuser.run(lambda name: wanted(name, only))
    if "add_users" not in failures:
        detached.run(lambda name: wanted(name, only))
    if wanted("reboot", only):
        check("reboot_prepared", reboot.prepare, keeps=True)


def wanted(name: str, only: list[str]) -> bool:
    """Say whether a check is to be run."""
    return not only or any(name.startswith(word) for word in only)


def picked() -> list[str]:
    """Give the checks that the kernel's command line asks for; all when there are none."""
    with open("/proc/cmdline", encoding="ascii") as file:
        words = [word.partition("=")[2] for word in file.read().split() if word.startswith("sampan.only=")]
    return [name for word in words for name in word.split(",") if name]


def old() -> bool:
    """Say whether systemd was told to use cgroup version 1."""
    with open("/proc/cmdline", encoding="ascii") as file:
        return "systemd.unified_cgroup_hierarchy=0" in file.read()


def power(verb: str) -> None:
    """Reboot the machine or switch it off, as systemd does it; this program is ended on the way."""
    subprocess.run(["systemctl", verb], check=True)


def boots() -> bool:
    """Run all checks of this boot; say whether there is to be another."""
    if os.path.exists(DONE):
        with open(DONE, encoding="ascii") as file:
            failures.extend(json.load(file))
        print("=== again", flush=True)
        reboot.run()
        return False
    print(f"=== begin, kernel {os.uname().release}", flush=True)
    if old():
        legacy.run(lambda name: wanted(name, picked()))
        return False
    before()
    with open(DONE, "w", encoding="ascii") as file:
        json.dump(failures, file)
        os.fsync(file.fileno())
    return wanted("reboot", picked())


def main() -> None:
    """Run all checks of this boot, then reboot or switch off, whatever happens."""
    verb = "poweroff"
    try:
        if boots():
            verb = "reboot"
            print("=== reboot", flush=True)
        else:
            print(f"=== end: {len(failures)} failed {' '.join(failures)}", flush=True)
    finally:
        power(verb)


if __name__ == "__main__":
    sys.exit(main())
