"""What this host can and cannot do for containers, in findings: each says what follows, and the one command that helps.

Facts come from `runtime/host.py`, `idmap.py` and `cgrouphost.py`; here they are judged. Three verdicts: `ok`; `warn`,
something is less than it could be; `missing`, containers do not start or a setting is refused. Every check stands by
itself, and one that itself fails becomes a finding too.
"""

from __future__ import annotations

import errno
import os

from sampan import rights
from sampan.errors import SampanError, counted
from sampan.runtime import cgrouphost, host, idmap, refusals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sampan.engine.engine import Engine

OK, WARN, MISSING = "ok", "warn", "missing"

_LEAST_FREE = 1 << 30
_LEAST_SHM = 64 << 20
_NEWUIDMAP = {
    "apt": "uidmap",
    "dnf": "shadow-utils",
    "apk": "shadow-uidmap",
    "zypper": "shadow",
    "pacman": "shadow",
}
_COMPILER = {"apt": "gcc libc6-dev", "dnf": "gcc", "apk": "gcc musl-dev", "zypper": "gcc", "pacman": "gcc"}


class Finding:
    """One thing looked at: its verdict, what was found, what follows, and the command that mends it, or ""."""

    __slots__ = ("consequence", "detail", "name", "remedy", "status")

    def __init__(self, name: str, status: str, detail: str, consequence: str = "", remedy: str = "") -> None:
        self.name = name
        self.status = status
        self.detail = detail
        self.consequence = consequence
        self.remedy = remedy

    def to_dict(self) -> dict[str, str]:
        """Return it as plain values for JSON."""
        return {key: getattr(self, key) for key in ("name", "status", "detail", "consequence", "remedy")}


class Subject:
    """What is examined: whose containers, where their store is, which distribution gives the commands."""

    __slots__ = ("release", "root", "rootless", "sudo", "user")

    def __init__(self, root: str, rootless: bool, release: dict[str, str], sudo: bool = True) -> None:
        self.root = root
        self.rootless = rootless
        self.release = release
        self.sudo = "sudo " if rootless and sudo else ""
        self.user = idmap.user_name(os.geteuid())

    def install(self, package: dict[str, str]) -> str:
        """Return the command that installs a package on this distribution."""
        command = host.install_command(package, self.release)
        return command and self.sudo + command


def report(root: str = "") -> list[Finding]:
    """Examine this host for a store at `root` (else where this user's is)."""
    if not root:
        from sampan.store import paths

        root = paths.locate().root
    release = host.os_release(host.read_text("/etc/os-release"))
    subject = Subject(root, rights.rootless(), release, sudo=os.geteuid() != 0)
    return [finding for check in CHECKS for finding in _run(check, subject)]


def report_for(engine: Engine) -> list[Finding]:
    """Examine this host for an engine, without opening its store: that may be what does not work."""
    from sampan.store import paths

    return report(paths.locate(engine._root).root)


def _run(check: Callable[[Subject], Iterator[Finding]], subject: Subject) -> list[Finding]:
    try:
        return list(check(subject))
    except (OSError, SampanError, ValueError) as error:
        name = check.__name__.lstrip("_").replace("_", " ")
        return [Finding(name, WARN, f"cannot be examined: {error}", "whether it works shows when it is used")]


def _kernel(subject: Subject) -> Iterator[Finding]:
    found = host.kernel_version()
    least = ".".join([str(part) for part in host.LEAST_KERNEL])
    if found >= host.LEAST_KERNEL:
        yield Finding("kernel", OK, os.uname().release)
    else:
        yield Finding("kernel", MISSING, f"{os.uname().release} is older than {least}", "no container starts")


def _user_namespaces(subject: Subject) -> Iterator[Finding]:
    name = "user namespaces"
    follows = "an ordinary user cannot run containers"
    status = MISSING if subject.rootless else WARN
    for setting, bad in (
        ("user.max_user_namespaces", 0),
        ("kernel.unprivileged_userns_clone", 0),
        ("kernel.apparmor_restrict_unprivileged_userns", 1),
    ):
        value = host.sysctl(setting)
        if value == bad:
            better = 28633 if setting.startswith("user.") else 1 - bad
            yield Finding(name, status, f"{setting} is {value}", follows, f"sudo sysctl -w {setting}={better}")
            return
    most = host.sysctl("user.max_user_namespaces")
    yield Finding(name, OK, f"allowed, up to {most}" if most is not None else "allowed")


def _start(subject: Subject) -> Iterator[Finding]:
    """Try the namespaces and mounts of a container one by one on the store's own disk, then a whole container."""
    from sampan.engine import trial

    parent = host.existing_parent(subject.root)
    if not os.access(parent, os.W_OK):
        return  # as the check of the store says
    with _Scratch(parent) as directory:
        attempt = host.try_start(subject.rootless, directory)
    yield from judge_start(attempt, subject.rootless)
    with _Scratch(parent) as directory:
        microseconds, error = trial.attempt(directory)
    yield judge_trial(microseconds, error)


class _Scratch:
    """Make a directory in the store, or where it will be, for a trial, and remove it; what was killed here goes too."""

    def __init__(self, parent: str) -> None:
        from sampan.store import files, gc, owner

        for name in os.listdir(parent):
            if gc.is_stale_probe(name):
                files.remove_tree(f"{parent}/{name}")
        self.path = f"{parent}/{files.PROBE}{owner.this_process()}.{os.urandom(4).hex()}"
        os.mkdir(self.path, 0o700)

    def __enter__(self) -> str:
        return self.path

    def __exit__(self, *_: object) -> None:
        from sampan.store import files

        files.remove_tree(self.path)  # overlayfs leaves a directory of mode 0000


def judge_trial(microseconds: int, error: SampanError | None) -> Finding:
    """Judge the start of a whole container."""
    if error is None:
        return Finding("container", OK, f"an empty one was started and has ended in {microseconds / 1000:.1f} ms")
    hint = "" if "doctor" in error.hint else error.hint
    return Finding("container", MISSING, error.message, "no container starts", hint)


def judge_start(attempt: host.Attempt, rootless: bool) -> Iterator[Finding]:
    """Judge what the probe reported."""
    if attempt.trouble:
        yield Finding("trial start", WARN, attempt.trouble, "whether containers start shows when one is started")
    failed = {name: code for name, code in attempt.errnos.items() if code}
    wanted = ["user"] if rootless else []
    spaces = [name for name in (*wanted, "mount", "pid", "network", "ipc", "uts", "cgroup") if name in failed]
    if spaces:
        why = os.strerror(failed[spaces[0]])
        inside = "; start the outer container with --security-opt seccomp=unconfined" if refusals.filtered() else ""
        yield Finding("namespaces", MISSING, f"{', '.join(spaces)}: {why}", f"no container starts{inside}")
    elif attempt.errnos:
        yield Finding("namespaces", OK, f"all made in {attempt.microseconds} µs")
    if "overlay" in failed:
        where = "in a user namespace" if rootless else "on this disk"
        yield Finding("overlay", MISSING, f"mounting {where} failed: {os.strerror(failed['overlay'])}",
                      "images cannot be mounted", refusals.elsewhere())  # fmt: skip
    elif "overlay" in attempt.errnos:
        yield Finding("overlay", OK, "mounted, and a whiteout made")
    if failed.get("proc") == errno.EPERM:
        yield Finding("proc", MISSING, "mounting /proc is forbidden: parts of this host's own are covered",
                      "containers start with --pid host only; with all of them if the outer one is started with "
                      "--security-opt systempaths=unconfined (podman: unmask=ALL)")  # fmt: skip
    elif failed.get("proc"):
        yield Finding("proc", MISSING, f"mounting /proc failed with {failed['proc']}", "no container starts")


def _ids(subject: Subject) -> Iterator[Finding]:
    if not subject.rootless:
        return
    found = idmap.detect()
    if not found.single and not found.newuidmap:
        yield Finding("id ranges", OK, "root of a container or of a user namespace: its containers have the same ids")
        return
    if not found.single:
        status = WARN if found.notes else OK
        yield Finding(
            "id ranges",
            status,
            "; ".join(found.notes) or f"{counted(len(found.uid_lines) - 1, 'range')}, {found.newuidmap}",
        )
        return
    note = found.notes[0] if found.notes else "no range"
    remedy = subject.install(_NEWUIDMAP) if rights.may_gain() else ""
    if "has no entry" in note:
        remedy = ""
    elif "has no range" in note:
        first = idmap.free_range(host.read_text("/etc/subuid") + "\n" + host.read_text("/etc/subgid"))
        ids = f"{first}-{first + 65535}"
        remedy = f"sudo usermod --add-subuids {ids} --add-subgids {ids} {subject.user}"
        if subject.release.get("ID") == "alpine":
            remedy = f"echo {subject.user}:{first}:65536 | sudo tee -a /etc/subuid /etc/subgid"
    follows = "containers have one user: most images build, but not those that change owners"
    yield Finding("id ranges", WARN, note, follows, remedy)


def _control_groups(subject: Subject) -> Iterator[Finding]:
    layout = cgrouphost.detect(rootless=subject.rootless)
    follows = "limits (--memory, --cpus, --pids-limit) are refused"
    if not layout.v2_base and not layout.v1:
        remedy = ""
        if subject.rootless and layout.version == "v2" and host.has_systemd():
            remedy = "systemd-run --user --scope --property=Delegate=yes sampan ..."
        why = layout.why
        if layout.version in ("v1", "hybrid") and subject.rootless:
            why = "controllers on cgroup v1 are not for ordinary users"
        yield Finding("cgroups", WARN, f"{layout.version}: {why}", follows, remedy)
        return
    names = sorted(layout.v2_controllers() | {n.replace("blkio", "io") for n in layout.v1})
    lacking = [name for name in ("memory", "cpu", "pids") if name not in names]
    detail = f"{layout.version}, controllers {' '.join(names) or 'none'}"
    if lacking:
        remedy = ""
        if subject.rootless:
            remedy = "sudo systemctl edit user@.service   # add: [Service] Delegate=yes"
        yield Finding("cgroups", WARN, f"{detail}; not {' '.join(lacking)}", follows, remedy)
    else:
        yield Finding("cgroups", OK, detail)


def _seccomp(subject: Subject) -> Iterator[Finding]:
    actions = host.seccomp_actions()
    if "errno" in actions:
        yield Finding("seccomp", OK, "filters work")
    else:
        yield Finding("seccomp", MISSING, "this kernel has no filters (CONFIG_SECCOMP_FILTER)",
                      "containers start only with --security-opt seccomp=unconfined")  # fmt: skip
    module = host.security_module()
    if module == "apparmor":
        yield Finding("AppArmor", OK, "enabled; sampan adds no profile of its own")
    elif module:
        yield Finding("SELinux", OK, "enabled; sampan sets no labels of its own")


def _store(subject: Subject) -> Iterator[Finding]:
    parent = host.existing_parent(subject.root)
    mountinfo = host.read_text("/proc/self/mountinfo")
    kind, options = host.file_system(os.path.realpath(parent), mountinfo)
    disk = f"{subject.root} on {kind or 'an unknown file system'}"
    elsewhere = "export SAMPAN_ROOT=DIRECTORY-ON-A-LOCAL-DISK"
    if kind in host.NETWORK_FILE_SYSTEMS:
        yield Finding("store", WARN, disk, "a network file system cannot hold all owners and attributes", elsewhere)
    elif "ro" in options.split(","):
        yield Finding("store", MISSING, f"{disk}, mounted read-only", "nothing can be stored", elsewhere)
    elif not os.access(parent, os.W_OK):
        yield Finding("store", MISSING, f"{parent} is not writable", "nothing can be stored", elsewhere)
    elif not _takes_attributes(parent):
        yield Finding(
            "store", WARN, f"{disk}, without user attributes", "deleted files may reappear in images", elsewhere
        )
    else:
        yield Finding("store", OK, disk)
    state = os.statvfs(parent)
    free, inodes = state.f_bavail * state.f_frsize, state.f_favail
    low = free < _LEAST_FREE or (state.f_files and inodes < 10000)
    yield Finding("disk space", WARN if low else OK, f"{free / 1e9:.1f} GB and {inodes} files free",
                  "large images do not fit" if low else "")  # fmt: skip


def _takes_attributes(parent: str) -> bool:
    with _Scratch(parent) as directory:
        return host.takes_attributes(directory)


def _shared_memory(subject: Subject) -> Iterator[Finding]:
    if not os.path.isdir("/dev/shm"):
        yield Finding("/dev/shm", WARN, "is absent", "--ipc host has no shared memory")
        return
    state = os.statvfs("/dev/shm")
    size = state.f_blocks * state.f_frsize
    yield Finding("/dev/shm", OK if size >= _LEAST_SHM else WARN, f"{size >> 20} MiB")


def _helper(subject: Subject) -> Iterator[Finding]:
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    helper = f"{package}/_helper/sampan-helper"
    compiler = host.find_program(("cc", "gcc", "clang"))
    if os.access(helper, os.X_OK):
        yield Finding("helper", OK, helper)
    elif compiler:
        yield Finding("helper", MISSING, f"{helper} is not built", "no container starts", "python3 helper/make.py")
    else:
        yield Finding("helper", MISSING, "it is not built, and there is no C compiler", "no container starts",
                      subject.install(_COMPILER))  # fmt: skip


CHECKS = (_kernel, _user_namespaces, _start, _ids, _control_groups, _seccomp, _store, _shared_memory, _helper)


def worst(findings: list[Finding]) -> str:
    """Return the gravest verdict."""
    return max([finding.status for finding in findings], key=(OK, WARN, MISSING).index, default=OK)


def report_text(findings: list[Finding]) -> str:
    """Return the findings as lines for people."""
    width = max([len(finding.name) for finding in findings], default=0)
    lines = []
    for finding in findings:
        lines.append(f"{finding.status:8}{finding.name:{width}}  {finding.detail}")
        if finding.status != OK:
            margin = " " * (width + 10)
            lines += [f"{margin}{text}" for text in (finding.consequence and f"so: {finding.consequence}",
                                                     finding.remedy and f"do: {finding.remedy}") if text]  # fmt: skip
    return "".join([f"{line}\n" for line in lines])


def report_json(findings: list[Finding]) -> list[dict[str, str]]:
    """Return the findings as plain values."""
    return [finding.to_dict() for finding in findings]
