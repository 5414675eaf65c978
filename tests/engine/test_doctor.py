"""Doctor's verdicts: what is wrong is named, with what follows and one command."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path

import pytest

import sampan
from sampan.engine import doctor
from sampan.engine.doctor import MISSING, OK, WARN, Finding, Subject
from sampan.errors import NotSupported
from sampan.runtime import cgrouphost, host, idmap

UBUNTU = {"ID": "ubuntu", "ID_LIKE": "debian"}


def user(root: str = "/tmp") -> Subject:
    return Subject(root, True, UBUNTU)


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1
    return findings[0]


def test_this_host_is_examined_without_trouble(tmp_path: Path) -> None:
    findings = doctor.report(str(tmp_path / "store"))
    names = [finding.name for finding in findings]
    assert {"kernel", "user namespaces", "namespaces", "seccomp", "store", "disk space"} <= set(names)
    assert not [finding for finding in findings if "cannot be examined" in finding.detail]
    assert json.dumps(doctor.report_json(findings))
    assert list(tmp_path.iterdir()) == []


def test_old_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "kernel_version", lambda: (5, 4))
    found = only(list(doctor._kernel(user())))
    assert found.status == MISSING and "5.12" in found.detail and found.consequence


@pytest.mark.parametrize(
    ("setting", "value", "remedy"),
    [
        ("user.max_user_namespaces", 0, "user.max_user_namespaces=28633"),
        ("kernel.unprivileged_userns_clone", 0, "kernel.unprivileged_userns_clone=1"),
        ("kernel.apparmor_restrict_unprivileged_userns", 1, "kernel.apparmor_restrict_unprivileged_userns=0"),
    ],
)
def test_forbidden_user_namespaces(setting: str, value: int, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "sysctl", lambda name: value if name == setting else None)
    found = only(list(doctor._user_namespaces(user())))
    assert found.status == MISSING and found.remedy == f"sudo sysctl -w {remedy}"
    assert only(list(doctor._user_namespaces(Subject("/", False, {})))).status == WARN


def test_a_container_is_really_started(tmp_path: Path) -> None:
    found = [finding for finding in doctor.report(str(tmp_path / "store")) if finding.name == "container"]
    assert only(found).status == OK and "started" in found[0].detail


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting over a device needs root")
def test_what_every_single_test_allows_may_still_start_nothing(tmp_path: Path) -> None:
    """Namespaces and mounts work where /dev/null is no null device, and the helper masks nothing with it."""
    program = sampan.Engine(str(tmp_path)).command(["--root", f"{tmp_path}/store", "doctor", "--json"])
    script = 'mount --bind /dev/full /dev/null && exec "$@"'
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *program]
    done = subprocess.run(words, capture_output=True, check=False)
    found = {row["name"]: row for row in json.loads(done.stdout)}
    assert done.returncode == 1 and found["overlay"]["status"] == found["namespaces"]["status"] == OK
    assert found["container"]["status"] == MISSING and "No such device" in found["container"]["detail"]


def test_a_failed_start_is_told_as_run_tells_it() -> None:
    found = doctor.judge_trial(0, NotSupported("cannot mount proc at /proc: no", "mount it"))
    assert (found.status, found.detail, found.remedy) == (MISSING, "cannot mount proc at /proc: no", "mount it")
    assert doctor.judge_trial(0, NotSupported("cannot x", "`sampan doctor` knows")).remedy == ""


def test_failed_trial_names_what_failed() -> None:
    attempt = host.Attempt(f"user {errno.EPERM}\n")
    found = only(list(doctor.judge_start(attempt, True)))
    assert found.status == MISSING and "user" in found.detail and "Operation not permitted" in found.detail
    text = f"user 0\nmount 0\npid 0\noverlay {errno.EINVAL}\nproc {errno.EPERM}\n"
    verdicts = {finding.name: finding.status for finding in doctor.judge_start(host.Attempt(text), True)}
    assert verdicts == {"namespaces": OK, "overlay": MISSING, "proc": MISSING}
    trouble = only(list(doctor.judge_start(host.Attempt("", "the probe ended with -9"), True)))
    assert trouble.status == WARN


def test_a_store_that_cannot_be_written_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: str, mode: int) -> bool:
        return False

    monkeypatch.setattr(os, "access", refused)
    found = [one for one in doctor.report(str(tmp_path / "store")) if one.status == MISSING and one.name == "store"]
    assert only(found).detail == f"{tmp_path} is not writable" and "SAMPAN_ROOT" in only(found).remedy


def test_a_user_without_an_account_is_not_told_to_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    note = "x (user 7 has no entry in /etc/passwd, without which newuidmap does nothing)"
    monkeypatch.setattr(idmap, "detect", lambda: idmap.IdMap(["0 7 1"], ["0 7 1"], "", "", [note]))
    found = only(list(doctor._ids(user())))
    assert found.status == WARN and found.remedy == ""


def test_missing_newuidmap_and_missing_range(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["0 7 1"]
    monkeypatch.setattr(idmap, "detect", lambda: idmap.IdMap(lines, lines, "", "", ["x (newuidmap is not installed)"]))
    assert only(list(doctor._ids(user()))).remedy == "sudo apt-get install -y uidmap"
    monkeypatch.setattr(
        idmap, "detect", lambda: idmap.IdMap(lines, lines, "", "", ["x (/etc/subuid has no range for u)"])
    )
    assert "usermod --add-subuids" in only(list(doctor._ids(user()))).remedy


def test_cgroups_without_delegation(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = cgrouphost.Layout("v2", "/sys/fs/cgroup", "", {}, "your group /x is not delegated to you")
    monkeypatch.setattr(cgrouphost, "detect", lambda rootless: layout)
    monkeypatch.setattr(host, "has_systemd", lambda: True)
    found = only(list(doctor._control_groups(user())))
    assert found.status == WARN and found.remedy.startswith("systemd-run --user --scope")
    monkeypatch.setattr(host, "has_systemd", lambda: False)
    assert only(list(doctor._control_groups(user()))).remedy == ""


def test_network_file_system_and_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "file_system", lambda path, mountinfo: ("nfs4", "rw"))
    store = next(iter(doctor._store(user(str(tmp_path)))))
    assert store.status == WARN and "nfs4" in store.detail and "SAMPAN_ROOT" in store.remedy


def test_kernel_without_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "seccomp_actions", lambda: [])
    monkeypatch.setattr(host, "security_module", lambda: "")
    assert only(list(doctor._seccomp(user()))).status == MISSING


def test_check_that_fails_is_a_finding() -> None:
    def _broken(subject: Subject) -> list[Finding]:
        raise OSError(5, "Input/output error")

    found = only(doctor._run(_broken, user()))  # type: ignore[arg-type]
    assert found.status == WARN and found.name == "broken" and "Input/output error" in found.detail


def test_text_shows_the_remedy_below_its_finding() -> None:
    text = doctor.report_text([Finding("a", OK, "fine"), Finding("longer", MISSING, "gone", "it fails", "do this")])
    assert (
        text
        == "ok      a       fine\nmissing longer  gone\n                so: it fails\n                do: do this\n"
    )
    assert doctor.worst([Finding("a", WARN, "x"), Finding("b", OK, "y")]) == WARN and doctor.worst([]) == OK
