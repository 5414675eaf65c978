"""The one place that computes a path of the store.

    root/                     0711 for uid 0, else 0700
      sampan.db               the record of truth (store/db.py)
      oci/                    an OCI image layout: oci-layout, index.json, blobs/sha256/<hex>
      ingest/                 blobs that are still being written
      snapshots/<id>/         one unpacked layer; .active/<id>/{upper,work} while it is being made;
                              .used: locks (store/snapshots.py); empty/ has nothing
      containers/<id>/        upper, work, log, exit …
      volumes/<name>/_data    named volumes
      cache/                  all of it may be deleted at any time
      events/                 what happened during the last day (store/events.py)
      .reserve                space given back when the disk is full (store/db.py)
    run/                      state that ends with the boot

Everything directly below the root is 0700: no other user of the host can reach a device node or set-uid program that an
image brought (CVE-2021-41091, CVE-2021-41103). A root or run directory that was there before must be of this user or of
root, and nobody else's to write to: on a machine with many users somebody may have made it first.
"""

from __future__ import annotations

import os
import stat

from sampan.errors import Denied, InvalidArgument, Unavailable

_SUBDIRECTORIES = ("oci/blobs/sha256", "ingest", "snapshots/.active", "containers", "volumes", "cache")
EMPTY = "empty"  # among the snapshots: the root of an image without layers
NAMES = "names"  # there too: what lies below every container's image (store/snapshots.py)
_TOP = frozenset(path.partition("/")[0] for path in _SUBDIRECTORIES)


class Paths:
    """Where things of one store lie: `root` for data that lasts, `run` for run-time state."""

    __slots__ = (
        "root",
        "run",
        "database",
        "oci",
        "blobs",
        "ingest",
        "snapshots",
        "active",
        "containers",
        "volumes",
        "cache",
        "events",
        "reserve",
        "used",
        "mount_point",
        "empty",
        "names",
    )

    def __init__(self, root: str, run: str = "") -> None:
        self.root = os.path.abspath(root)
        self.run = os.path.abspath(run) if run else self.root + "/run"
        self.database = self.root + "/sampan.db"
        self.oci = self.root + "/oci"
        self.blobs = self.oci + "/blobs/sha256"
        self.ingest = self.root + "/ingest"
        self.snapshots = self.root + "/snapshots"
        self.active = self.snapshots + "/.active"
        self.empty = f"{self.snapshots}/{EMPTY}"
        self.names = f"{self.snapshots}/{NAMES}"
        self.containers = self.root + "/containers"
        self.volumes = self.root + "/volumes"
        self.cache = self.root + "/cache"
        self.events = self.root + "/events"
        self.reserve = self.root + "/.reserve"
        self.used = self.snapshots + "/.used"
        self.mount_point = self.run + "/rootfs"  # of roots, in mount namespaces of their own

    def blob(self, digest: str) -> str:
        """Return the path of a blob by its digest text."""
        from sampan.oci.digest import hex_of

        return f"{self.blobs}/{hex_of(digest)}"

    def snapshot(self, snapshot_id: str) -> str:
        """Return the directory of a committed snapshot."""
        return f"{self.snapshots}/{_component(snapshot_id)}"

    def active_snapshot(self, active_id: str) -> str:
        """Return the directory (with upper and work) of a snapshot that is being made."""
        return f"{self.active}/{_component(active_id)}"

    def container(self, container_id: str) -> str:
        """Return the directory of a container."""
        return f"{self.containers}/{_component(container_id)}"

    def volume(self, name: str) -> str:
        """Return the directory of a volume; its content is below `_data`."""
        return f"{self.volumes}/{_component(name)}"

    def volume_data(self, name: str) -> str:
        """Return the directory that a container sees of a volume."""
        return self.volume(name) + "/_data"

    def context_cache(self, key: str) -> str:
        """Return the file that keeps the file digests of one build context."""
        return f"{self.cache}/context-{_component(key)}"

    def make(self) -> None:
        """Make the directories of the store where they are missing; what is in one of them was made before the last."""
        try:
            self._make_root()
            if _TOP.issubset(os.listdir(self.root)):
                return
            for relative in _SUBDIRECTORIES:
                path = self.root
                for part in relative.split("/"):
                    path = f"{path}/{part}"
                    _make(path, 0o700)
        except OSError as exc:
            raise _cannot_make(self.root, exc) from exc

    def _make_root(self) -> None:
        _make(self.root, 0o711 if os.geteuid() == 0 else 0o700)

    def hold(self) -> int:
        """Make the root where it is missing, and give a descriptor that keeps others from erasing the store.

        It carries a shared flock(2), which ends with the descriptor; waits while the store is being erased.
        """
        import fcntl

        try:
            self._make_root()
            _refuse_anothers(self.root, os.lstat(self.root), "store", "SAMPAN_ROOT")
            fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if not _taken(fd):
                _refuse_others(self.root, os.fstat(fd), "store", "SAMPAN_ROOT")
            fcntl.flock(fd, fcntl.LOCK_SH)
        except OSError as exc:
            raise _cannot_make(self.root, exc) from exc
        return fd

    def make_run(self) -> None:
        """Make the run directory where it is missing."""
        try:
            _make(self.run, 0o700)
            _refuse_anothers(self.run, os.lstat(self.run), "run-time state", "SAMPAN_RUN")
            _refuse_others(self.run, os.stat(self.run), "run-time state", "SAMPAN_RUN")
        except OSError as exc:
            if isinstance(exc, PermissionError):  # as after `su`, which may leave the variable of who was here before
                hint = "set SAMPAN_RUN to a directory of your own, or unset XDG_RUNTIME_DIR where it is another user's"
                raise Denied(f"cannot make the run directory {self.run}: {exc.strerror}", hint) from exc
            raise _cannot_make(self.run, exc) from exc


def locate(root: str | None = None) -> Paths:
    """Return the paths of the store at `root`, else of the one that the environment and the user id select."""
    chosen = root or os.environ.get("SAMPAN_ROOT", "")
    run = os.environ.get("SAMPAN_RUN", "")
    if chosen:
        return Paths(chosen, run)
    if os.geteuid() == 0:
        return Paths("/var/lib/sampan", run or "/run/sampan")
    runtime = _absolute("XDG_RUNTIME_DIR")
    return Paths(_user_root(), run or (runtime and runtime + "/sampan"))


def _user_root() -> str:
    data = _absolute("XDG_DATA_HOME")
    if data:
        return data + "/sampan"
    home = _absolute("HOME") or _home_of_account()  # an empty or relative HOME is none, as for Docker
    if not home.startswith("/"):
        raise InvalidArgument("cannot find the store: this user has no home directory", "set SAMPAN_ROOT")
    return home.rstrip("/") + "/.local/share/sampan"


def _home_of_account() -> str:
    from pwd import getpwuid

    try:
        return getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return ""


def _absolute(variable: str) -> str:
    # XDG Base Directory Specification: relative paths in these variables are ignored.
    value = os.environ.get(variable, "")
    return value if value.startswith("/") else ""


def _component(name: str) -> str:
    if not name or name.startswith(".") or "/" in name or "\0" in name or len(os.fsencode(name)) > 255:
        raise InvalidArgument(f"invalid name {name[:100]!r}: it cannot be the name of a directory")
    return name


def _make(path: str, mode: int, tries: int = 9) -> None:
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return
    except FileNotFoundError:
        if not tries:  # its parent is there, and not being erased by another process: as in /proc
            raise
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _make(path, mode, tries - 1)
        return
    os.chmod(path, mode)  # whatever the umask took away


def _taken(fd: int) -> bool:
    """Close an empty directory of this user's to all others, such as a pod's emptyDir; False where it stays as it is.

    One that is sticky is meant for everybody (/tmp).
    """
    state = os.fstat(fd)
    mode = state.st_mode & 0o7777
    if state.st_uid != os.geteuid() or not mode & 0o022 or mode & 0o1000:
        return False
    os.fchmod(fd, mode & ~0o022)
    if os.listdir(fd):
        os.fchmod(fd, mode)  # what is in it may be somebody else's
        return False
    return True


def _refuse_anothers(path: str, state: os.stat_result, what: str, variable: str) -> None:
    """Raise Denied for what another user owns, who could also lead a symbolic link to elsewhere at any time."""
    if state.st_uid not in (0, os.geteuid()):
        kind = "is a symbolic link of" if stat.S_ISLNK(state.st_mode) else "belongs to"
        hint = f"run sampan as that user, or set {variable} to a directory of your own"
        raise Denied(f"cannot use {path} for the {what}: it {kind} the user with id {state.st_uid}", hint)


def _refuse_others(path: str, state: os.stat_result, what: str, variable: str) -> None:
    """Raise Denied for a directory in which another user could replace what is there, and so choose what is run."""
    _refuse_anothers(path, state, what, variable)
    message = f"cannot use {path} for the {what}: "
    of_group = state.st_mode & 0o020 and state.st_gid not in (0, os.getegid())
    if of_group or state.st_mode & 0o002:
        instead = f"set {variable} to a directory of your own, such as {path.rstrip('/')}/sampan"
        mend = "" if state.st_mode & 0o1000 else f", or: chmod go-w {path}"
        raise Denied(f"{message}other users may write to it", instead + mend)


def _cannot_make(path: str, exc: OSError) -> Denied | Unavailable:
    message = f"cannot make the store {path}: {exc.strerror}"
    if isinstance(exc, PermissionError):
        return Denied(message, "set SAMPAN_ROOT to a directory that this user may write")
    return Unavailable(message, "name a directory of another file system with --root or SAMPAN_ROOT")
