"""diff and commit: the exact difference between a container and its image, as Docker tells it, and an image of it."""

from __future__ import annotations

import pathlib
import subprocess
import tarfile
import time
from collections.abc import Iterator

import pytest
from waiting import until

import sampan
from sampan.errors import InvalidArgument, NotFound, SampanError
from sampan.oci.options import RunOptions
from sampan.runtime import cgroup

DOCKERFILE = """
FROM base
RUN mkdir -p /data/keep /data/gone /plain /swap /opaque/a && echo 1 >/data/file && echo 2 >/data/old
RUN echo 3 >/opaque/b && echo 4 >/swap/in && echo 5 >/tofile && ln -s /data /link && echo 6 >/linked
ENV KEPT=yes
LABEL from=image
ENTRYPOINT ["sh", "-c"]
CMD ["image"]
"""
SCRIPT = """echo more >>/data/file; rm /data/old; rm -rf /data/gone; mkdir /new; echo n >/new/n; chmod 700 /plain
rm -rf /swap; echo file >/swap; rm /tofile; mkdir /tofile; echo in >/tofile/in; rm -rf /opaque; mkdir /opaque
echo c >/opaque/c; rm /link; mkdir /link; echo x >/link/file; ln /linked /other; mkdir -p /deep/er; : >/deep/er/f"""
EXPECTED = """C /data
C /data/file
D /data/gone
D /data/old
A /deep
A /deep/er
A /deep/er/f
C /link
A /link/file
A /new
A /new/n
C /opaque
D /opaque/a
D /opaque/b
A /opaque/c
A /other
C /plain
C /swap
C /tofile
A /tofile/in"""


@pytest.fixture(scope="module")
def image(engine: sampan.Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    context = tmp_path_factory.mktemp("context")
    (context / "Dockerfile").write_text(DOCKERFILE)
    engine.build(str(context), tags=["committed-from"])
    return "committed-from"


def options(*command: str, **settings: object) -> RunOptions:
    return RunOptions(command=list(command), **settings)


@pytest.fixture
def changed(engine: sampan.Engine, image: str) -> Iterator[str]:
    asked = options(SCRIPT, env=["MADE=1"], labels={"with": "run"}, user="0", expose=["53/udp"], health_cmd="true")
    name = engine.containers.create(image, asked)
    assert engine.containers.start(name, attach=True) == 0
    yield name
    engine.containers.remove(name, force=True)


def lines(engine: sampan.Engine, name: str) -> list[str]:
    return [f"{kind} {path}" for kind, path in engine.containers.diff(name)]


def output(engine: sampan.Engine, image: str, script: str) -> str:
    done = engine.run(image, ["sh", "-c", script], entrypoint=[])
    assert done.exit_code == 0, done.stderr
    return done.stdout.decode()


def test_diff_tells_what_docker_tells(engine: sampan.Engine, changed: str) -> None:
    assert lines(engine, changed) == EXPECTED.splitlines()


def test_nothing_changed_is_nothing_told(engine: sampan.Engine, image: str) -> None:
    name = engine.containers.create(image, options(": >/dev/null"))
    assert engine.containers.diff(name) == []
    assert engine.containers.start(name, attach=True) == 0
    assert engine.containers.diff(name) == []
    empty = engine.images.inspect(engine.containers.commit(name))
    assert empty["RootFS"]["Layers"] == engine.images.inspect(image)["RootFS"]["Layers"]
    engine.containers.remove(name)


def test_an_image_of_a_container_is_what_the_container_was(engine: sampan.Engine, changed: str, image: str) -> None:
    made = engine.containers.commit(changed, "committed:1", author="me <me@example.com>", message="why")
    found = engine.images.inspect("committed:1")
    assert found["Id"] == made and found["Author"] == "me <me@example.com>" and found["Comment"] == "why"
    config = found["Config"]
    assert "KEPT=yes" in config["Env"] and "MADE=1" in config["Env"]
    assert config["Labels"] == {"from": "image", "with": "run"} and config["User"] == "0"
    assert config["Entrypoint"] == ["sh", "-c"] and config["Cmd"] == [SCRIPT]
    assert config["ExposedPorts"] == {"53/udp": {}} and config["Healthcheck"]["Test"] == ["CMD-SHELL", "true"]
    assert found["RootFS"]["Layers"][:-1] == engine.images.inspect(image)["RootFS"]["Layers"]
    script = "cat /data/file /swap /tofile/in /link/file; ls /data /opaque; stat -c '%a' /plain; stat -c %h /other"
    assert output(engine, made, script) == "1\nmore\nfile\nin\nx\n/data:\nfile\nkeep\n\n/opaque:\nc\n700\n2\n"
    again = engine.containers.create(made, options("true"))
    assert engine.containers.diff(again) == []
    engine.containers.remove(again)


def test_a_commit_is_the_same_layer_as_a_build_step(
    engine: sampan.Engine, changed: str, image: str, tmp_path: pathlib.Path
) -> None:
    """The same files with the same times would be the same layer; times differ, so names and whiteouts are compared."""
    made = engine.images.inspect(engine.containers.commit(changed))["RootFS"]["Layers"][-1]
    (tmp_path / "Dockerfile").write_text(f"FROM {image}\nRUN {SCRIPT.replace(chr(10), '; ')}\n")
    built = engine.images.inspect(engine.build(str(tmp_path)))["RootFS"]["Layers"][-1]

    def names(digest: str) -> list[tuple[str, bytes]]:
        with tarfile.open(engine.store.content.path(digest)) as tar:
            return [(member.name, member.type) for member in tar]

    assert names(made) == names(built)


def test_changes_are_dockers_instructions(engine: sampan.Engine, changed: str) -> None:
    words = ['CMD ["serve"]', "ENV A=$KEPT B=2", "LABEL l=1", "EXPOSE 80", "USER 5", "WORKDIR /w", "VOLUME /v"]
    words += ["ONBUILD RUN true", "HEALTHCHECK --interval=5s CMD true", "STOPSIGNAL INT", 'ENTRYPOINT ["e"]']
    config = engine.images.inspect(engine.containers.commit(changed, changes=words))["Config"]
    assert config["Cmd"] == ["serve"] and config["Entrypoint"] == ["e"] and config["WorkingDir"] == "/w"
    assert {"A=yes", "B=2"} <= set(config["Env"]) and config["Labels"]["l"] == "1" and config["User"] == "5"
    assert "80/tcp" in config["ExposedPorts"] and config["Volumes"] == {"/v": {}}
    assert config["OnBuild"] == ["RUN true"] and config["Healthcheck"]["Interval"] == 5_000_000_000
    assert config["StopSignal"] == "INT"
    for wrong in ("RUN true", "COPY a b", "NONSENSE x", "EXPOSE many"):
        with pytest.raises(SampanError):
            engine.containers.commit(changed, "never", changes=[wrong])
    with pytest.raises(NotFound):
        engine.images.inspect("never")


def test_a_running_container_is_committed_whole_and_goes_on(engine: sampan.Engine) -> None:
    script = "i=0; while :; do i=$((i+1)); echo $i >/one; echo $i >/two; done"
    name = str(engine.containers.run(options("sh", "-c", script), image="base", detach=True))
    try:
        second = pathlib.Path(engine.store.paths.container(name), "upper/two")
        until(lambda: second.exists() and second.read_text())
        for _ in range(3):
            made = engine.containers.commit(name)
            one, two = _pair(engine, made)
            if not cgroup.named(name).directories():
                continue  # an ordinary user's container without a group: a warning says that it went on
            # a file may be caught between its truncation and its number
            assert 0 in (one, two) or 0 <= one - two <= 1, "it stood still while it was read"
        before = max(_pair(engine, engine.containers.commit(name)))
        time.sleep(0.3)
        later = (max(_pair(engine, engine.containers.commit(name, pause=False))) for _ in range(20))
        assert any(number > before for number in later)
    finally:
        engine.containers.remove(name, force=True)


def _pair(engine: sampan.Engine, image: str) -> tuple[int, int]:
    """Give both numbers; without a pause a file may be read as zeros, when it is cut after its size was looked at."""
    one, _, two = output(engine, image, "cat /one; echo -; cat /two").partition("-\n")
    return int(one.strip("\0\n") or 0), int(two.strip("\0\n") or 0)


@pytest.mark.parametrize("name", ["UPPER:case", "a@sha256:" + "0" * 64, "bad name"])
def test_wrong_names_make_nothing(engine: sampan.Engine, changed: str, name: str) -> None:
    before = len(engine.images.ls())
    with pytest.raises(InvalidArgument):
        engine.containers.commit(changed, name)
    assert len(engine.images.ls()) == before


@pytest.mark.parametrize("words", [["diff", "no-such"], ["commit", "no-such"]])
def test_an_unknown_container_is_told_in_a_line(engine: sampan.Engine, words: list[str]) -> None:
    done = subprocess.run(engine.command(words), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "sampan: no such container: no-such\nhint: `sampan ps -a` lists what there is\n",
    )
