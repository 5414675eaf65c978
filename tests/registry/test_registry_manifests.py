"""Indexes: made of manifests in a registry, pushed, and chosen from by platform; what refers to an image."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transfersupport as ts
from lyingregistry import lying
from registrysupport import Registry, needs_registry, needs_skopeo, skopeo

import sampan
from sampan.cli.main import main
from sampan.engine import manifests
from sampan.errors import Conflict, IntegrityError, InvalidArgument, NotFound, NotSupported
from sampan.oci import image, platform

pytestmark = needs_registry


def put(engine: sampan.Engine, tmp_path: Path, name: str, **config: Any) -> str:
    """Push a small image for a platform; give its digest."""
    layout = ts.Layout()
    layers = [(ts.tar_of({"arch": config.get("architecture", "").encode()}), "")]
    layout.add(layout.image(layers, ts.config([layers[0][0]], **config)), name)
    engine.images.load(str(ts.write_tree(tmp_path / name.replace("/", "-").replace(":", "-"), layout.build())))
    return engine.images.push(name)[0].digest


@pytest.fixture
def platforms(plain: Registry, engine: sampan.Engine, tmp_path: Path) -> dict[str, str]:
    return {
        arch: put(engine, tmp_path, f"{plain.host}/multi/{arch}:1", os="linux", architecture=arch)
        for arch in ("amd64", "arm64", "s390x")
    }


@needs_skopeo
def test_a_list_is_pushed_whole_and_chosen_from(
    plain: Registry, make_engine: Callable[[], sampan.Engine], engine: sampan.Engine, platforms: dict[str, str]
) -> None:
    name = f"{plain.host}/multi/all:1"
    members = [f"{plain.host}/multi/{arch}:1" for arch in platforms]
    assert manifests.create(engine, name, members[:2]) == name
    with pytest.raises(Conflict, match="it exists"):
        manifests.create(engine, name, members[2:])
    manifests.create(engine, name, members[2:], amend=True)
    manifests.annotate(engine, name, members[1], {"variant": "v8"})
    entries = manifests.inspect(engine, name)["manifests"]
    assert [entry["digest"] for entry in entries] == list(platforms.values())
    assert entries[1]["platform"] == {"os": "linux", "architecture": "arm64", "variant": "v8"}
    assert all(not key.startswith("sampan") for entry in entries for key in entry)
    assert plain.tags("multi/all") == set()
    digest = manifests.push(engine, name, purge=True)
    assert json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}"))["manifests"] == entries
    with pytest.raises(NotFound):
        manifests.push(engine, name)
    other = make_engine()
    for arch in ("arm64", "s390x"):
        (pulled,) = other.images.pull(name, platform=f"linux/{arch}")
        assert pulled.digest == digest and other.images.resolve(name).manifest_digest == platforms[arch]
        (tree,) = ts.trees(other, name)
        assert tree["arch"][-1] == arch.encode()
    with pytest.raises(NotFound, match="no image for linux/riscv64") as caught:
        other.images.pull(name, platform="linux/riscv64")
    assert "linux/s390x" in caught.value.hint
    other.images.tag(name, f"{plain.host}/multi/other:1")
    for wanted in ("linux/riscv64", "linux/arm64"):
        with pytest.raises(NotFound, match=f"for {wanted}: what is here is for linux/s390x"):
            other.images.push(f"{plain.host}/multi/other:1", platform=wanted)
    (pushed,) = other.images.push(f"{plain.host}/multi/other:1", platform="linux/s390x")
    assert pushed.digest == platforms["s390x"]
    (pulled,) = other.images.pull(f"{plain.host}/multi/all@{digest}", platform="linux/arm64")
    assert other.images.inspect(f"{plain.host}/multi/all@{digest}")["Architecture"] == "arm64"


def test_features_are_given_with_commas_or_one_by_one(
    plain: Registry, engine: sampan.Engine, platforms: dict[str, str]
) -> None:
    name, member = f"{plain.host}/multi/features:1", f"{plain.host}/multi/amd64:1"
    manifests.create(engine, name, [member])
    words = ["manifest", "annotate", name, member, "--os-features", "a,b", "--os-features=c"]
    assert main(["--root", engine.store.paths.root, *words]) == 0
    assert manifests.inspect(engine, name)["manifests"][0]["platform"]["os.features"] == ["a", "b", "c"]


@needs_skopeo
def test_what_is_described_has_its_platform(plain: Registry, engine: sampan.Engine, platforms: dict[str, str]) -> None:
    (found,) = manifests.describe(f"{plain.host}/multi/arm64:1")
    assert found["Descriptor"]["digest"] == platforms["arm64"]
    assert found["Descriptor"]["platform"] == {"os": "linux", "architecture": "arm64"}
    assert found["OCIManifest"]["mediaType"] == image.OCI_MANIFEST
    skopeo("copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--format", "v2s2",
           f"docker://{plain.host}/multi/arm64:1", f"docker://{plain.host}/multi/arm64:docker")  # fmt: skip
    (found,) = manifests.describe(f"{plain.host}/multi/arm64:docker")
    assert found["SchemaV2Manifest"]["mediaType"] == image.DOCKER_MANIFEST and "OCIManifest" not in found
    assert manifests.inspect(engine, f"{plain.host}/multi/arm64:1")["mediaType"] == ts.MANIFEST


def test_lists_are_of_one_registry(plain: Registry, engine: sampan.Engine, platforms: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument, match="another registry"):
        manifests.create(engine, "elsewhere.example/x:1", [f"{plain.host}/multi/arm64:1"])
    with pytest.raises(NotFound, match="no such manifest list"):
        manifests.push(engine, f"{plain.host}/multi/none:1")
    with pytest.raises(NotFound):
        manifests.remove(engine, f"{plain.host}/multi/none:1")


def test_another_platform_is_taken_when_it_is_asked_for_only(
    plain: Registry, engine: sampan.Engine, platforms: dict[str, str], make_engine: Callable[[], sampan.Engine]
) -> None:
    other = "s390x" if platform.host().architecture != "s390x" else "arm64"
    with pytest.raises(NotFound, match=f"it is for linux/{other}, not for linux/riscv64"):
        make_engine().images.pull(f"{plain.host}/multi/{other}:1", platform="linux/riscv64")
    said: list[str] = []
    third = make_engine()
    third._warn = said.append
    third.images.pull(f"{plain.host}/multi/{other}:1")  # as Docker: with a warning
    assert said and f"is for linux/{other}" in said[0]


def test_a_mislabelled_index_is_told(engine: sampan.Engine) -> None:
    """The index says arm64, the image's config another: whose fault it is and which two differ."""
    with lying() as registry:
        listed, real = "linux/arm64", f"linux/{platform.host().architecture}"
        if listed == real:
            listed = "linux/s390x"
        registry.manifest("app", "below", registry.image([ts.BASE]))
        data = registry.manifests["app", "below"][0]
        entry = {"mediaType": ts.MANIFEST, "digest": ts.digest(data), "size": len(data)}
        entry["platform"] = dict(zip(("os", "architecture"), listed.split("/"), strict=True))
        index = {"schemaVersion": 2, "mediaType": ts.INDEX, "manifests": [entry]}
        registry.manifest("app", "1", index, ts.INDEX)
        name = f"{registry.host}/app"
        with pytest.raises(IntegrityError) as caught:
            engine.images.pull(f"{name}:1", platform=listed)
        said = f"cannot pull {name}:1: its index lists {entry['digest']} as {listed}, but that image is for {real}"
        assert caught.value.message == said and f"{name}@{entry['digest']}" in caught.value.hint
        engine.images.pull(f"{name}@{entry['digest']}")


def test_errors_say_what_was_tried(engine: sampan.Engine, tmp_path: Path) -> None:
    with lying() as registry:
        name = f"{registry.host}/app:1"
        for verb, action in (
            ("inspect", lambda: manifests.inspect(engine, name)),
            ("inspect", lambda: manifests.describe(name)),
            ("copy", lambda: engine.images.copy(f"docker://{name}", f"oci:{tmp_path}/out")),
            ("pull", lambda: engine.images.pull(name)),
        ):
            with pytest.raises(NotFound, match=f"^cannot {verb} {name}: "):
                action()
        registry.manifest("app", "1", b"{}")
        with pytest.raises(IntegrityError, match=f"^cannot inspect {registry.host}/app@sha256:"):
            manifests.inspect(engine, name)


def test_search_looks_into_the_catalog(plain: Registry, engine: sampan.Engine, platforms: dict[str, str]) -> None:
    from sampan.engine import registries

    found = [one["name"] for one in registries.search(f"{plain.host}/MULTI/a", 25)]
    assert f"{plain.host}/multi/amd64" in found and f"{plain.host}/multi/s390x" not in found
    assert len(registries.search(f"{plain.host}/", 1)) == 1
    with lying() as registry, pytest.raises((NotFound, NotSupported), match="^cannot search 127"):
        registries.search(f"{registry.host}/x", 25)


def test_the_command_prints_json(
    plain: Registry, engine: sampan.Engine, platforms: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    from sampan.cli import main, options

    for words in (["manifest", "inspect"], ["manifest", "inspect", "-v"]):
        module = main.load_command(" ".join(words[:2]))
        assert module.run(engine, options.parse([*words[2:], f"{plain.host}/multi/arm64:1"], module.OPTIONS)) == 0
        assert isinstance(json.loads(capsys.readouterr().out), dict)
