"""Manifests, indexes, configs and times: what is accepted, and every lie that is refused."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.errors import IntegrityError, InvalidArgument, NotSupported
from sampan.oci import digest, image, timestamp

DIGEST = digest.of(b"x")
CONFIG: dict[str, Any] = {
    "architecture": "amd64",
    "os": "linux",
    "config": {"Env": ["A=b"], "Cmd": ["sh"]},
    "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
}


def descriptor(**changes: Any) -> dict[str, Any]:
    return {"mediaType": image.OCI_LAYER, "digest": DIGEST, "size": 1, **changes}


def manifest(**changes: Any) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": image.OCI_MANIFEST,
        "config": descriptor(mediaType=image.OCI_CONFIG),
        "layers": [descriptor()],
        **changes,
    }
    return json.dumps({key: value for key, value in document.items() if value is not None}).encode()


def index(**changes: Any) -> bytes:
    document = {"schemaVersion": 2, "manifests": [descriptor(mediaType=image.OCI_MANIFEST)], **changes}
    return json.dumps(document).encode()


def test_built_documents_parse_as_what_they_were_built_from() -> None:
    layer, config = descriptor(), descriptor(mediaType=image.OCI_CONFIG)
    built = image.parse_manifest(image.build_manifest(config, [layer]), image.OCI_MANIFEST)
    assert (built["config"], built["layers"]) == (config, [layer])
    found = image.parse_index(image.build_index([descriptor(platform={"os": "linux", "architecture": "arm64"})]))
    assert found["manifests"][0]["platform"]["architecture"] == "arm64"
    assert image.parse_config(image.build_config(CONFIG)) == CONFIG


def test_docker_documents_and_those_without_a_type_are_read() -> None:
    docker = manifest(mediaType=image.DOCKER_MANIFEST)
    assert image.parse(docker, image.DOCKER_MANIFEST + "; charset=utf-8")["mediaType"] == image.DOCKER_MANIFEST
    assert image.parse(manifest(mediaType=None))["mediaType"] == image.OCI_MANIFEST
    assert image.parse(index())["mediaType"] == image.OCI_INDEX
    assert image.parse(index(), image.DOCKER_INDEX)["mediaType"] == image.DOCKER_INDEX
    assert image.parse(manifest(), "application/octet-stream")["mediaType"] == image.OCI_MANIFEST


@pytest.mark.parametrize("size", [-1, 1 << 63, 1.0, "1", None, True, [1]])
def test_sizes_that_are_no_sizes_are_refused(size: Any) -> None:
    with pytest.raises(IntegrityError):
        image.parse(manifest(layers=[descriptor(size=size)]))


def test_sizes_beyond_a_double_or_without_value_are_refused() -> None:
    for text in (b"1e400", b"NaN", b"-Infinity"):
        with pytest.raises(IntegrityError):
            image.parse(manifest().replace(b'"size": 1', b'"size": ' + text))


@pytest.mark.parametrize(
    "data",
    [
        manifest(manifests=[descriptor()]),
        manifest(layers=None, manifests=[descriptor()]),
        index(layers=[]),
        index(mediaType=image.OCI_MANIFEST),
        manifest(mediaType=image.OCI_INDEX),
    ],
)
@pytest.mark.parametrize(
    "sent_as", ["", image.OCI_MANIFEST, image.OCI_INDEX, image.DOCKER_MANIFEST, image.DOCKER_INDEX]
)
def test_a_document_that_reads_as_two_kinds_is_refused_whatever_the_header(data: bytes, sent_as: str) -> None:
    with pytest.raises(IntegrityError):
        image.parse(data, sent_as)


def test_a_type_that_is_not_the_header_is_refused() -> None:
    for sent_as in (image.OCI_INDEX, image.DOCKER_MANIFEST):
        with pytest.raises(IntegrityError):
            image.parse(manifest(), sent_as)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b"\xff",
        b'{"schemaVersion":2}',
        manifest(schemaVersion=3),
        manifest(schemaVersion="2"),
        manifest(config=None),
        manifest(config="x"),
        manifest(layers={}),
        manifest(layers=["x"]),
        manifest(layers=[descriptor(digest="sha256:x")]),
        manifest(layers=[descriptor(mediaType=5)]),
        manifest(layers=[descriptor(annotations={"a": 1})]),
        manifest(annotations=[]),
        manifest(layers=[descriptor()] * 5000),
        index(manifests="x"),
        index(manifests=[descriptor(platform=[])]),
        manifest(annotations={"a": "x" * (4 << 20)}),
        b"[" * 100_000,
    ],
)
def test_malformed_manifests_are_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        image.parse(data)


def test_schema_1_and_unknown_types_are_named() -> None:
    with pytest.raises(NotSupported, match="schema 1"):
        image.parse(manifest(schemaVersion=1))
    with pytest.raises(NotSupported, match="application/x"):
        image.parse(manifest(mediaType="application/x"))
    with pytest.raises(NotSupported, match="no image layer"):
        image.compression("text/plain")


@pytest.mark.parametrize(
    "changes",
    [
        {"rootfs": None},
        {"rootfs": {"type": "layers", "diff_ids": ["x"]}},
        {"rootfs": {"type": "other", "diff_ids": []}},
        {"rootfs": {"type": "layers", "diff_ids": "x"}},
        {"rootfs": {"type": "layers", "diff_ids": [DIGEST] * 5000}},
        {"config": {"Env": "A=b"}},
        {"config": {"Env": [1]}},
        {"config": {"Cmd": "sh"}},
        {"config": {"User": 0}},
        {"config": {"Volumes": []}},
        {"config": {"Labels": {"a": 1}}},
        {"config": {"Env": ["A=\ud800"]}},
        {"config": {"Labels": {"a\udfff": "x"}}},
        {"config": []},
        {"architecture": 5},
        {"history": [1]},
        {"created": 5},
    ],
)
def test_malformed_configs_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError):
        image.parse_config(json.dumps({**CONFIG, **changes}).encode())


def test_null_members_of_a_config_are_absent() -> None:
    nulls = {"Env": None, "Entrypoint": None, "Cmd": None, "Volumes": None, "Labels": None}
    image.parse_config(json.dumps({**CONFIG, "config": nulls, "history": None}).encode())
    image.parse_config(json.dumps({**CONFIG, "config": None}).encode())


def test_layers_and_diff_ids_must_be_as_many() -> None:
    found = image.parse_manifest(manifest(layers=[descriptor(), descriptor()]))
    with pytest.raises(IntegrityError):
        image.check_layers(found, CONFIG)
    assert image.check_layers(image.parse_manifest(manifest()), CONFIG) == [(descriptor(), DIGEST)]


def test_chain_id_is_the_specifications() -> None:
    first, second = digest.of(b"1"), digest.of(b"2")
    assert image.chain_id([]) == ""
    assert image.chain_id([first]) == first
    assert image.chain_id([first, second]) == digest.of(f"{first} {second}".encode())


def test_history_rows_leave_out_what_is_empty() -> None:
    assert image.history("t", "RUN x") == {"created": "t", "created_by": "RUN x"}
    assert image.history("", "ENV a=b", comment="c", empty_layer=True) == {
        "created_by": "ENV a=b",
        "comment": "c",
        "empty_layer": True,
    }


@given(st.integers(-62135596800 * 10**9, 253402300799 * 10**9))
def test_times_survive_text(nanoseconds: int) -> None:
    text = timestamp.format(nanoseconds)
    assert timestamp.parse(text) == nanoseconds
    whole = datetime.datetime.fromisoformat(text[:19] + "+00:00")
    assert whole == datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(
        seconds=nanoseconds // 10**9
    )


def test_offsets_and_fractions_of_times() -> None:
    base = timestamp.parse("2024-05-01T12:30:00Z")
    assert timestamp.parse("2024-05-01T14:30:00.5+02:00") == base + 500_000_000
    assert timestamp.parse("2024-05-01t09:00:00.123456789999-03:30") == base + 123456789


@pytest.mark.parametrize(
    "text", ["", "2024", "2024-05-01", "2024-13-01T00:00:00Z", "2024-05-01T00:00:00", "2024-05-01T25:00:00Z", "x" * 30]
)
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        timestamp.parse(text)
