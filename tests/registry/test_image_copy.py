"""`image copy` between every kind of place, with a real registry, a real ssh server, skopeo and docker."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import dockersupport
import pytest
import sshsupport
import transfersupport as ts
from lyingregistry import lying
from registrysupport import Registry, needs_registry, needs_skopeo, skopeo

import sampan
from sampan.errors import InvalidArgument, NotFound, NotSupported, SampanError, Unavailable
from sampan.store import owner
from sampan.transfer.events import Event
from sampan.transfer.ssh import Host


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[sshsupport.Host]:
    if sshsupport.MISSING:
        pytest.skip(sshsupport.MISSING)
    with sshsupport.running(tmp_path / "ssh") as running:
        running.put_sampan()
        monkeypatch.setenv("SAMPAN_SSH", running.words)
        yield running


@pytest.fixture
def filled(engine: sampan.Engine, tmp_path: Path) -> sampan.Engine:
    """An engine with `app:1` of two layers, and `app:2`, which has one more."""
    engine.bootstrap("host", "base", ["sh", "cat"])
    build(engine, tmp_path, "app:1", "FROM base\nCOPY file /file\n")
    build(engine, tmp_path, "app:2", "FROM app:1\nRUN echo more > /more\n")
    return engine


def build(engine: sampan.Engine, tmp_path: Path, name: str, text: str) -> None:
    context = tmp_path / "context"
    context.mkdir(exist_ok=True)
    (context / "file").write_bytes(bytes(range(256)) * 4000)
    (context / "Dockerfile").write_text(text)
    engine.build(str(context), tags=[name])


def layers(engine: sampan.Engine, name: str) -> list[str]:
    return engine.images.resolve(name).diff_ids


def moved(events: list[Event]) -> int:
    return sum(event.kind == "begin" for event in events)


# ---- layouts and archives ----


def test_a_layout_is_written_named_and_read_back(
    filled: sampan.Engine, make_engine: Callable[[], sampan.Engine], tmp_path: Path
) -> None:
    place = tmp_path / "layout"
    done = filled.images.copy("app:1", f"oci:{place}")
    assert done.digest == filled.images.resolve("app:1").manifest_digest
    filled.images.copy("app:2", f"oci:{place}:app:2")
    filled.images.copy("app:2", f"oci:{place}:app:2")  # again: nothing changes
    index = json.loads((place / "index.json").read_text())
    assert len(index["manifests"]) == 2
    other = make_engine()
    other.images.copy(f"oci:{place}:app:2", "fresh:1")
    assert layers(other, "fresh:1") == layers(filled, "app:2")
    assert other.run("fresh:1", ["cat", "/more"]).stdout == b"more\n"
    with pytest.raises(InvalidArgument, match="several images"):
        other.images.copy(f"oci:{place}", "fresh:2")
    with pytest.raises(NotFound, match="no such image"):
        other.images.copy(f"oci:{place}:nothing:7", "fresh:2")


@needs_skopeo
def test_skopeo_reads_the_layout_and_we_read_its(filled: sampan.Engine, tmp_path: Path) -> None:
    filled.images.copy("app:1", f"oci:{tmp_path}/ours")
    shown = json.loads(skopeo("inspect", f"oci:{tmp_path}/ours:1"))
    assert shown["Layers"] == layers(filled, "app:1")
    skopeo("copy", "-q", f"oci:{tmp_path}/ours:1", f"oci:{tmp_path}/theirs:seven")
    filled.images.copy(f"oci:{tmp_path}/theirs:seven", "back:1")
    assert layers(filled, "back:1") == layers(filled, "app:1")
    for name in ("odd", "app:7", "example.org/app:7"):
        filled.images.copy("app:1", f"oci:{tmp_path}/ours:{name}")
        filled.images.copy("app:2", f"oci:{tmp_path}/ours:{name}")  # replaced, not there twice
        shown = json.loads(skopeo("inspect", f"oci:{tmp_path}/ours:{name}"))
        assert shown["Layers"] == layers(filled, "app:2")
        filled.images.copy(f"oci:{tmp_path}/ours:{name}", "back:2")
        assert layers(filled, "back:2") == layers(filled, "app:2")


def test_an_archive_is_what_save_writes(
    filled: sampan.Engine, make_engine: Callable[[], sampan.Engine], tmp_path: Path
) -> None:
    filled.images.copy("app:2", f"oci-archive:{tmp_path}/copied.tar")
    with open(tmp_path / "saved.tar", "wb") as file:
        filled.images.save(["app:2"], file.fileno())
    assert (tmp_path / "copied.tar").read_bytes() == (tmp_path / "saved.tar").read_bytes()
    other = make_engine()
    other.images.copy(f"oci-archive:{tmp_path}/copied.tar", "x:1")
    assert layers(other, "x:1") == layers(filled, "app:2")
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".sampan-")} == set()


def test_an_archive_in_the_making_has_no_name_and_neither_has_what_goes_into_it(
    filled: sampan.Engine, tmp_path: Path
) -> None:
    seen: list[list[str]] = []
    copied = tmp_path / "copied"
    copied.mkdir()
    filled.images.copy("app:2", f"oci-archive:{copied}/a.tar", listen=lambda event: seen.append(os.listdir(copied)))
    assert len(seen) > 3 and not any(seen) and os.listdir(copied) == ["a.tar"]


def test_a_copy_takes_away_what_a_killed_one_left(filled: sampan.Engine, tmp_path: Path) -> None:
    place = tmp_path / "layout"
    left = f".sampan-{owner.boot_id()}.{owner.this_process().split('.')[1]}.4194303.1.abcd"
    living = f".sampan-{owner.this_process()}.abcd"
    (place / "blobs/sha256").mkdir(parents=True)
    for directory in (tmp_path, place, place / "blobs/sha256"):
        for name in (left, living):
            (directory / name).touch()
    filled.images.copy("app:2", f"oci:{place}")
    filled.images.copy("app:2", f"oci-archive:{tmp_path}/a.tar")
    for directory in (tmp_path, place, place / "blobs/sha256"):
        assert [name for name in os.listdir(directory) if name.startswith(".")] == [living]


def test_a_copy_of_what_is_nowhere_makes_no_layout(filled: sampan.Engine, tmp_path: Path) -> None:
    with lying() as registry:
        for source in (f"docker://{registry.host}/nope", f"docker://{registry.host}/app:2", "nope"):
            with pytest.raises(SampanError):
                filled.images.copy(source, f"oci:{tmp_path}/below/layout")
    assert not (tmp_path / "below").exists()


def test_a_copy_that_fails_can_be_repeated(filled: sampan.Engine, tmp_path: Path) -> None:
    place = tmp_path / "layout"
    filled.images.copy("app:2", f"oci:{place}")
    blob = place / "blobs/sha256" / layers(filled, "app:2")[-1][7:]
    whole = blob.read_bytes()
    blob.write_bytes(whole[:600] + bytes([whole[600] ^ 1]) + whole[601:])
    with pytest.raises(SampanError, match="another digest|digest"):
        filled.images.copy(f"oci:{place}", f"oci:{tmp_path}/second:x:1")
    assert not (tmp_path / "second").exists()
    blob.write_bytes(whole)
    filled.images.copy(f"oci:{place}", f"oci:{tmp_path}/second:x:1")
    assert filled.images.load(f"{tmp_path}/second") == ["Loaded image: x:1"]
    filled.images.remove("x:1")


# ---- registries ----


@needs_registry
def test_between_registries_layouts_and_the_store(
    filled: sampan.Engine, make_engine: Callable[[], sampan.Engine], plain: Registry, tmp_path: Path
) -> None:
    done = filled.images.copy("app:2", f"docker://{plain.host}/copy/app:2")
    other = make_engine()
    other.images.copy(f"docker://{plain.host}/copy/app:2", f"docker://{plain.host}/copy/second:7")
    assert plain.tags("copy/second") == {"7"}
    assert other.images.ls() == []  # nothing passed through the store
    other.images.copy(f"docker://{plain.host}/copy/second:7", f"oci:{tmp_path}/layout:app:7")
    assert other.images.copy(f"oci:{tmp_path}/layout", "here:1").digest == done.digest
    assert layers(other, "here:1") == layers(filled, "app:2")
    other.images.copy(f"oci:{tmp_path}/layout", f"docker://{plain.host}/copy/third:1")
    assert plain.tags("copy/third") == {"1"}


# ---- other hosts ----


def test_only_missing_blobs_travel_to_another_host(
    filled: sampan.Engine, host: sshsupport.Host, make_engine: Callable[[], sampan.Engine]
) -> None:
    events: list[Event] = []
    filled.images.copy("app:1", f"{host.address}/there/app:1", listen=events.append)
    assert moved(events) == 3  # config and two layers
    events.clear()
    filled.images.copy("app:2", f"{host.address}/there/app:2", listen=events.append)
    assert moved(events) == 2  # config and the new layer
    other = sampan.Engine(str(host.store))
    assert other.run("there/app:2", ["cat", "/more"]).stdout == b"more\n"
    other.close()
    fresh = make_engine()
    events.clear()
    fresh.images.copy(f"{host.address}/there/app:2", "mine:1", listen=events.append)
    assert layers(fresh, "mine:1") == layers(filled, "app:2")
    events.clear()
    fresh.images.copy(f"{host.address}/there/app:1", "mine:2", listen=events.append)
    assert moved(events) <= 1


def test_an_artifact_goes_to_another_host_and_back(
    engine: sampan.Engine, make_engine: Callable[[], sampan.Engine], host: sshsupport.Host, tmp_path: Path
) -> None:
    layout = ts.Layout()
    config = layout.blob(b"not json", "application/vnd.example.config")
    layers = [layout.blob(b"any bytes", "application/vnd.example.data")]
    manifest = {"schemaVersion": 2, "mediaType": ts.MANIFEST, "config": config, "layers": layers}
    layout.add(layout.document(manifest, ts.MANIFEST))
    digest = engine.images.copy(f"oci:{ts.write_tree(tmp_path / 'layout', layout.build())}", "thing:1").digest
    assert engine.images.copy("thing:1", f"{host.address}/there:1").digest == digest
    other = make_engine()
    assert other.images.copy(f"{host.address}/there:1", "back:1").digest == digest
    assert [other.store.content.read(ts.digest(data)) for data in (b"not json", b"any bytes")]
    (host.programs / "sampan").unlink()
    host.put("docker", "exit 1")
    with pytest.raises(NotSupported, match="thing:1 to 127.0.0.1:.*: it is an artifact, and docker takes images"):
        engine.images.copy("thing:1", f"{host.address}/thing:1")


def test_what_the_other_host_says_is_told(filled: sampan.Engine, host: sshsupport.Host) -> None:
    with pytest.raises(NotFound, match="no such image: nothing"):
        filled.images.copy(f"{host.address}/nothing:1", "x:1")
    host.put("sampan", "echo it is broken >&2; exit 3")
    with pytest.raises(Unavailable, match="it is broken"):
        filled.images.copy("app:1", f"{host.address}/there/app:1")
    (host.programs / "sampan").unlink()
    with pytest.raises(NotFound, match="none of sampan, docker, podman"):
        filled.images.copy("app:1", f"{host.address}/there/app:1")


def test_a_lying_host_is_not_believed(
    filled: sampan.Engine, host: sshsupport.Host, make_engine: Callable[[], sampan.Engine], tmp_path: Path
) -> None:
    filled.images.copy("app:2", f"{host.address}/there/app:2")
    blob = host.store / "oci/blobs/sha256" / layers(filled, "app:2")[-1][7:]
    data = bytearray(blob.read_bytes())
    data[600] ^= 1
    os.chmod(blob, 0o600)
    blob.write_bytes(data)
    fresh = make_engine()
    with pytest.raises(SampanError, match="digest"):
        fresh.images.copy(f"{host.address}/there/app:2", "mine:1")
    assert fresh.images.ls() == []


def test_a_host_that_goes_away_leaves_nothing_named(filled: sampan.Engine, host: sshsupport.Host) -> None:
    host.put("sampan", "head -c 300 >/dev/null & printf '{\"sampan\":1}\\n'; sleep 0.2; kill $!; exit 0")
    with pytest.raises(Unavailable, match="ended the connection"):
        filled.images.copy("app:1", f"{host.address}/there/app:1")


@pytest.mark.parametrize("says", ["Welcome to this host", '{\\"sampan\\": 7}', "[]"])
def test_a_host_that_greets_otherwise_is_let_go(
    filled: sampan.Engine, host: sshsupport.Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    """The command that speaks to it has ended with the error, not some time later."""
    host.put("sampan", f"printf '%s\\n' \"{says}\"; exec sleep 100")
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f'#!/bin/sh\necho $$ >> {tmp_path}/pids\nexec {host.words} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("SAMPAN_SSH", str(wrapper))
    with pytest.raises(SampanError):
        filled.images.copy("app:1", f"{host.address}/there/app:1")
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2 and not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


def test_another_hosts_docker_gives_one_image_and_no_name(
    filled: sampan.Engine, host: sshsupport.Host, make_engine: Callable[[], sampan.Engine], tmp_path: Path
) -> None:
    """A hostile host answers `docker save` with an archive that calls itself what we have already."""
    fresh = make_engine()
    filled.images.copy("app:1", f"oci:{tmp_path}/seen:app:1")
    fresh.images.copy(f"oci:{tmp_path}/seen", "base:latest")
    before = fresh.images.resolve("base").id
    for names, archive in ((["base"], "one"), (["base", "app:2"], "two")):
        with open(tmp_path / archive, "wb") as file:
            filled.images.save(names, file.fileno())
    (host.programs / "sampan").unlink()
    host.put("docker", f"exec cat {tmp_path}/one")
    (host.programs / "cat").symlink_to("/bin/cat")
    fresh.images.copy(f"{host.address}/base", "got:1")
    assert fresh.images.resolve("base").id == before and layers(fresh, "got:1") == layers(filled, "base")
    with open(tmp_path / "one", "rb") as file:  # the control: what `load` does with the same archive
        fresh.images.load(file.fileno())
    assert fresh.images.resolve("base").id != before
    host.put("docker", "echo reference does not exist >&2; exit 1")
    with pytest.raises(
        NotFound, match=r"cannot copy none:1 from the docker of 127.0.0.1:\d+: reference does not exist"
    ):
        fresh.images.copy(f"{host.address}/none:1", "got:2")
    host.put("docker", f"exec cat {tmp_path}/two")
    with pytest.raises(SampanError, match="it holds 2 images"):
        fresh.images.copy(f"{host.address}/base", "got:2")


@pytest.mark.parametrize(
    ("ls", "why"),
    [
        ("while :; do printf %070000d 1; done", "docker on 127.0.0.1:.* sends an answer without end"),
        (
            "while :; do printf %070000d 1 >&2; done & sleep 1; kill $!; wait $!; echo >&2; echo broken >&2; exit 3",
            "broken$",
        ),
    ],
)
def test_what_another_host_says_has_an_end(filled: sampan.Engine, host: sshsupport.Host, ls: str, why: str) -> None:
    (host.programs / "sampan").unlink()
    host.put("docker", ls)
    with pytest.raises(Unavailable, match=why):
        filled.images.copy("app:1", f"{host.address}/there/app:1")


def test_a_host_with_very_many_images_is_asked_in_pieces(
    filled: sampan.Engine, host: sshsupport.Host, tmp_path: Path
) -> None:
    """One argument has at most 128 KiB: the ids of 2,500 images are more."""
    ids = "".join(f"sha256:{number:064x}\n" for number in range(2500))
    (tmp_path / "ids").write_text("<none>\n" + ids + ids)
    (host.programs / "sampan").unlink()
    (host.programs / "cat").symlink_to("/bin/cat")
    there, asked = f"exec cat {tmp_path}/ids", f'echo "$#" >>{tmp_path}/asked; echo null; echo {{}}'
    host.put("docker", f'case "$2" in ls) {there};; inspect) {asked};; *) cat >/dev/null;; esac')
    filled.images.copy("app:1", f"{host.address}/there/app:1")
    assert (tmp_path / "asked").read_text().split() == ["1004", "1004", "504"]


@pytest.mark.parametrize("linked", ["blobs", "blobs/sha256"])
def test_a_layouts_directory_does_not_choose_where_blobs_go(filled: sampan.Engine, tmp_path: Path, linked: str) -> None:
    """Whoever else may write in it makes a link to, say, /etc/cron.d, and brings the image whose blob is written."""
    place, elsewhere = tmp_path / "layout" / linked, tmp_path / "elsewhere"
    place.parent.mkdir(parents=True)
    elsewhere.mkdir()
    place.symlink_to(elsewhere)
    with pytest.raises(SampanError, match="cannot make the image layout"):
        filled.images.copy("app:1", f"oci:{tmp_path}/layout:app:1")
    assert list(elsewhere.iterdir()) == []


def test_a_link_in_place_of_a_blob_is_replaced(filled: sampan.Engine, tmp_path: Path) -> None:
    filled.images.copy("app:1", f"oci:{tmp_path}/layout:app:1")
    blob = tmp_path / "layout/blobs/sha256" / layers(filled, "app:1")[-1][7:]
    content = blob.read_bytes()
    blob.unlink()
    (tmp_path / "victim").write_bytes(bytes(len(content)))  # the same size
    blob.symlink_to(tmp_path / "victim")
    filled.images.copy("app:1", f"oci:{tmp_path}/layout:app:1")
    assert blob.read_bytes() == content and not blob.is_symlink()
    assert (tmp_path / "victim").read_bytes() == bytes(len(content))


def test_nothing_of_a_name_reaches_a_shell_or_becomes_an_option() -> None:
    odd = ("$(touch x)@host", "u`id`@host", "h;id", "h|id", "a b@host", "h'i", "a@b@h$x")  # %r, %h in a ProxyCommand
    for text in ("-oProxyCommand=touch x", "user@-x", "-x@host", "", "host:22x", *odd):
        with pytest.raises(InvalidArgument):
            Host(text, {})
    assert Host("[::1]:22", {})._words[-1] == "::1"
    started = Host("h", {"SAMPAN_SSH": "echo"}).start(["a", "b; touch x", "$(c)"], stdout=subprocess.PIPE)
    assert started.communicate()[0] == b"-T -- h a 'b; touch x' '$(c)'\n"


@pytest.mark.skipif(bool(dockersupport.NEEDS), reason=dockersupport.NEEDS)
def test_docker_on_the_other_host_gets_missing_layers_only(
    filled: sampan.Engine, host: sshsupport.Host, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with dockersupport.Docker(tmp_path_factory.mktemp("docker")) as docker:
        (host.programs / "sampan").unlink()
        host.put("docker", f'export DOCKER_HOST={docker.env["DOCKER_HOST"]}; exec /usr/bin/env docker-client "$@"')
        client = subprocess.run(["sh", "-c", "command -v docker"], capture_output=True, text=True, check=True).stdout
        (host.programs / "docker-client").symlink_to(client.strip())
        events: list[Event] = []
        filled.images.copy("app:1", f"{host.address}/there/app:1", listen=events.append)
        filled.images.copy("app:2", f"{host.address}/there/app:2", listen=events.append)
        assert [event.text for event in events] == ["2 of 2 layers were sent", "1 of 3 layers were sent"]
        run = ["run", "--rm", "--network", "none", "there/app:2", "cat", "/more"]
        assert docker(*run) == "more\n"
        filled.images.copy(f"{host.address}/there/app:2", "back:1")
        assert layers(filled, "back:1") == layers(filled, "app:2")
        with pytest.raises(NotSupported, match="cannot copy between oci:"):
            filled.images.copy(f"oci:{tmp_path}", f"{host.address}/there/app:3")


def test_the_command(filled: sampan.Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sampan.cli.main import main

    root = ["--root", filled.store.paths.root]
    assert main([*root, "image", "copy", "app:1", f"oci-archive:{tmp_path}/a.tar"]) == 0
    assert "app:1: digest: sha256:" in capsys.readouterr().out
    with tarfile.open(tmp_path / "a.tar") as archive:
        assert "manifest.json" in archive.getnames()
    assert main([*root, "image", "copy", "app:1", f"oci-archive:{tmp_path}/none/a.tar"]) == 1
    assert "there is no directory" in capsys.readouterr().err
    assert main([*root, "image", "copy", "app:9", f"oci:{tmp_path}/l"]) == 1
    assert main([*root, "image", "copy", "oci:", "x"]) == 1


def test_a_name_with_a_digest_takes_away_no_other_image(
    filled: sampan.Engine, plain: Registry, tmp_path: Path, make_engine: Callable[[], sampan.Engine]
) -> None:
    """An image without a name stays in index.json, and nobody gets `latest`."""
    filled.images.tag("app:1", f"{plain.host}/app:1")
    (pushed,) = filled.images.push(f"{plain.host}/app:1")
    filled.images.copy("app:2", f"oci:{tmp_path}/out")
    index = tmp_path / "out/index.json"
    document = json.loads(index.read_text())
    del document["manifests"][0]["annotations"]
    index.write_text(json.dumps(document))
    name = f"{plain.host}/app@{pushed.digest}"
    filled.images.copy(f"docker://{name}", f"oci:{tmp_path}/out")
    there = json.loads(index.read_text())["manifests"]
    assert [one.get("annotations") for one in there] == [None, {"io.containerd.image.name": name}]
    filled.images.copy(f"docker://{name}", f"oci-archive:{tmp_path}/one.tar")
    fresh = make_engine()
    fresh.images.load(f"{tmp_path}/one.tar")
    assert fresh.store.db.query("SELECT name FROM image_references") == []
    fresh.images.copy(f"oci:{tmp_path}/out:{name}", "chosen:1")
    assert fresh.images.resolve("chosen:1").manifest_digest == pushed.digest
