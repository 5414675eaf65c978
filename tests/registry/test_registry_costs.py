"""What a pull of one small layer may cost, in counts, which a busy machine does not change."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import transfersupport as ts
from lyingregistry import LyingRegistry, lying

import sampan

ROOT = Path(__file__).parent.parent.parent
SYNCS = ("fsync", "fdatasync", "sync", "syncfs", "sync_file_range", "msync")
CODE = "import sys; sys.path += [sys.argv[1], sys.argv[2]]; del sys.argv[1:3]; from sampan import bundle; "
CODE += "bundle.install(); from sampan.cli.main import main; status = main(sys.argv[1:]); "
CODE += "print(*sys.modules, file=sys.stderr); raise SystemExit(status)"
LIBRARIES = os.path.dirname(os.path.dirname(sys.modules["pytest"].__file__ or ""))
TOP = ts.tar_of({"more": b"one small file"})
HEAVY = {
    "urllib3",
    "http.client",
    "email",
    "ssl",
    "socket",
    "urllib.parse",
    "re",
    "ipaddress",
    "_hashlib",
    "subprocess",
}


def command(engine: sampan.Engine, *words: str) -> list[str]:
    head = [sys.executable, "-I", "-S", "-X", "utf8", "-c", CODE, str(ROOT), LIBRARIES]
    return [*head, "--root", engine.store.paths.root, *words]


def put(registry: LyingRegistry, name: str, layers: list[bytes]) -> None:
    """Put an image with compressed layers."""
    document = registry.image(layers)
    for described, layer in zip(document["layers"], layers, strict=True):
        packed = gzip.compress(layer, mtime=0)
        described |= {"mediaType": ts.LAYER + "+gzip", "digest": registry.blob(packed), "size": len(packed)}
    registry.manifest(name, "1", document)


@pytest.fixture
def registry(engine: sampan.Engine) -> Iterator[LyingRegistry]:
    """A registry with two images, of which the first is here: the second has one layer more."""
    with lying() as made:
        put(made, "kept", [ts.BASE])
        put(made, "more", [ts.BASE, TOP])
        engine.images.pull(f"{made.host}/kept:1")
        made.requests.clear()
        yield made


def test_one_layer_more_takes_four_requests(registry: LyingRegistry, engine: sampan.Engine) -> None:
    engine.images.pull(f"{registry.host}/more:1")
    kinds = [(one.method, one.path.split("/")[3]) for one in registry.requests if one.path.startswith("/v2/")]
    assert kinds == [("HEAD", "manifests"), ("GET", "manifests"), ("GET", "blobs"), ("GET", "blobs")]


def test_one_layer_more_loads_no_library_but_the_decoder(registry: LyingRegistry, engine: sampan.Engine) -> None:
    words = command(engine, "pull", "-q", f"{registry.host}/more:1")
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = set(done.stderr.split())
    assert "sampan.transfer.layers" in found
    assert not found & HEAVY
    assert len([name for name in found if not name.startswith("sampan")]) <= 85, sorted(found)
    assert len([name for name in found if name.startswith("sampan")]) <= 87 + bool(os.geteuid()), sorted(found)


def test_one_layer_more_takes_few_syncs_connections_and_processes(
    registry: LyingRegistry, engine: sampan.Engine, tmp_path: Path
) -> None:
    if os.geteuid() or not shutil.which("strace"):
        pytest.skip("needs strace and root")
    engine.store.db.query("PRAGMA wal_checkpoint(TRUNCATE)")
    trace = tmp_path / "trace"
    flags = ["strace", "-f", "-y", "-e", f"trace=connect,execve,{','.join(SYNCS)}", "-o", str(trace)]
    words = [*flags, *command(engine, "pull", "-q", f"{registry.host}/more:1")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    if "ptrace" in done.stderr.lower():
        pytest.skip(f"strace may not trace here: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    lines = [line.split(maxsplit=1)[1] for line in trace.read_text(errors="replace").splitlines()]
    lines = [line for line in lines if not line.startswith(("<...", "+++", "---"))]
    assert len([line for line in lines if line.startswith("execve(")]) == 2  # the interpreter and the helper
    assert len([line for line in lines if line.startswith("connect(")]) == 2  # does it speak TLS? and all requests
    syncs = [line for line in lines if line.startswith(SYNCS)]
    # Config, layer and manifest: each a file and the directory of its name. The unpacked files: the file system, once.
    assert len([line for line in syncs if "/oci/blobs/sha256>" in line]) == 3, syncs
    assert len([line for line in syncs if "/ingest/" in line]) == 3, syncs
    assert len([line for line in syncs if line.startswith("syncfs")]) == 1, syncs
    # The index and its directory, once for both names; the database's log, its directory, and at the end its file.
    assert len([line for line in syncs if "/oci/.new-" in line or "/oci>" in line]) == 2, syncs
    assert len(syncs) <= 13, syncs
