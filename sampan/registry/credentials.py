"""Who the user is at which registry: Docker's config.json, its credential helpers, and containers' auth.json.

Looked up in this order: `credHelpers` for the registry, `credsStore`, `auths`, all of $DOCKER_CONFIG/config.json (else
~/.docker/config.json); then containers' auth.json, $REGISTRY_AUTH_FILE, $XDG_RUNTIME_DIR/containers/auth.json or
~/.config/containers/auth.json, where a key may also be a repository or what begins its name: in each file the most
specific one that is there decides (containers-auth.json(5)), for what it names and nothing else.

Written is Docker's file alone: everything that it holds besides is kept, its mode is 0600, and it is replaced in one
step under a lock.  A helper (docker-credential-NAME, on PATH) is given a registry's name on its standard input.
Secrets are in no argument, message or repr.
"""

from __future__ import annotations

import errno
import os

from sampan.errors import Denied, IntegrityError, InvalidArgument, SampanError, Unavailable
from sampan.oci import jsontext
from sampan.registry.auth import Login

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

DOCKER_KEY = "https://index.docker.io/v1/"
_DOCKER_HOSTS = ("docker.io", "index.docker.io", "registry-1.docker.io")
_TOKEN_USER = "<token>"  # how helpers mark an identity token (docker-credential-helpers)
_HELPER_SECONDS = 30
_HELPERS = "credHelpers"


def key_of(host: str) -> str:
    """Give the name under which Docker keeps a registry's login."""
    return DOCKER_KEY if host in _DOCKER_HOSTS else host


class Credentials:
    """The logins of one user, as `environ` leads to them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        directory = environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
        self.path = directory + "/config.json"

    # ---- read ----

    def find(self, host: str, repository: str = "") -> Login:
        """Give the login for a registry, an empty one when there is none; raises when a file or helper is broken."""
        config = _load(self.path)
        key = key_of(host)
        helper = self._helper(config, key)
        if helper:
            found = self._ask(helper, key)
            if found:
                return found
        found = _in_auths(config, key)
        return found or self._of_containers(host, repository)

    def _helper(self, config: dict[str, Any], key: str) -> str:
        helpers = config.get(_HELPERS) or {}
        name = helpers.get(key) or helpers.get(_host_of(key)) or config.get("credsStore") or ""
        if not isinstance(name, str) or "/" in name or name.startswith("."):
            raise InvalidArgument(f"cannot use {self.path}: {str(name)[:100]!r} is not the name of a credential helper")
        return name

    def _of_containers(self, host: str, repository: str) -> Login:
        host = "docker.io" if host in _DOCKER_HOSTS else host
        for path in self._container_files():
            config = _load(path)
            helpers = config.get(_HELPERS) or {}
            if isinstance(helpers.get(host), str) and "/" not in helpers[host]:
                return self._ask(helpers[host], host)
            found = _in_auths(config, _longest(config, host, repository) or host)
            if found:
                return found
        return Login()

    def realm(self, host: str, repository: str) -> tuple[str, ...]:
        """Give what two repositories of a host have in common if they have the same login: the keys that name them.

        A file that is broken is told by `find`, where a login is needed at all.
        """
        host = "docker.io" if host in _DOCKER_HOSTS else host
        try:
            return tuple(_longest(_load(path), host, repository) for path in self._container_files())
        except SampanError:
            return (repository,)

    def _container_files(self) -> list[str]:
        if self._environ.get("REGISTRY_AUTH_FILE"):
            return [self._environ["REGISTRY_AUTH_FILE"]]
        run = self._environ.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.getuid()}"
        config = self._environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        first = f"{run}/containers/auth.json" if self._environ.get("XDG_RUNTIME_DIR") else f"{run}/auth.json"
        return [first, f"{config}/containers/auth.json"]

    # ---- write ----

    def store(self, host: str, login: Login) -> str:
        """Keep a login; give what it is kept in: a helper's name, or the file's path."""
        key = key_of(host)
        with _Locked(self.path) as file:
            helper = self._helper(file.config, key)
            if helper:
                username = _TOKEN_USER if login.refresh_token else login.username
                secret = login.refresh_token or login.password
                value = {"ServerURL": key, "Username": username, "Secret": secret}
                self._run(helper, "store", jsontext.dumps(value))
                entry: dict[str, Any] = {}
            else:
                entry = {"auth": _encoded(login)}
                if login.refresh_token:
                    entry["identitytoken"] = login.refresh_token
            file.config["auths"] = {**(file.config.get("auths") or {}), key: entry}  # Go writes null for an empty map
            file.write()
        return f"docker-credential-{helper}" if helper else self.path

    def erase(self, host: str) -> bool:
        """Forget a login; tell whether there was one."""
        key = key_of(host)
        if not os.path.exists(self.path):
            return False
        with _Locked(self.path) as file:
            helper = self._helper(file.config, key)
            auths = file.config.get("auths") or {}
            names = [name for name in auths if name == key or _host_of(name) == _host_of(key)]
            known = bool(names) or bool(helper and self._ask(helper, key))
            if helper:
                self._run(helper, "erase", key.encode())
            for name in names:
                del auths[name]
            if names:
                file.write()
        return known

    # ---- helpers ----

    def _ask(self, helper: str, key: str) -> Login:
        try:
            answer = self._run(helper, "get", key.encode())
        except _NoCredentials:
            return Login()
        try:
            value = jsontext.loads(answer, f"answer of docker-credential-{helper}")
        except InvalidArgument as exc:
            raise IntegrityError(f"cannot use docker-credential-{helper}: its answer is not JSON") from exc
        username = value.get("Username") if isinstance(value, dict) else None
        secret = value.get("Secret") if isinstance(value, dict) else None
        if not isinstance(username, str) or not isinstance(secret, str):
            raise IntegrityError(f"cannot use docker-credential-{helper}: its answer has no user name or no secret")
        if username == _TOKEN_USER:
            return Login(refresh_token=secret)
        return Login(username, secret)

    def _run(self, helper: str, action: str, data: bytes) -> bytes:
        import subprocess

        program = f"docker-credential-{helper}"
        try:
            done = subprocess.run(
                [program, action], input=data, capture_output=True, timeout=_HELPER_SECONDS, env=dict(self._environ)
            )
        except FileNotFoundError as exc:
            hint = f"install it, or take {helper} out of {self.path}"
            raise Unavailable(f"cannot run {program}: it is not on PATH", hint) from exc
        except subprocess.TimeoutExpired as exc:
            raise Unavailable(f"cannot use {program}: it did not end within {_HELPER_SECONDS} s") from exc
        except OSError as exc:
            raise Unavailable(f"cannot run {program}: {exc.strerror}") from exc
        if done.returncode == 0:
            return done.stdout
        said = (done.stdout or done.stderr).decode("utf-8", "replace").strip()
        if "credentials not found" in said:  # docker-credential-helpers, credentials/error.go
            raise _NoCredentials(said)
        shown = "".join(character if character.isprintable() else " " for character in said)[:200]
        raise Unavailable(f"cannot use {program}: it ended with {done.returncode}: {shown}")


class _NoCredentials(SampanError):
    """A helper has nothing for this registry."""


class _Locked:
    """config.json, read under a lock on its directory; `write` replaces it."""

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)  # a link stays a link, as with Docker
        self.config: dict[str, Any] = {}
        self._fd = -1

    def __enter__(self) -> _Locked:
        import fcntl

        directory = os.path.dirname(self.path)
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            self._fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        except OSError as exc:
            raise self._failure(exc) from exc
        try:
            self.config = _load(self.path)
        except BaseException:
            os.close(self._fd)
            raise
        return self

    def __exit__(self, *ignored: object) -> None:
        os.close(self._fd)

    def _failure(self, exc: OSError) -> Denied:
        return Denied(f"cannot write {self.path}: {exc.strerror}", "DOCKER_CONFIG chooses another directory")

    def write(self) -> None:
        """Replace the file in one step, with mode 0600; a login that is killed leaves no other file with secrets."""
        import json

        data = (json.dumps(self.config, indent="\t") + "\n").encode()
        name = os.path.basename(self.path)
        fresh = f".{name}.sampan"  # under the lock nobody else has it: what is there is of a login that was killed
        try:
            _unlink(fresh, self._fd)
            fd, named = _unnamed(fresh, self._fd)
            try:
                with open(fd, "wb", buffering=0) as file:
                    rest = memoryview(data)
                    while rest:
                        rest = rest[file.write(rest) or 0 :]
                    os.fsync(fd)
                    if not named:  # with a directory given Python calls linkat(2) with AT_SYMLINK_FOLLOW
                        os.link(f"/proc/self/fd/{fd}", fresh, dst_dir_fd=self._fd)
                os.rename(fresh, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            except BaseException:
                _unlink(fresh, self._fd)
                raise
            os.fsync(self._fd)
        except OSError as exc:
            raise self._failure(exc) from exc


def _unnamed(name: str, directory: int) -> tuple[int, bool]:
    """Open a new file without a name, or with this one where the file system knows no other (O_TMPFILE, open(2))."""
    try:
        return os.open(".", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600, dir_fd=directory), False
    except OSError as exc:
        if exc.errno not in (errno.EISDIR, errno.EOPNOTSUPP):
            raise
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory), True


def _unlink(name: str, directory: int) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return


def _load(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(4 << 20)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as exc:
        raise Denied(f"cannot read {path}: {exc.strerror}") from exc
    if not data.strip():
        return {}
    try:
        value = jsontext.loads(data, path)
    except InvalidArgument as exc:
        raise InvalidArgument(f"cannot read {path}: it is not valid JSON", "repair it or move it away") from exc
    if not isinstance(value, dict) or not all(isinstance(value.get(one), dict | None) for one in ("auths", _HELPERS)):
        raise InvalidArgument(f"cannot read {path}: it is not what Docker writes", "repair it or move it away")
    return value


def _in_auths(config: dict[str, Any], key: str) -> Login:
    auths = config.get("auths") or {}
    entry = auths.get(key)
    if entry is None and "/" not in key or key == DOCKER_KEY:
        # Old files have URLs as keys: https://host/v1/.
        entry = entry or next((auths[name] for name in auths if _host_of(name) == _host_of(key)), None)
    if not isinstance(entry, dict):
        return Login()
    token = entry.get("identitytoken")
    username, password = _decoded(entry.get("auth"))
    username = username or str(entry.get("username") or "")
    password = password or str(entry.get("password") or "")
    return Login(username, password, token if isinstance(token, str) else "")


def _host_of(key: str) -> str:
    if "://" not in key:
        return key
    host = key.partition("://")[2].partition("/")[0]
    return "index.docker.io" if host in _DOCKER_HOSTS else host


def _encoded(login: Login) -> str:
    import binascii

    # Docker keeps the name beside an identity token, without the password.
    pair = f"{login.username}:{'' if login.refresh_token else login.password}".encode()
    return binascii.b2a_base64(pair, newline=False).decode()


def _decoded(text: object) -> tuple[str, str]:
    import binascii

    if not isinstance(text, str):
        return "", ""
    try:
        pair = binascii.a2b_base64(text).decode()
    except (ValueError, UnicodeError):
        return "", ""
    name, _, password = pair.partition(":")
    return name, password.rstrip("\0")


def _longest(config: dict[str, Any], host: str, repository: str) -> str:
    """Give the most specific key for a repository, "" for none but the whole host's (containers-auth.json(5))."""
    auths = config.get("auths") or {}
    while repository:
        key = f"{host}/{repository}"
        if key in auths:
            return key
        repository = repository.rpartition("/")[0]
    return ""
