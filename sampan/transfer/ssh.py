"""Another host over ssh: sampan there if it has one, else docker or podman by their `save` and `load`.

The user's own ssh does the connecting, with the user's configuration, keys and known hosts; SAMPAN_SSH replaces the
program and its options. Nothing from a host's name or an image's name reaches a shell unquoted.
"""

from __future__ import annotations

import os
import select
import shlex
import subprocess
import threading
import time

from sampan.errors import InvalidArgument, NotFound, NotSupported, Unavailable
from sampan.oci import digest as digests
from sampan.oci import image as documents
from sampan.oci import jsontext, reference
from sampan.oci.entry import Entry
from sampan.oci.tarwriter import TarWriter
from sampan.transfer import dockerarchive, layout
from sampan.transfer.output import send, write_all
from sampan.transfer.peer import VERSION, Pipe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Any

    from sampan.transfer.save import Blobs

ENGINES = ("sampan", "docker", "podman")
_ANSWER = 60.0  # seconds for a short command there
_LEAVE = 5.0  # seconds for one that has said all to end
_MOST = 8 << 20  # bytes of its answer
_COMPLAINT = 1 << 16
_IMAGES = 10_000
_AT_ONCE = 1000  # ids in one command: Linux takes at most 128 KiB as one argument (execve(2)), ssh passes one


class Host:
    """A host to log in to: `user`, `name`, `port` ("" where ssh's configuration decides)."""

    def __init__(self, text: str, environ: Mapping[str, str]) -> None:
        user, _, rest = text.rpartition("@")
        name, _, port = rest.partition(":") if not rest.startswith("[") else rest[1:].partition("]:")
        name = name.rstrip("]")
        # ssh would take a leading dash for an option, whatever stands before it (CVE-2017-1000117), and hands names
        # to a shell where its configuration has a ProxyCommand with %h or %r (CVE-2023-51385).
        odd = any(not (c.isalnum() or c in "._-:%@+\\") for c in name + user) or any(c in "@+\\" for c in name)
        if not name or odd or name.startswith("-") or user.startswith("-") or not (port == "" or port.isdecimal()):
            raise InvalidArgument(f"invalid host {text[:200]!r}", "write ssh://[USER@]HOST[:PORT]/IMAGE")
        self.shown = text
        program = shlex.split(environ.get("SAMPAN_SSH", "")) or ["ssh", "-o", "BatchMode=yes"]
        login = (["-l", user] if user else []) + (["-p", port] if port else [])
        self._words = [*program, *login, "-T", "--", name]

    def start(self, words: Sequence[str], **streams: Any) -> subprocess.Popen[bytes]:
        """Start a command there."""
        try:
            return subprocess.Popen([*self._words, shlex.join(words)], **streams)
        except FileNotFoundError as exc:
            raise NotFound(f"cannot reach {self.shown}: there is no {self._words[0]} here", "install ssh") from exc

    def ask(self, words: Sequence[str], most: int = _MOST) -> str:
        """Run a command there and give what it prints, up to `most` bytes; Unavailable with its complaint otherwise."""
        with Complaints() as errors:
            process = self.start(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors.take())
            try:
                assert process.stdout
                out = _answer(process.stdout.fileno(), most, f"{words[0]} on {self.shown}")
                code = process.wait(_ANSWER)
            except subprocess.TimeoutExpired as exc:
                raise Unavailable(f"{self.shown} has not answered for {_ANSWER:.0f} s") from exc
            finally:
                process.kill()
                process.wait()
                process.stdout.close()  # type: ignore[union-attr]
            if code:
                raise Unavailable(f"cannot run {words[0]} on {self.shown}: {errors.last(code)}")
        return out.decode("utf-8", "replace")

    def engine(self) -> str:
        """Find out which engine is there."""
        script = "for e in " + " ".join(ENGINES) + "; do command -v $e >/dev/null 2>&1 && echo $e; done; true"
        found = self.ask(["sh", "-c", script]).split()
        for name in ENGINES:
            if name in found:
                return name
        raise NotFound(f"cannot copy to or from {self.shown}: it has none of {', '.join(ENGINES)}")


def _answer(fd: int, most: int, what: str) -> bytes:
    """Read up to `most` bytes, for at most the time of an answer."""
    waiting = select.poll()
    waiting.register(fd, select.POLLIN)
    until = time.monotonic() + _ANSWER
    parts: list[bytes] = []
    while True:
        left = until - time.monotonic()
        if left <= 0 or not waiting.poll(left * 1000):
            raise Unavailable(f"{what} has not answered for {_ANSWER:.0f} s")
        data = os.read(fd, 1 << 16)
        if not data:
            return b"".join(parts)
        most -= len(data)
        if most < 0:
            raise Unavailable(f"{what} sends an answer without end")
        parts.append(data)


class Complaints:
    """What a command there writes as errors: its last 64 KiB, however much it is."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self._kept = b""
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def __enter__(self) -> Complaints:
        return self

    def take(self) -> int:
        """Give the descriptor for the command; `last` and the end of the block close it here."""
        return self._write

    def _drain(self) -> None:
        while data := os.read(self._read, _COMPLAINT):
            self._kept = (self._kept + data)[-_COMPLAINT:]
        os.close(self._read)

    def last(self, code: int) -> str:
        """Give the last line of it, or that the command ended with `code`."""
        self.close()
        lines = self._kept.decode("utf-8", "replace").strip().splitlines()
        line = "".join(letter if letter.isprintable() else "?" for letter in lines[-1][:500]) if lines else ""
        return line or f"it ended with {code}"

    def close(self) -> None:
        """Let the end be seen; a grandchild of the command may keep its end open, so it is not waited for long."""
        if self._write >= 0:
            os.close(self._write)
            self._write = -1
        self._thread.join(2)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


class Peer:
    """A sampan there, for the length of a `with` block."""

    def __init__(self, host: Host) -> None:
        self._errors = Complaints()
        self._host = host
        try:
            words = ("sampan", "system", "dial-stdio")
            self._process = host.start(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors.take())
        except BaseException:
            self._errors.close()
            raise

    def __enter__(self) -> Pipe:
        try:
            return self._greeted()
        except BaseException as exc:
            self.__exit__(type(exc), exc, exc.__traceback__)
            raise

    def _greeted(self) -> Pipe:
        """Give the pipe once the other side has said that it is a sampan."""
        assert self._process.stdin and self._process.stdout
        pipe = Pipe(self._process.stdout.fileno(), self._process.stdin.fileno(), self._host.shown)
        try:
            version = pipe.receive().get("sampan")
        except Unavailable:
            try:
                code = self._process.wait(_LEAVE)
            except subprocess.TimeoutExpired:
                raise Unavailable(f"cannot run sampan on {self._host.shown}: it closed its output") from None
            raise Unavailable(f"cannot run sampan on {self._host.shown}: {self._errors.last(code)}") from None
        if version != VERSION:
            shown = str(version)[:40]
            raise Unavailable(f"{self._host.shown} has a sampan that speaks version {shown}, not {VERSION}")
        return pipe

    def interrupt(self) -> None:
        """Break the connection off."""
        self._process.kill()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, where: TracebackType | None
    ) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        if kind is not None:
            self._process.kill()
        self._process.wait()
        self._errors.close()


# ---- docker and podman ----


def load_into(host: Host, engine: str, content: Blobs, manifest: str, names: Sequence[str]) -> int:
    """Give an image to the docker or podman of a host, without the layers that it has; give how many were sent.

    Docker looks for a layer by its chain before it reads its archive, so what is there may be left out; an engine
    that wants it all the same gets the whole archive.
    """
    document = documents.parse_manifest(content.read(manifest))
    if document["config"]["mediaType"] not in documents.CONFIGS:
        shown = names[0] if names else manifest
        raise NotSupported(
            f"cannot copy {shown} to {host.shown}: it is an artifact, and {engine} takes images",
            f"sampan on {host.shown} takes artifacts too",
        )
    there = _chains(host, engine)
    chosen = _Archive(content, document, names)
    missing = [digest for digest, chain in chosen.layers if chain not in there]
    if len(missing) < len(chosen.layers):
        try:
            _send(host, engine, chosen, set(missing))
            return len(missing)
        except Unavailable:
            missing = [digest for digest, _ in chosen.layers]
    _send(host, engine, chosen, set(missing))
    return len(missing)


def _chains(host: Host, engine: str) -> set[str]:
    """Ask which stacks of layers an engine has, by chain id: every lower part of an image's stack is one too."""
    said = host.ask([engine, "image", "ls", "--quiet", "--no-trunc"]).split()
    ids = [one for one in dict.fromkeys(said) if digests.is_valid(one)][:_IMAGES]
    found: set[str] = set()
    for start in range(0, len(ids), _AT_ONCE):
        words = [engine, "image", "inspect", "--format", "{{json .RootFS.Layers}}", *ids[start : start + _AT_ONCE]]
        for line in host.ask(words).splitlines():
            layers = jsontext.loads(line, f"what {engine} says of its layers")
            if isinstance(layers, list) and all(map(digests.is_valid, layers)):
                found.update(_stack(layers))
    return found


def _stack(diff_ids: Sequence[str]) -> list[str]:
    """Give the chain id of each layer, lowest first (image-spec config.md, "Layer ChainID")."""
    chains: list[str] = []
    for diff_id in diff_ids:
        chains.append(digests.of(f"{chains[-1]} {diff_id}".encode()) if chains else diff_id)
    return chains


class _Archive:
    """An image as `docker load` reads it; `layers` are (digest, chain id up to it)."""

    def __init__(self, content: Blobs, document: dict[str, Any], names: Sequence[str]) -> None:
        self.content = content
        self.config: str = document["config"]["digest"]
        diff_ids = documents.diff_ids(documents.parse_config(content.read(self.config)))
        blobs = [str(layer["digest"]) for layer in document["layers"]]
        self.layers = list(zip(blobs, _stack(diff_ids), strict=True))
        self.entry = {
            "Config": layout.blob_name(self.config),
            "RepoTags": [reference.parse(name).familiar() for name in names] or None,
            "Layers": [layout.blob_name(digest) for digest, _ in self.layers],
        }


def _send(host: Host, engine: str, archive: _Archive, wanted: set[str]) -> None:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as source, Complaints() as errors:
        process = host.start([engine, "load"], stdin=source, stdout=subprocess.DEVNULL, stderr=errors.take())
        source.close()
        failed: Unavailable | None = None
        try:
            _write(archive, wanted, write)
        except Unavailable as exc:
            failed = exc  # it stopped reading: its own complaint is better
        except BaseException:
            process.kill()  # a part of an archive is nothing to load
            process.wait()
            raise
        finally:
            os.close(write)
        code = process.wait()
        if code or failed is not None:
            raise Unavailable(f"cannot load into {engine} on {host.shown}: {errors.last(code)}")


def _write(archive: _Archive, wanted: set[str], fd: int) -> None:
    tar = TarWriter(lambda data: write_all(fd, data))
    data = jsontext.dumps([archive.entry])
    tar.add(Entry("F", dockerarchive.MANIFEST.encode(), 0o644, size=len(data)), ((0, data),))
    for digest in dict.fromkeys([archive.config, *(one for one, _ in archive.layers if one in wanted)]):
        source = archive.content.open(digest)
        try:
            size = os.fstat(source).st_size
            entry = Entry("F", layout.blob_name(digest).encode(), 0o644, size=size)
            tar.add_sent(entry, lambda s=source, n=size, d=digest: send(fd, s, n, f"blob {d}"))  # type: ignore[misc]
        finally:
            os.close(source)
    tar.close()
