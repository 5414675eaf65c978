"""Signatures, SBOMs and other artifacts with a subject: listed, pushed, copied, with the referrers API and without."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transfersupport as ts
from lyingregistry import Answer, Asked, LyingRegistry, lying
from registrysupport import Registry, needs_registry, needs_skopeo, skopeo

import sampan
from sampan.cli import main, options
from sampan.engine import manifests
from sampan.errors import IntegrityError, InvalidArgument, NotFound
from sampan.oci import platform

SBOM, SIGNATURE = "application/spdx+json", "application/vnd.example.signature"


def descriptor(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": ts.digest(data), "size": len(data)}


class Artifact:
    """An artifact whose subject is another manifest: its bytes, its one file, and its descriptor."""

    def __init__(self, kind: str, content: bytes, subject: dict[str, Any]) -> None:
        self.content = content
        document = {
            "schemaVersion": 2,
            "mediaType": ts.MANIFEST,
            "artifactType": kind,
            "config": descriptor(b"{}", "application/vnd.oci.empty.v1+json"),
            "layers": [descriptor(content, "text/plain")],
            "subject": subject,
            "annotations": {"org.example.of": content.decode()},
        }
        self.data = json.dumps(document).encode()
        self.descriptor = descriptor(self.data, ts.MANIFEST)

    @property
    def digest(self) -> str:
        return str(self.descriptor["digest"])


def make_layout(directory: Path, name: str) -> tuple[dict[str, Any], list[Artifact]]:
    """Write a layout with an image, an SBOM of it, a signature of both."""
    layout = ts.Layout()
    layer = ts.tar_of({"file": b"content"})
    layout.add(layout.image([(layer, "")], ts.config([layer])), name)
    subject = {key: layout.entries[0][key] for key in ("mediaType", "digest", "size")}
    sbom = Artifact(SBOM, b"sbom", subject)
    made = [sbom, Artifact(SIGNATURE, b"signature", subject), Artifact(SIGNATURE, b"of the sbom", sbom.descriptor)]
    layout.blob(b"{}", "application/vnd.oci.empty.v1+json")
    for one in made:
        layout.blob(one.content, "text/plain")
        layout.add(layout.blob(one.data, ts.MANIFEST))
    ts.write_tree(directory, layout.build())
    return subject, made


def with_api(registry: LyingRegistry, page: int = 100) -> None:
    """Give a registry the referrers API, in pages, and OCI-Subject in its answers; it ignores the filter."""

    def hook(request: Asked) -> Answer | None:
        if "/referrers/" not in request.path:
            return None
        digest = request.path.rpartition("/")[2]
        start = int(urllib.parse.parse_qs(request.query).get("from", ["0"])[0])
        found = []
        for (_, name), (data, kind) in registry.manifests.items():
            document = json.loads(data)
            if name.startswith("sha256:") and (document.get("subject") or {}).get("digest") == digest:
                found.append({**descriptor(data, kind), "artifactType": document["artifactType"]})
        body = {"schemaVersion": 2, "mediaType": ts.INDEX, "manifests": found[start : start + page]}
        more = {"Link": f'<{request.path}?from={start + page}>; rel="next"'} if start + page < len(found) else {}
        return Answer(200, {"Content-Type": ts.INDEX, **more}, json.dumps(body).encode())

    registry.hook = hook
    registry.subjects = True


def listed(name: str, kind: str = "") -> dict[str, str]:
    return {one["digest"]: one["artifactType"] for one in manifests.referrers(name, kind)}


@needs_registry
@needs_skopeo
def test_a_registry_without_the_api_keeps_them_under_a_tag(
    plain: Registry, engine: sampan.Engine, tmp_path: Path
) -> None:
    """docker-registry 2.8 has no referrers API (distribution-spec, "Pushing Manifests with Subject")."""
    name = f"{plain.host}/referred/app:1"
    subject, (sbom, signature, above) = make_layout(tmp_path / "layout", name)
    engine.images.copy(f"oci:{tmp_path}/layout:{name}", f"docker://{name}", referrers=True)
    assert listed(name) == {sbom.digest: SBOM, signature.digest: SIGNATURE}
    assert listed(name, SBOM) == {sbom.digest: SBOM}
    assert listed(f"{plain.host}/referred/app@{sbom.digest}") == {above.digest: SIGNATURE}
    assert listed(f"{plain.host}/referred/app@{ts.digest(b'nobody')}") == {}
    tag = subject["digest"].replace(":", "-")
    found = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{plain.host}/referred/app:{tag}"))
    assert found["manifests"][0] == {
        **sbom.descriptor,
        "artifactType": SBOM,
        "annotations": {"org.example.of": "sbom"},
    }
    engine.images.copy(f"oci:{tmp_path}/layout:{name}", f"docker://{name}", referrers=True)  # once more: the same
    assert len(listed(name)) == 2


@needs_registry
def test_a_pull_and_a_push_keep_the_relation(plain: Registry, engine: sampan.Engine, tmp_path: Path) -> None:
    name = f"{plain.host}/kept/app:1"
    _, (sbom, *_) = make_layout(tmp_path / "layout", name)
    engine.images.copy(f"oci:{tmp_path}/layout:{name}", f"docker://{name}", referrers=True)
    engine.images.pull(name)
    engine.images.pull(f"{plain.host}/kept/app@{sbom.digest}")
    for source, target in ((name, "app:1"), (f"{plain.host}/kept/app@{sbom.digest}", "app:sbom")):
        engine.images.tag(source, f"{plain.host}/pushed/{target}")
        engine.images.push(f"{plain.host}/pushed/{target}")
    assert listed(f"{plain.host}/pushed/app:1") == {sbom.digest: SBOM}


@needs_registry
def test_what_refers_to_an_image_goes_to_another_repository_and_to_a_layout(
    plain: Registry, engine: sampan.Engine, tmp_path: Path
) -> None:
    name, other = f"{plain.host}/from/app:1", f"{plain.host}/to/app:2"
    subject, made = make_layout(tmp_path / "layout", name)
    engine.images.copy(f"oci:{tmp_path}/layout:{name}", f"docker://{name}", referrers=True)
    engine.images.copy(f"docker://{name}", f"docker://{other}", referrers=True)
    assert set(listed(other)) == {one.digest for one in made[:2]}
    assert set(listed(f"{plain.host}/to/app@{made[0].digest}")) == {made[2].digest}
    engine.images.copy(f"docker://{other}", f"oci:{tmp_path}/back", referrers=True)
    entries = json.loads((tmp_path / "back/index.json").read_text())["manifests"]
    assert {one["digest"] for one in entries} == {subject["digest"], *(one.digest for one in made)}
    # Without a name, the image is meant that refers to no other.
    engine.images.copy(f"oci:{tmp_path}/back", f"docker://{plain.host}/again/app:1")
    assert listed(f"{plain.host}/again/app:1") == {}
    with pytest.raises(InvalidArgument, match="only registries and layouts keep that"):
        engine.images.copy(f"docker://{name}", "app:1", referrers=True)


@needs_registry
def test_all_tags_are_images(plain: Registry, engine: sampan.Engine, tmp_path: Path) -> None:
    name = f"{plain.host}/every/app:1"
    make_layout(tmp_path / "layout", name)
    engine.images.copy(f"oci:{tmp_path}/layout:{name}", f"docker://{name}", referrers=True)
    assert len(plain.tags("every/app")) == 3
    assert [one.reference.tag for one in engine.images.pull(f"{plain.host}/every/app", all_tags=True)] == ["1"]


def test_a_registry_with_the_api_keeps_them_itself(engine: sampan.Engine, tmp_path: Path) -> None:
    with lying() as registry:
        with_api(registry, page=1)
        name = f"{registry.host}/app:1"
        _, (sbom, signature, _) = make_layout(tmp_path / "layout", name)
        engine.images.copy(f"oci:{tmp_path}/layout:{name}", f"docker://{name}", referrers=True)
        assert all(not tag.startswith("sha256-") for _, tag in registry.manifests)
        assert listed(name) == {sbom.digest: SBOM, signature.digest: SIGNATURE}  # of two pages
        assert listed(name, SIGNATURE) == {signature.digest: SIGNATURE}  # although the registry does not filter
        asked = [one.query for one in registry.asked("/referrers/") if one.query.startswith("artifactType")]
        assert asked == [f"artifactType={urllib.parse.quote(SIGNATURE, safe='')}"]


def test_a_false_referrer_is_not_copied(engine: sampan.Engine, tmp_path: Path) -> None:
    with lying() as registry:
        registry.manifest("app", "1", registry.image([ts.BASE]))
        stranger = registry.manifest("app", "2", registry.image([ts.BASE, ts.BASE]))
        data = registry.manifests["app", "2"][0]
        index = {"schemaVersion": 2, "mediaType": ts.INDEX, "manifests": [descriptor(data, ts.MANIFEST)]}

        def hook(request: Asked) -> Answer | None:
            return (
                Answer(200, {"Content-Type": ts.INDEX}, json.dumps(index).encode())
                if "/referrers/" in request.path
                else None
            )

        registry.hook = hook
        with pytest.raises(IntegrityError, match="but its subject is nothing") as caught:
            engine.images.copy(f"docker://{registry.host}/app:1", f"oci:{tmp_path}/out", referrers=True)
        assert stranger in caught.value.message


@pytest.mark.parametrize("wrong", [{"subject": {"digest": "x"}}, {"subject": "sha256:0"}, {"artifactType": 5}])
def test_a_malformed_relation_is_refused(engine: sampan.Engine, wrong: dict[str, Any]) -> None:
    with lying() as registry:
        registry.manifest("app", "1", registry.image([ts.BASE], **wrong))
        with pytest.raises(IntegrityError, match="subject of the manifest|artifactType is not"):
            engine.images.pull(f"{registry.host}/app:1")


def test_a_referrers_tag_that_is_an_image_is_told(engine: sampan.Engine) -> None:
    with lying() as registry:
        digest = registry.manifest("app", "1", registry.image([ts.BASE]))
        registry.manifest("app", digest.replace(":", "-"), registry.image([ts.BASE]))
        with pytest.raises(IntegrityError, match="is no index of them"):
            manifests.referrers(f"{registry.host}/app:1")


@needs_registry
def test_the_command_lists_them(
    plain: Registry, make_engine: Callable[[], sampan.Engine], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine, name = make_engine(), f"{plain.host}/shown/app:1"
    _, (sbom, signature, _) = make_layout(tmp_path / "layout", name)
    engine.images.copy(f"oci:{tmp_path}/layout:{name}", f"docker://{name}", referrers=True)
    module = main.load_command("manifest referrers")

    def shown(*words: str) -> str:
        assert module.run(engine, options.parse([*words, name], module.OPTIONS)) == 0
        return capsys.readouterr().out

    header, *rows = shown().splitlines()
    assert header.split() == ["DIGEST", "ARTIFACT", "TYPE", "MANIFEST", "CREATED"]
    assert [row.split()[:2] for row in rows] == [[sbom.digest, SBOM], [signature.digest, SIGNATURE]]
    assert shown("--quiet", "--artifact-type", SBOM) == sbom.digest + "\n"
    assert shown("--quiet", "--platform", str(platform.host())).split() == [sbom.digest, signature.digest]
    with pytest.raises(NotFound, match=f"cannot inspect {name}: it is for {platform.host()}, not for linux/wasm"):
        shown("--platform", "linux/wasm")
    assert json.loads(shown("--json"))[0]["annotations"] == {"org.example.of": "sbom"}
