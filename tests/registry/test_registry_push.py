"""Push to a real registry: what was pulled goes back as it came, what was built is the same every time."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import transfersupport as ts
from registrysupport import Registry, needs_registry, needs_skopeo, running, skopeo

import sampan
from sampan.engine import imagetrees
from sampan.errors import BuildError, InvalidArgument, NotFound, NotSupported, SampanError

pytestmark = [needs_registry, needs_skopeo]


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sampan.Engine]:
    """A store with an image that was built here."""
    top = tmp_path_factory.mktemp("builder")
    base = tmp_path_factory.getbasetemp()  # whose parent is nobody's to change where --basetemp named it
    for path in (top, base, *([base.parent] if base.parent.name.startswith("pytest-of-") else [])):
        path.chmod(0o711)
    (top / "context").mkdir()
    (top / "context/Dockerfile").write_text(
        'FROM base\nRUN mkdir /made && echo made > /made/file && ln -s file /made/link\nCMD ["cat", "/made/file"]\n'
    )
    engine = sampan.Engine(str(top / "store"))
    engine.bootstrap("host", "base", ["sh", "cat", "mkdir", "ln"])
    engine.build(str(top / "context"), tags=["built:1"])
    yield engine
    engine.close()


def sent(registry: Registry, since: int) -> list[str]:
    """Requests that carried content, from the registry's log."""
    log = registry.log.read_bytes()[since:].decode()
    return re.findall(r'"((?:PATCH|PUT|POST) /v2/\S+)', log)


def test_what_was_built_comes_back_and_runs(plain: Registry, builder: sampan.Engine, engine: sampan.Engine) -> None:
    name = f"{plain.host}/push/built:1"
    builder.images.tag("built:1", name)
    (pushed,) = builder.images.push(name)
    (pulled,) = engine.images.pull(name)
    assert pushed.digest == pulled.digest == skopeo("inspect", "--tls-verify=false", "--format", "{{.Digest}}",
                                                    f"docker://{name}").strip()  # fmt: skip
    assert ts.trees(builder, name) == ts.trees(engine, name)
    assert builder.images.resolve(name).id == engine.images.resolve(name).id
    assert engine.run(name).stdout == b"made\n"


def test_what_is_there_is_not_sent_again(plain: Registry, builder: sampan.Engine) -> None:
    name = f"{plain.host}/push/again:1"
    builder.images.tag("built:1", name)
    builder.images.push(name)
    before = plain.log.stat().st_size
    builder.images.push(name)
    assert [word.rpartition("/")[0].rpartition("/")[2] for word in sent(plain, before)] == ["manifests"]
    before = plain.log.stat().st_size
    builder.images.pull(name)  # under the digest that it was pushed with, it is here
    assert "GET /v2/push/again" not in plain.log.read_bytes()[before:].decode()


def test_another_repository_of_the_registry_lends_its_blobs(plain: Registry, builder: sampan.Engine) -> None:
    names = [f"{plain.host}/push/{one}:1" for one in ("lender", "borrower")]
    for name in names:
        builder.images.tag("built:1", name)
    builder.images.push(names[0])
    before = plain.log.stat().st_size
    builder.images.push(names[1])
    requests = sent(plain, before)
    assert [word for word in requests if word.startswith("PATCH")] == []
    assert len([word for word in requests if "mount=" in word]) >= 2


def test_the_same_image_gives_the_same_digest_from_two_stores(
    plain: Registry, make_engine: Callable[[], sampan.Engine], tmp_path: Path
) -> None:
    digests = set()
    for number in range(2):
        engine = make_engine()
        engine.images.load(str(ts.write_tree(tmp_path / f"layout{number}", ts.simple_layout().build())))
        engine.images.tag("app:1", f"{plain.host}/push/same{number}:1")
        digests.add(engine.images.push(f"{plain.host}/push/same{number}:1")[0].digest)
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("kind", "suffix"), [("oci", ""), ("oci", "+gzip"), ("oci", "+zstd"), ("v2s2", ""), ("v2s2", "+gzip")]
)
def test_what_was_pulled_goes_back_byte_by_byte(
    plain: Registry, engine: sampan.Engine, tmp_path: Path, suffix: str, kind: str
) -> None:
    made = zstd_layout() if suffix == "+zstd" else ts.simple_layout(suffix=suffix)
    layout = ts.write_tree(tmp_path / "layout", made.build())
    name = f"{plain.host}/push/back-{kind}{suffix.replace('+', '-')}"
    skopeo("copy", "-q", "--dest-tls-verify=false", "--format", kind, f"oci:{layout}", f"docker://{name}:1")
    (pulled,) = engine.images.pull(f"{name}:1")
    engine.images.tag(f"{name}:1", f"{name}-again:1")
    (pushed,) = engine.images.push(f"{name}-again:1")
    assert pushed.digest == pulled.digest


def zstd_layout() -> ts.Layout:
    import zstandard

    layout = ts.Layout()
    layers = [(zstandard.compress(data), "+zstd") for data in (ts.BASE, ts.TOP)]
    layout.add(layout.image(layers, ts.config([ts.BASE, ts.TOP])), "docker.io/library/app:1")
    return layout


def test_all_tags_and_wrong_words(plain: Registry, builder: sampan.Engine) -> None:
    for tag in ("1", "2"):
        builder.images.tag("built:1", f"{plain.host}/push/tags:{tag}")
    assert [one.reference.tag for one in builder.images.push(f"{plain.host}/push/tags", all_tags=True)] == ["1", "2"]
    assert plain.tags("push/tags") == {"1", "2"}
    with pytest.raises(NotFound, match="no such image") as caught:
        builder.images.push(f"{plain.host}/push/nothing")
    assert caught.value.hint == f"name what is here: sampan tag IMAGE {plain.host}/push/nothing:latest"
    with pytest.raises(NotFound, match="no image has that name"):
        builder.images.push(f"{plain.host}/push/nothing", all_tags=True)
    with pytest.raises(InvalidArgument, match="it has a digest"):
        builder.images.push(f"{plain.host}/push/tags@{builder.images.resolve('built:1').manifest_digest}")


def test_an_artifact_passes_through(plain: Registry, engine: sampan.Engine, tmp_path: Path) -> None:
    layout = ts.Layout()
    manifest = {
        "schemaVersion": 2,
        "mediaType": ts.MANIFEST,
        "artifactType": "application/vnd.example.thing",
        "config": layout.blob(b"{}", "application/vnd.oci.empty.v1+json"),
        "layers": [layout.blob(b"any bytes", "application/vnd.example.data")],
    }
    layout.add(layout.document(manifest, ts.MANIFEST))
    source = ts.write_tree(tmp_path / "layout", layout.build())
    name = f"{plain.host}/push/artifact:1"
    skopeo("copy", "-q", "--dest-tls-verify=false", "--preserve-digests", f"oci:{source}", f"docker://{name}")
    (pulled,) = engine.images.pull(name)
    engine.images.tag(name, f"{plain.host}/push/artifact:2")
    assert engine.images.push(f"{plain.host}/push/artifact:2")[0].digest == pulled.digest
    with pytest.raises(NotSupported, match="is an artifact"):
        engine.run(name, ["x"])
    with pytest.raises(NotSupported, match="/push/artifact:1: it is an artifact"):
        imagetrees.diff(engine, name, name)
    for line in (f"FROM {name}", f"FROM scratch\nCOPY --from={name} / /"):
        (tmp_path / "Dockerfile").write_text(line + "\n")
        with pytest.raises(BuildError, match="/push/artifact:1: it is an artifact"):
            engine.build(tmp_path)


def test_an_artifact_goes_through_layouts_and_archives(
    plain: Registry, make_engine: Callable[[], sampan.Engine], tmp_path: Path
) -> None:
    layout = ts.Layout()
    manifest = {
        "schemaVersion": 2,
        "mediaType": ts.MANIFEST,
        "config": layout.blob(b"not json", "application/vnd.example.config"),
        "layers": [layout.blob(b"any bytes", "application/vnd.example.data")],
    }
    layout.add(layout.document(manifest, ts.MANIFEST))
    source = ts.write_tree(tmp_path / "layout", layout.build())
    engine, other = make_engine(), make_engine()
    digest = engine.images.copy(f"oci:{source}", "thing:1").digest
    with open(tmp_path / "archive", "wb") as file:
        engine.images.save(["thing:1"], file.fileno())
    assert other.images.load(str(tmp_path / "archive")) == ["Loaded image: thing:1"]
    assert other.images.copy("thing:1", f"docker://{plain.host}/push/thing:1").digest == digest
    (tmp_path / "layout" / "blobs/sha256" / ts.digest(b"any bytes")[7:]).write_bytes(b"other bytes")
    with pytest.raises(SampanError):
        other.images.load(str(tmp_path / "layout"))


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("podman"), reason="needs root and podman")
def test_podman_pulls_what_was_pushed_and_sends_it_back(
    plain: Registry, builder: sampan.Engine, engine: sampan.Engine, tmp_path: Path
) -> None:
    from test_transfer_engines import Podman

    name = f"{plain.host}/push/podman:1"
    builder.images.tag("built:1", name)
    builder.images.push(name)
    with tempfile.TemporaryDirectory(prefix="sampan-podman-") as runs:
        podman = Podman(tmp_path, runs)
        podman("pull", "-q", "--tls-verify=false", name)
        podman("tag", name, f"{plain.host}/push/podman:2")
        podman("push", "-q", "--tls-verify=false", f"{plain.host}/push/podman:2")
    engine.images.pull(f"{plain.host}/push/podman:2")
    assert ts.trees(engine, f"{plain.host}/push/podman:2") == ts.trees(builder, name)


def test_skopeo_reads_it_into_a_layout_with_the_same_digests(
    plain: Registry, builder: sampan.Engine, tmp_path: Path
) -> None:
    name = f"{plain.host}/push/skopeo:1"
    builder.images.tag("built:1", name)
    (pushed,) = builder.images.push(name)
    skopeo("copy", "-q", "--preserve-digests", "--src-tls-verify=false", f"docker://{name}", f"oci:{tmp_path}/out:1")
    assert (tmp_path / "out/blobs/sha256" / pushed.digest[7:]).exists()
    skopeo("copy", "-q", f"oci:{tmp_path}/out:1", f"docker-archive:{tmp_path}/x.tar")  # decompresses every layer


def test_a_layer_that_now_compresses_to_other_bytes_is_pushed_all_the_same(
    tmp_path: Path, builder: sampan.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest that is remembered is of igzip; the next push, to a registry without it, has zlib alone."""
    digests = set()
    for number in range(2):
        with running(tmp_path / str(number)) as registry:
            name = f"{registry.host}/push/other:1"
            builder.images.tag("built:1", name)
            (pushed,) = builder.images.push(name)
            digests.add(pushed.digest)
            assert registry.tags("push/other") == {"1"}
        monkeypatch.setitem(sys.modules, "isal", None)
    assert len(digests) == 2
