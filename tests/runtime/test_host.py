"""Facts about a host are read right, on this one and from the texts of others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sampan.runtime import host

ROOT = str(Path(host.__file__).parents[2])


@pytest.mark.parametrize(
    ("release", "want"),
    [("6.1.0-18-amd64", (6, 1)), ("5.12.0", (5, 12)), ("6.18.44-fc", (6, 18)), ("5.15-rc1", (5, 15)), ("x", (0, 0))],
)
def test_kernel_version(release: str, want: tuple[int, int]) -> None:
    assert host.kernel_version(release) == want


def test_kernel_version_of_this_host() -> None:
    assert host.kernel_version() >= (4, 0)


def test_sysctl(tmp_path: Path) -> None:
    (tmp_path / "sys/user").mkdir(parents=True)
    (tmp_path / "sys/user/max_user_namespaces").write_text("123\n")
    assert host.sysctl("user.max_user_namespaces", str(tmp_path)) == 123
    assert host.sysctl("user.no_such_setting", str(tmp_path)) is None


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ('ID=ubuntu\nID_LIKE=debian\nNAME="U b"\n', "apt-get install -y uidmap"),
        ("ID=debian\n", "apt-get install -y uidmap"),
        ("ID=alpine\n", "apk add shadow-uidmap"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "dnf install -y shadow-utils"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "zypper install -y shadow"),
        ("ID=nixos\n", ""),
        ("# nothing\n", ""),
    ],
)
def test_install_command_is_the_distributions(text: str, want: str) -> None:
    package = {"apt": "uidmap", "apk": "shadow-uidmap", "dnf": "shadow-utils", "zypper": "shadow"}
    assert host.install_command(package, host.os_release(text)) == want


MOUNTINFO = """22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 22 0:40 / /home rw shared:7 - nfs4 server:/home rw,vers=4.2
31 22 0:41 / /mnt/a\\040b ro - xfs /dev/sdb rw
32 30 0:42 / /home rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/var/lib", "ext4"), ("/home/ann/x", "tmpfs"), ("/homely", "ext4"), ("/mnt/a b/c", "xfs"), ("/home", "tmpfs")],
)
def test_file_system_of_a_path(path: str, kind: str) -> None:
    assert host.file_system(path, MOUNTINFO)[0] == kind


def test_file_system_tells_read_only_mounts() -> None:
    assert "ro" in host.file_system("/mnt/a b", MOUNTINFO)[1].split(",")


def test_existing_parent(tmp_path: Path) -> None:
    assert host.existing_parent(str(tmp_path / "a/b/c")) == str(tmp_path)


def test_attempt_reads_what_the_probe_says() -> None:
    attempt = host.Attempt("user 0\nmicroseconds 77\nmount 1\nnonsense\nx y z\n")
    assert attempt.errnos == {"user": 0, "mount": 1} and attempt.microseconds == 77


def test_trial_start_as_root(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root")
    before = Path("/proc/self/mountinfo").read_text()
    attempt = host.try_start(False, str(tmp_path))
    assert attempt.trouble == ""
    assert {"mount", "pid", "network", "ipc", "uts", "cgroup", "overlay", "proc"} <= set(attempt.errnos)
    assert attempt.errnos["mount"] == 0 and attempt.microseconds > 0
    assert Path("/proc/self/mountinfo").read_text() == before


def test_trial_start_as_an_ordinary_user(tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs root, to become an ordinary user")
    script = f"""
import os, sys
sys.path.insert(0, {ROOT!r})
from sampan.runtime import host
os.setgid(54321); os.setuid(54321)
sys.executable = "/usr/bin/python3"
directory = sys.argv[1]
attempt = host.try_start(True, directory)
print(attempt.trouble, attempt.errnos.get("user"), *sorted(attempt.errnos), sep="|")
"""
    if not os.access("/usr/bin/python3", os.X_OK):
        pytest.skip("no interpreter that every user may run")
    for path in (tmp_path, *tmp_path.parents):
        if path != Path("/tmp") and path.is_relative_to("/tmp"):
            path.chmod(0o755)
    own = tmp_path / "own"
    own.mkdir()
    os.chown(own, 54321, 54321)
    out = subprocess.run([sys.executable, "-c", script, str(own)], capture_output=True, text=True, check=True).stdout
    trouble, user, *names = out.strip().split("|")
    assert trouble == "" and user.isdigit()  # a host may forbid it; the probe says so with an errno
    assert ("overlay" in names and "proc" in names) if user == "0" else names == ["user"]


def test_trouble_is_reported_when_the_probe_cannot_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "absent"))
    assert "absent" in host.try_start(True, str(tmp_path)).trouble
