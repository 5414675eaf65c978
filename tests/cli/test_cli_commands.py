"""Each command against an engine that only records: what the words become, what is printed, and the exit code."""

from __future__ import annotations

import json
import os
import pathlib
import types
from typing import Any

import pytest
from recordingengine import Engine, Part, run

from sampan.errors import InvalidArgument, NotFound, NotSupported, SampanError
from sampan.transfer.archive import open_archive


def test_run_returns_the_exit_code_and_prints_the_id_of_a_detached_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Engine(Part(run=7)), "run", "--rm", "image", "false") == 7
    assert capsys.readouterr().out == ""
    engine = Engine(Part(run="abc"))
    assert run(engine, "run", "-d", "--name", "web", "image") == 0
    assert capsys.readouterr().out == "abc\n"
    kwargs = engine.containers.calls[0][-1]
    assert (kwargs["image"], kwargs["name"], kwargs["detach"], kwargs["auto_remove"]) == ("image", "web", True, False)


def test_explain_starts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    engine = Engine(Part(explain=["mount", "exec"]))
    assert run(engine, "run", "--explain", "image") == 0
    assert capsys.readouterr().out == "mount\nexec\n"
    assert [call[0] for call in engine.containers.calls] == ["explain"]


def test_cidfile_is_written_once_and_removed_when_nothing_was_made(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "cid"

    def make(*_: Any, on_create: Any, **__: Any) -> int:
        on_create("f" * 64)
        return 0

    assert run(Engine(Part(run=make)), "run", "--cidfile", str(path), "image") == 0
    assert path.read_text() == "f" * 64
    with pytest.raises(InvalidArgument, match="exists"):
        run(Engine(Part(run=make)), "run", "--cidfile", str(path), "image")
    path.unlink()
    with pytest.raises(NotFound):
        run(Engine(Part(run=NotFound("no image"))), "run", "--cidfile", str(path), "image")
    assert not path.exists()


def test_platform_of_another_machine_is_an_error() -> None:
    images = Part(inspect={"Os": "linux", "Architecture": "amd64", "Variant": ""})
    assert run(Engine(Part(run=0), images), "run", "--platform", "linux/amd64", "image") == 0
    with pytest.raises(NotFound, match=r"is for .*amd64.*, not for linux/arm64"):
        run(Engine(Part(run=0), images), "run", "--platform", "linux/arm64", "image")


@pytest.mark.parametrize(
    ("words", "call"),
    [
        (["stop", "-t", "3", "a"], ("stop", "a", 3, None, {"full_wait": False})),
        (["stop", "--time", "3", "-s", "INT", "a"], ("stop", "a", 3, "INT", {"full_wait": False})),
        (["stop", "--full-wait", "a"], ("stop", "a", None, None, {"full_wait": True})),
        (["restart", "a"], ("restart", "a", None, None)),
        (["restart", "-s", "INT", "-t", "1", "a"], ("restart", "a", 1, "INT")),
        (["pause", "a"], ("pause", "a")),
        (["unpause", "a"], ("unpause", "a")),
        (["kill", "-s", "HUP", "a"], ("kill", "a", "HUP")),
        (["kill", "a"], ("kill", "a", "KILL")),
        (["rm", "-fv", "a"], ("remove", "a", {"force": True, "volumes": True, "ended": False})),
        (["start", "a"], ("start", "a")),
        (["export", "-o", "/dev/null", "a"], None),
    ],
)
def test_words_become_calls(words: list[str], call: tuple[Any, ...] | None, capsys: pytest.CaptureFixture[str]) -> None:
    engine = Engine()
    assert run(engine, *words) == 0
    if call is None:
        assert engine.containers.calls[0][:2] == ("export", "a")
        return
    assert engine.containers.calls == [call]
    assert capsys.readouterr().out == "a\n"


def test_one_failure_does_not_stop_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    def stop(name: str, *_: Any, **_settings: Any) -> object:
        return NotFound(f"no such container: {name}") if name == "b" else None

    assert run(Engine(Part(stop=stop)), "stop", "a", "b", "c") == 1
    printed = capsys.readouterr()
    assert printed.out == "a\nc\n"
    assert printed.err == "sampan: no such container: b\n"


def test_rm_force_forgives_a_missing_container(capsys: pytest.CaptureFixture[str]) -> None:
    gone = Part(remove=NotFound("no such container: x"))
    assert run(Engine(gone), "rm", "x") == 1
    assert run(Engine(gone), "rm", "-f", "x") == 0
    capsys.readouterr()
    assert run(Engine(gone), "rm", "--force", "--quiet", "x") == 0
    assert capsys.readouterr() == ("", "")


def test_wait_prints_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Engine(Part(wait=9)), "wait", "a", "b") == 0
    assert capsys.readouterr().out == "9\n9\n"


def test_start_attached_ends_with_the_exit_code() -> None:
    assert run(Engine(Part(start=4)), "start", "-ai", "a") == 4
    with pytest.raises(InvalidArgument, match="one container"):
        run(Engine(), "start", "-a", "a", "b")


def test_exec_passes_its_words() -> None:
    engine = Engine(Part(exec=3))
    assert run(engine, "exec", "-e", "A=1", "-w", "/w", "-u", "me", "web", "ls", "-la", "--", "x") == 3
    name, container, args, kwargs = engine.containers.calls[0]
    assert (name, container, args) == ("exec", "web", ["ls", "-la", "--", "x"])
    assert (kwargs["env"], kwargs["workdir"], kwargs["user"], kwargs["tty"]) == (["A=1"], "/w", "me", False)


CONTAINER = {
    "ID": "0123456789ab" + "0" * 52,
    "Names": "web",
    "Image": "app",
    "Command": "sh -c a-long-command-line",
    "Created": 100_000_000_000,
    "RunningFor": "2 minutes ago",
    "Status": "Up 2 minutes",
    "State": "running",
    "Labels": "a=b,c=d",
    "LabelMap": {"a": "b", "c": "d"},
}


def test_ps_columns_and_templates(capsys: pytest.CaptureFixture[str]) -> None:
    engine = Engine(Part(ls=[CONTAINER]))
    assert run(engine, "ps", "-a", "-f", "status=running", "-f", "status=exited") == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["CONTAINER", "ID"]
    assert row.startswith('0123456789ab   app       "sh -c a-long-comman…"   2 minutes ago')
    assert engine.containers.calls == [("ls", {"all": True, "filters": {"status": ["running", "exited"]}, "limit": 0})]
    run(engine, "ps", "-q")
    assert capsys.readouterr().out == "0123456789ab\n"
    run(engine, "ps", "--no-trunc", "-q")
    assert capsys.readouterr().out == CONTAINER["ID"] + "\n"  # type: ignore[operator]
    run(engine, "ps", "--format", '{{.Names}} {{.Label "c"}} {{.State}}')
    assert capsys.readouterr().out == "web d running\n"
    run(engine, "ps", "--format", r'table {{.Names}}\t{{.Label "x.c"}}')
    assert capsys.readouterr().out == "NAMES     c\nweb\n"
    run(engine, "ps", "--format", "json")
    assert json.loads(capsys.readouterr().out)["Names"] == "web"
    run(engine, "ps", "--format", "raw", "-q")
    assert capsys.readouterr().out == "container_id: 0123456789ab\n"
    run(engine, "ps", "--format", "raw")
    assert capsys.readouterr().out.splitlines()[-4:] == ["names: web", "labels: a=b,c=d", "ports:", ""]
    run(engine, "ps", "-l")
    assert engine.containers.calls[-1][1]["limit"] == 1
    with pytest.raises(InvalidArgument, match="KEY=VALUE"):
        run(engine, "ps", "-f", "status")


def test_images_and_history(capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "ID": "sha256:" + "ab" * 32,
        "Repository": "app",
        "Tag": "1",
        "Digest": "sha256:d",
        "Created": 0,
        "CreatedAt": "",
        "CreatedSince": "N/A",
        "Size": 1234567,
    }
    engine = Engine(images=Part(ls=[row], history=[{**row, "CreatedBy": "RUN  x " + "y" * 60, "Comment": ""}]))
    assert run(engine, "images", "app") == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["app", "1", "abababababab", "N/A", "1.23MB"]
    assert engine.images.calls == [("ls", {"reference": ["app"]}, {"all": False})]
    run(engine, "images", "--format", "{{.Repository}}:{{.Tag}} {{.Size}}")
    assert capsys.readouterr().out == "app:1 1.23MB\n"
    run(engine, "history", "app")
    assert "RUN x yyyy" in capsys.readouterr().out
    run(engine, "images", "--format", "raw")
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        *("repository", "tag", "image_id", "created_at", "virtual_size", "")
    ]
    run(engine, "images", "--format", "raw", "-q")
    assert capsys.readouterr().out == "image_id: abababababab\n"
    run(engine, "history", "-H=false", "--format", "{{.Size}}", "app")
    assert capsys.readouterr().out == "1234567\n"


def test_inspect_looks_at_containers_then_images(capsys: pytest.CaptureFixture[str]) -> None:
    engine = Engine(Part(inspect=NotFound("no container")), Part(inspect={"Id": "i", "Os": "linux"}))
    assert run(engine, "inspect", "x") == 0
    assert json.loads(capsys.readouterr().out) == [{"Id": "i", "Os": "linux"}]
    run(engine, "inspect", "-f", "{{.Os}}", "x")
    assert capsys.readouterr().out == "linux\n"
    assert run(engine, "inspect", "--type", "container", "x") == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("[]\n", "sampan: no container\n")


def test_archives_appear_whole_or_not_at_all(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "x.tar"

    def save(names: list[str], fd: int) -> None:
        os.write(fd, b"half")
        if names == ["bad"]:
            raise NotFound("no image")

    engine = Engine(images=Part(save=save))
    with pytest.raises(NotFound):
        run(engine, "save", "-o", str(path), "bad")
    assert list(tmp_path.iterdir()) == []
    assert run(engine, "save", "-o", str(path), "good") == 0
    assert path.read_bytes() == b"half"
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(SampanError, match="No such file"):
        run(engine, "save", "-o", str(tmp_path / "none" / "x"), "good")


def test_load_and_import_take_files(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.tar"
    file.write_bytes(b"data")
    engine = Engine(
        images=Part(load=lambda path: [f"Loaded image: {pathlib.Path(path).read_text()}"], import_="sha256:1")
    )
    assert run(engine, "load", "-i", str(file)) == 0
    assert capsys.readouterr().out == "Loaded image: data\n"
    assert run(engine, "import", "-c", "CMD x", "-m", "why", str(file), "app:1") == 0
    assert engine.images.calls[-1] == ("import_", str(file), "app:1", {"changes": ["CMD x"], "message": "why"})
    with pytest.raises(NotFound, match="no such file"):
        open_archive(str(tmp_path / "none"), str(tmp_path))  # what load does with the name that it is given
    with pytest.raises(NotSupported, match="address"):
        run(engine, "import", "https://example.org/x.tar")


def test_build_passes_its_words(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = Engine(build="sha256:b")
    iid = tmp_path / "iid"
    words = ["-t", "a", "-t", "b:1", "--build-arg", "X=1", "--label", "l=v", "--target", "s", "--no-cache", "-q"]
    assert run(engine, "build", *words, "--iidfile", str(iid), ".", "-f", "D") == 0
    assert capsys.readouterr().out == "sha256:b\n"
    assert iid.read_text() == "sha256:b"
    name, context, kwargs = engine.calls[0]
    kwargs.pop("on_event")
    assert (name, context) == ("build", ".")
    assert kwargs == {
        "tags": ["a", "b:1"],
        "dockerfile": "D",
        "build_args": {"X": "1"},
        "labels": {"l": "v"},
        "target": "s",
        "no_cache": True,
        "platform": "",
        "network": "",
        "pull": False,
        "no_cache_stages": [],
        "limits": {},
    }
    words = [
        "-m",
        "64m",
        "--memory-swap=-1",
        "-c",
        "512",
        "--cpu-quota=50000",
        "--cpu-period",
        "100000",
        "--shm-size=1m",
    ]
    words += ["--cpuset-cpus=0", "--cpuset-mems", "0", "--ulimit", "nofile=9", "--no-cache-filter=a,b"]
    accepted = ["--compress", "--isolation=default", "--disable-content-trust", "--sbom=false", "--provenance=false"]
    assert run(engine, "build", *words, *accepted, ".") == 0
    given = engine.calls[1][2]
    limits = {"memory": 64 << 20, "memory_swap": -1, "shm_size": 1 << 20, "ulimits": ["nofile=9"]}
    limits |= {"cpu_shares": 512, "cpu_quota": 50000, "cpu_period": 100000, "cpuset": "0", "cpuset_mems": "0"}
    assert (given["limits"], given["no_cache_stages"]) == (limits, ["a", "b"])


REFUSED = [["--secret", "id=x"], ["--provenance=true"], ["-o", "x"], ["--sbom"], ["--provenance"], ["--stream"]]


@pytest.mark.parametrize("words", [*REFUSED, ["--security-opt", "x"], ["--policy=x"], ["-D"]])
def test_build_refuses_what_it_would_ignore(words: list[str]) -> None:
    with pytest.raises(NotSupported, match="option (--[a-z-]+|-[oD]) of build: [^:]+"):
        run(Engine(build="x"), "build", *words, ".")


def test_build_writes_metadata(tmp_path: pathlib.Path) -> None:
    engine = Engine(build="sha256:b", images=Part(resolve=types.SimpleNamespace(manifest_digest="sha256:m")))
    assert run(engine, "build", "-q", "-t", "a", "-t", "b:1", "--metadata-file", f"{tmp_path}/m", ".") == 0
    assert json.loads((tmp_path / "m").read_text()) == {
        "containerimage.config.digest": "sha256:b",
        "containerimage.digest": "sha256:m",
        "image.name": "docker.io/library/a:latest,docker.io/library/b:1",
    }


def test_version_and_info(capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"Version": "1", "Python": "3", "KernelVersion": "6", "Os": "linux", "Arch": "amd64"}
    engine = Engine(version=facts, info={"ServerVersion": "1", "MemTotal": 1 << 30, "Rootless": True, "NCPU": 2})
    run(engine, "version", "--format", "{{.Server.Version}}")
    assert capsys.readouterr().out == "1\n"
    run(engine, "info")
    assert "Memory:           1GiB\n" in capsys.readouterr().out
    run(engine, "info", "-f", "{{json .NCPU}}")
    assert capsys.readouterr().out == "2\n"


def test_bootstrap_names_the_image_after_its_source(capsys: pytest.CaptureFixture[str]) -> None:
    engine = Engine(bootstrap="sha256:x")
    assert run(engine, "bootstrap", "host", "sh", "ls") == 0
    assert engine.calls == [("bootstrap", "host", "host", ["sh", "ls"])]
    assert capsys.readouterr().out == "sha256:x\n"
