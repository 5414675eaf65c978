"""Runs tests/vm/guest.py in a virtual machine of Debian's own parts: systemd, cgroup v2 or v1, every capability.

`python3 tests/vm/run.py [--rebuild] [--base ROOTFS.tar] [--only NAMES] [--trees v2,v1,hybrid]`, as root (the packages
are unpacked with their owners) with qemu-system-x86, mmdebstrap and e2fsprogs. The system's disk is made once, in
build/vm, and never written again: the guest writes to a copy, which lasts over its reboot (the emulator is started
anew, as from cold). This tree, helper included, comes on a second disk. The machine is emulated (no KVM needed) and
has no network.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
CHECKOUT = os.path.dirname(os.path.dirname(HERE))
CACHE = os.path.join(CHECKOUT, "build", "vm")

PACKAGES = "linux-image-cloud-amd64 systemd-sysv dbus dbus-user-session libpam-systemd python3 uidmap iproute2 procps"
PACKAGES += " sudo e2fsprogs busybox-static"
SOURCES = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")
UNIT = """[Unit]
Description=Tests of sampan
After=systemd-user-sessions.service systemd-logind.service dbus.service local-fs.target
[Service]
Type=exec
ExecStart=/usr/bin/python3 -u /opt/sampan/tests/vm/guest.py
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
"""
# What is started at a boot is executed from there; writable, so that code is not compiled again for each command.
MOUNTS = "/dev/vdb /opt/sampan ext4 defaults 0 0\n"
# The recipe of the system's disk; a disk of another one is not used.
RECIPE = hashlib.sha256((PACKAGES + UNIT + MOUNTS).encode()).hexdigest()[:12]
SYSTEM = os.path.join(CACHE, f"system-{RECIPE}.ext4")
BOOT = "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=0 systemd.mask=serial-getty@ttyS0.service"
OLD = "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller"
TREES = {"v2": "", "v1": f"{OLD}=1", "hybrid": f"{OLD}=0"}
SLOW = 8 << 20  # bytes a second: a disk that two cannot read as fast as they could
LIMIT = int(os.environ.get("SAMPAN_VM_SECONDS", "1200"))


def disk(directory: str, image: str, size: str) -> None:
    """Make an ext4 image of a directory's content."""
    words = ["mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=1", "-d", directory, image, size]
    subprocess.run(words, check=True)


def make_system() -> None:
    """Install Debian into a directory; keep its kernel, its initrd and a disk of the rest."""
    os.makedirs(CACHE, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        root = os.path.join(scratch, "root")
        sources = [path for path in SOURCES if os.path.exists(path)][:1]
        include = ",".join(PACKAGES.split())
        words = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={include}", "bookworm", root, *sources]
        # Its /proc stays mounted if somebody looks into it just then.
        subprocess.run(["unshare", "--mount", *words], check=True)
        units = os.path.join(root, "etc/systemd/system")
        with open(os.path.join(units, "sampan-test.service"), "w", encoding="ascii") as file:
            file.write(UNIT)
        os.makedirs(os.path.join(root, "opt/sampan"))
        with open(os.path.join(root, "etc/fstab"), "a", encoding="ascii") as file:
            file.write(MOUNTS)
        os.makedirs(os.path.join(units, "multi-user.target.wants"), exist_ok=True)
        os.symlink("../sampan-test.service", os.path.join(units, "multi-user.target.wants/sampan-test.service"))
        for name in ("vmlinuz", "initrd.img"):
            found = glob.glob(os.path.join(root, "boot", f"{name}-*"))
            shutil.move(found[0], os.path.join(CACHE, name))
        disk(root, os.path.join(CACHE, "system.part"), "2G")
    for old in glob.glob(os.path.join(CACHE, "system*.ext4")):
        os.unlink(old)
    os.replace(os.path.join(CACHE, "system.part"), SYSTEM)


def copy_tree(target: str, base: str) -> None:
    """Copy what the guest needs of this tree, and compile the helper there from its sources."""
    for name in ("bin", "sampan", "helper", "tests/vm"):
        skip = shutil.ignore_patterns("__pycache__", "_helper")
        shutil.copytree(os.path.join(CHECKOUT, name), os.path.join(target, name), ignore=skip)
    subprocess.run([sys.executable, os.path.join(target, "helper", "make.py")], check=True, stdout=subprocess.DEVNULL)
    if base:
        shutil.copyfile(base, os.path.join(target, "base.tar"))
    subprocess.run(["chmod", "-R", "a+rX", target], check=True)


def boot(system: str, tree: str, words_of_kernel: str) -> tuple[list[str], int]:
    """Run the machine until it powers off or reboots; return the lines of its console and the emulator's exit code."""
    words = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048"]
    words += ["-nographic", "-no-reboot", "-nic", "none", "-append", f"{BOOT} {words_of_kernel}"]
    words += ["-kernel", os.path.join(CACHE, "vmlinuz"), "-initrd", os.path.join(CACHE, "initrd.img")]
    words += ["-drive", f"file={system},if=virtio,format=raw,cache=unsafe"]
    words += ["-drive", f"file={tree},if=virtio,format=raw,cache=unsafe"]
    words += ["-drive", f"file={system}.slow,if=virtio,format=raw,throttling.bps-read={SLOW}"]
    lines: list[str] = []
    begun = False
    with subprocess.Popen(["timeout", str(LIMIT), *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as machine:
        assert machine.stdout is not None
        for raw in machine.stdout:
            lines.append(raw.decode("utf-8", "replace").rstrip())
            begun = begun or "=== begin" in lines[-1] or "=== again" in lines[-1]
            if begun:
                print(lines[-1], flush=True)
    return lines, machine.returncode


def main() -> int:
    """Make what is missing, boot, and fail unless the guest said that all went well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rebuild", action="store_true", help="make the system's disk again")
    parser.add_argument("--base", default="", help="tar of the file system to test with (default: Debian's busybox)")
    parser.add_argument("--only", default="", metavar="NAMES", help="beginnings of the checks' names, with commas")
    parser.add_argument("--trees", default="v2,v1", help="how systemd uses control groups: v2, v1, hybrid, with commas")
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("run it as root: the disk's files need their owners")
    for program in ("qemu-system-x86_64", "mmdebstrap", "mke2fs"):
        if not shutil.which(program):
            parser.error(f"{program} is missing: apt-get install qemu-system-x86 mmdebstrap e2fsprogs")
    if options.rebuild or not os.path.exists(SYSTEM):
        make_system()
    good = True
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        copy_tree(os.path.join(scratch, "tree"), options.base)
        for trees in options.trees.split(","):
            print(f"# cgroup {trees}", flush=True)
            good = run(scratch, f"{TREES[trees]} sampan.only={options.only}" if options.only else TREES[trees]) and good
    return 0 if good else 1


def run(scratch: str, kernel: str) -> bool:
    """Boot a fresh machine, again if it reboots; say whether all went well."""
    disk(os.path.join(scratch, "tree"), os.path.join(scratch, "tree.ext4"), "64M")
    system, tree = os.path.join(scratch, "system.ext4"), os.path.join(scratch, "tree.ext4")
    subprocess.run(["cp", "--sparse=always", SYSTEM, system], check=True)
    with open(f"{system}.slow", "wb") as slow:
        slow.truncate(512 << 20)
    lines, code = boot(system, tree, kernel)
    if any(line.startswith("=== reboot") for line in lines):
        more, code = boot(system, tree, kernel)
        lines += more
    if any(line.startswith("=== end: 0 failed") for line in lines):
        return True
    if not any("=== begin" in line for line in lines):
        print("\n".join(lines[-40:]), file=sys.stderr)
    print(f"tests/vm: failed, or the machine ended early (emulator: {code})", file=sys.stderr)
    return False


if __name__ == "__main__":
    sys.exit(main())
