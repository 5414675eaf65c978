"""Whole builds with the real executor: each instruction's effect on image, layers, history."""

from __future__ import annotations

import os
import pathlib
import subprocess
import tarfile
from collections.abc import Callable, Iterator

import pytest
from buildsupport import Built, left_over

import sampan
from sampan.errors import BuildError, InvalidArgument, NotFound, NotSupported
from sampan.runtime import hostfiles

Build = Callable[..., Built]


def test_run_changes_one_layer_and_the_history(build: Build) -> None:
    built = build("FROM base\nRUN echo hello >/greeting\n")
    assert set(built.layer()) == {"greeting"}
    assert built.read("greeting") == b"hello\n"
    assert built.history[-1] == "RUN /bin/sh -c echo hello >/greeting"
    assert "empty_layer" not in built.image.config["history"][-1]


def test_a_run_that_changes_nothing_has_no_layer(build: Build) -> None:
    built = build("FROM base\nRUN true\n")
    assert len(built.image.diff_ids) == 1
    assert built.image.config["history"][-1]["empty_layer"] is True


def test_metadata_instructions(build: Build) -> None:
    built = build(
        'FROM base\nARG A=1\nENV X=$A Y="a b"\nENV X=$X$X\nLABEL one=1 "two words"=2\n'
        'EXPOSE 80 90-91/udp\nVOLUME /data ["a"]\n'
        "USER 5:6\nSTOPSIGNAL SIGTERM\nMAINTAINER me\nHEALTHCHECK --interval=3s CMD true\nONBUILD RUN true\n"
        'SHELL ["/bin/sh", "-ec"]\nCMD echo $X\n'
    )
    config = built.config
    assert config["Env"][-2:] == ["X=11", "Y=a b"]
    assert config["Labels"] == {"one": "1", "two words": "2"}
    assert set(config["ExposedPorts"]) == {"80/tcp", "90/udp", "91/udp"}
    assert config["User"] == "5:6"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "true"], "Interval": 3_000_000_000}
    assert config["OnBuild"] == ["RUN true"]
    assert config["Shell"] == ["/bin/sh", "-ec"]
    assert config["Cmd"] == ["/bin/sh", "-ec", "echo $X"]
    assert built.image.config["author"] == "me"
    assert len(built.image.diff_ids) == 1
    assert all(row["empty_layer"] for row in built.image.config["history"][-13:])


def test_entrypoint_resets_the_base_command(build: Build) -> None:
    build('FROM base\nCMD ["a"]\n', tags=["with-cmd"])
    assert "Cmd" not in build('FROM with-cmd\nENTRYPOINT ["x"]\n').config
    assert build('FROM with-cmd\nCMD ["b"]\nENTRYPOINT ["x"]\n').config["Cmd"] == ["b"]


def test_history_says_destinations_as_they_were_written(build: Build) -> None:
    """As BuildKit: a final slash, `.` and what is relative stay; variables are expanded; lists are Go's %v."""
    lines = ["COPY a /x/", "COPY a x/y/", "COPY a ./", "ADD a z", "COPY a $D/", "COPY --from=base /bin/sh /from/"]
    text = "FROM base\nENV D=/dir\nWORKDIR /w\n" + "\n".join(lines) + '\nVOLUME /v/ /u\nSHELL ["/bin/sh", "-ec"]\n'
    built = build(text, {"a": "x"})
    wanted = [*lines, "VOLUME [/v/ /u]", "SHELL [/bin/sh -ec]"]
    wanted[4] = "COPY a /dir/"
    assert built.history[-8:] == wanted
    assert {"x/a", "w/x/y/a", "w/a", "w/z", "dir/a", "from/sh"} <= set(built.files())


def test_arguments_are_in_the_environment_and_the_history_but_not_in_the_image(build: Build) -> None:
    built = build(
        "ARG G=global\nFROM base\nARG G\nARG V=default\nARG UNSET\nENV E=1\nRUN echo $G $V $E ${UNSET-unset}\n",
        build_args={"V": "given", "NOBODY": "x", "http_proxy": "p"},
    )
    assert built.output == "global given 1 unset\n"
    assert built.history[-1].startswith("RUN |2 G=global V=given /bin/sh -c echo")
    assert not [entry for entry in built.config["Env"] if entry.startswith(("G=", "V=", "http_proxy"))]
    warnings = [event.text for event in built.events if event.kind == "warning"]
    assert [text for text in warnings if "build-arg" in text] == [  # a user without ids of a range is told that too
        "[Warning] One or more build-args [NOBODY] were not consumed"
    ]


def test_proxies_reach_the_step_but_not_the_key(build: Build) -> None:
    first = build("FROM base\nRUN echo proxy=$http_proxy\n", build_args={"http_proxy": "one"})
    second = build("FROM base\nRUN echo proxy=$http_proxy\n", build_args={"http_proxy": "two"})
    assert first.output == "proxy=one\n"
    assert second.cached == 1


def test_platform_arguments_need_a_declaration(build: Build) -> None:
    built = build("FROM --platform=$BUILDPLATFORM base\nARG TARGETARCH\nRUN echo $TARGETOS-$TARGETARCH\n")
    assert built.output.startswith("-") and len(built.output) > 3


def test_workdir_makes_the_directory(build: Build, engine: sampan.Engine) -> None:
    user = 7 if engine.host.counts() != (1, 1) else 0  # whoever has one id only can be nobody else
    built = build(f"FROM base\nENV D=/a\nWORKDIR $D\nWORKDIR b/../c\nUSER {user}\nRUN id -u; stat -c %u:%a .\n")
    assert built.config["WorkingDir"] == "/a/c"
    assert built.output.startswith(f"{user}\n0:755\n")
    assert {"a", "a/c"} <= set(built.files())


def test_onbuild_triggers_run_once(build: Build) -> None:
    build("FROM base\nONBUILD COPY f /triggered\nONBUILD ENV T=1\n", tags=["trigger"])
    built = build("FROM trigger\nRUN cat /triggered; echo $T\n", {"f": "text\n"}, tags=["child"])
    assert built.output == "text\n1\n"
    assert "OnBuild" not in built.config
    assert "triggered" not in build("FROM child\nRUN true\n").files().keys() - built.files().keys()


def test_a_trigger_may_need_a_long_chain_of_stages(build: Build) -> None:
    build("FROM base\nONBUILD COPY --from=400 /bin/sh /x\n", tags=["trigger"])
    chain = "".join(f"FROM s{number - 1} AS s{number}\n" for number in range(1, 401))
    assert "x" in build(f"FROM base AS s0\n{chain}FROM trigger\n").layer()


def test_labels_tags_and_target(build: Build, engine: sampan.Engine) -> None:
    built = build(
        "FROM base AS a\nENV A=1\nFROM base AS b\nENV B=1\n", target="A", labels={"l": "v"}, tags=["x:1", "y"]
    )
    assert "A=1" in built.config["Env"]
    assert built.config["Labels"]["l"] == "v"
    assert engine.store.images.resolve("x:1").id == engine.store.images.resolve("y").id == built.id
    with pytest.raises(BuildError, match="no stage of this name") as caught:
        build("FROM base AS builder\n", target="bulider")
    assert "builder" in caught.value.hint
    with pytest.raises(BuildError) as caught:
        build("FROM base AS one\nFROM base\n", target="nope")
    assert caught.value.hint == "stages of this file: one, 1"


def test_limits_hold_in_run_and_are_no_part_of_the_result(build: Build) -> None:
    dockerfile = "FROM base\nRUN ulimit -n >/files; stat -f -c %b*%S /dev/shm >/shm\n"
    built = build(dockerfile, limits={"ulimits": ["nofile=123:456"], "shm_size": 1 << 20})
    blocks, size = built.read("shm").split(b"*")
    assert (built.read("files"), int(blocks) * int(size)) == (b"123\n", 1 << 20)
    assert build(dockerfile).image.id == built.image.id  # from the cache, as in Docker
    with pytest.raises(InvalidArgument, match="no such limit"):
        build(dockerfile, limits={"privileged": True})


def test_the_memory_of_run_is_limited(build: Build) -> None:
    dockerfile = "FROM base\nRUN dd if=/dev/zero of=/dev/null bs={} count=1\n"
    limits = {"memory": 32 << 20, "memory_swap": 32 << 20}
    try:
        build(dockerfile.format("1M"), limits=limits)
    except NotSupported as error:
        pytest.skip(f"this user has no control group: {error.message}")
    with pytest.raises(BuildError, match="signal 9|memory|exit code"):
        build(dockerfile.format("64M"), limits=limits)
    build(dockerfile.format("64M"))


def test_one_stage_without_the_cache(build: Build) -> None:
    dockerfile = "FROM base AS one\nRUN cat /proc/sys/kernel/random/uuid >/a\n"
    dockerfile += "FROM base AS two\nRUN cat /proc/sys/kernel/random/uuid >/b\nCOPY --from=one /a /a\n"
    first = build(dockerfile)
    again, anew = build(dockerfile), build(dockerfile, no_cache_stages=["ONE"])
    assert again.image.id == first.image.id
    assert anew.image.diff_ids[:2] == first.image.diff_ids[:2] and anew.image.diff_ids[2] != first.image.diff_ids[2]
    with pytest.raises(InvalidArgument, match="stage 'three': there is none"):
        build(dockerfile, no_cache_stages=["three"])


def test_failing_run(build: Build, engine: sampan.Engine) -> None:
    with pytest.raises(BuildError) as caught:
        build("FROM base\nRUN true\n\nRUN echo oops >&2; exit 3\n")
    error = caught.value
    assert (error.step, error.stage, error.output) == (3, "stage-0", b"oops\n")
    assert error.instruction == "RUN echo oops >&2; exit 3"
    assert 'process "/bin/sh -c echo oops >&2; exit 3" did not complete successfully: exit code: 3' in error.message
    assert (error.file, error.line) == ("Dockerfile", 4)
    assert ">>> RUN echo oops" in error.excerpt
    assert left_over(engine) == []


def test_program_that_is_missing(build: Build) -> None:
    with pytest.raises(BuildError) as caught:
        build('FROM scratch\nCOPY f /f\nRUN ["/nothing"]\n', {"f": ""})
    assert "/nothing" in caught.value.message
    assert caught.value.line == 3


# ---- a step's own names ----

OWN = {
    "file": "echo 192.0.2.1 own > /etc/hosts; echo theirs > /etc/hostname; echo search theirs > /etc/resolv.conf",
    "empty": ": > /etc/hosts; : > /etc/hostname; : > /etc/resolv.conf",
    "missing": "rm -f /etc/hosts /etc/hostname /etc/resolv.conf",
    "emptied": "rm -rf /etc; mkdir /etc",
    "no etc": "rm -rf /etc",
}
KNOWS = "while read a b; do case $b in localhost*) break; esac; done < /etc/hosts; case $b in localhost*) ;; *) exit 1;"
KNOWS += "esac"
WRITES = "for name in hosts hostname resolv.conf; do echo lost >> /etc/$name; done"


@pytest.fixture(params=OWN)
def names(request: pytest.FixtureRequest, engine: sampan.Engine, commit: Callable[..., None]) -> Iterator[str]:
    """Give an image that has names of its own, or none."""
    commit(engine, "names", OWN[request.param])
    yield "names"
    engine.images.remove("names", force=True)


@pytest.mark.parametrize("network", ["none", "host"])
def test_a_step_has_names_of_its_own_and_its_layer_has_not(build: Build, names: str, network: str) -> None:
    """As Docker: hosts, resolv.conf and hostname are the step's, and what it writes there is lost."""
    built = build(f"FROM {names}\nRUN {WRITES}; {KNOWS}\nRUN {KNOWS}; {WRITES}\n", network=network)
    below = len(built.engine.images.runnable(names).diff_ids)
    assert len(built.image.diff_ids) == below, "the steps changed nothing"
    assert all(row.get("empty_layer") for row in built.image.config["history"][-2:])
    made = build(f"FROM {names}\nRUN mkdir -p /etc && echo x > /etc/made && {WRITES}\n", network=network)
    assert {name for name in made.layer() if name != "etc"} == {"etc/made"}


def test_a_steps_names_are_localhosts_or_the_hosts(build: Build) -> None:
    script = "cat /etc/hosts; read name < /etc/hostname; echo $name"
    files = {"hosts": "192.0.2.1 own\n", "hostname": "theirs\n"}
    begin = "FROM base\nCOPY hosts hostname /etc/\n"
    assert build(f"{begin}RUN {script}\n", files).output == hostfiles.LOCAL + "build\n"
    built = build(f"{begin}RUN {script}\n", files, network="host")
    assert built.output.startswith(pathlib.Path("/etc/hosts").read_text())
    assert built.read("etc/hosts") == b"192.0.2.1 own\n"


def test_what_is_mounted_on_cannot_be_taken_away(build: Build) -> None:
    with pytest.raises(BuildError) as caught:
        build("FROM base\nRUN rm -f /etc/hosts\n")
    assert b"busy" in caught.value.output


LEFT = {"link": "rm -f /etc/hosts; ln -s /made /etc/hosts", "plain etc": "rm -rf /etc; : > /etc"}


@pytest.mark.parametrize("kind", LEFT)
def test_what_is_no_place_for_names_stays(
    build: Build, engine: sampan.Engine, commit: Callable[..., None], kind: str
) -> None:
    commit(engine, "odd", LEFT[kind])
    try:
        assert set(build("FROM odd\nRUN echo x > /made; echo y >> /etc/hosts || true\n").layer()) == {"made"}
    finally:
        engine.images.remove("odd", force=True)


def test_a_directory_that_a_step_changed_stays_in_its_layer(
    build: Build, engine: sampan.Engine, commit: Callable[..., None]
) -> None:
    commit(engine, "hostless", "rm -f /etc/hosts")
    built = build("FROM hostless\nRUN chmod 711 /etc\n")
    engine.images.remove("hostless", force=True)
    assert built.layer().keys() == {"etc"} and built.layer()["etc"].mode == 0o711


def test_a_base_without_a_path_gets_the_default_one(
    build: Build, engine: sampan.Engine, tmp_path: pathlib.Path
) -> None:
    name = tmp_path / "base.tar"
    with tarfile.open(name, "w") as tar:
        tar.addfile(tarfile.TarInfo("empty"))
    engine.images.import_(str(name), "pathless:1")
    try:
        config = build("FROM pathless:1\nENV A=1\nENV PATH=/opt/bin:$PATH\n").config
    finally:
        engine.images.remove("pathless:1", force=True)
    assert config["Env"] == ["PATH=/opt/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "A=1"]


def test_network_hint_and_consent(build: Build) -> None:
    with pytest.raises(BuildError, match="exit code: 100") as caught:
        build("FROM base\nRUN get() { return 100; }; : curl; get\n")
    assert "--network host" in caught.value.hint
    with pytest.raises(BuildError, match="exit code: 127") as caught:
        build("FROM base\nRUN apt-get update\n")
    assert caught.value.hint == "", "a program that is not there needs no network"
    with pytest.raises(BuildError, match="not allowed"):
        build("FROM base\nRUN --network=host true\n")
    probe = "RUN cat /proc/net/dev | sed 1,2d | sort | sed 's/:.*//'\n"
    assert build("FROM base\n" + probe).output.split() == ["lo"]
    host = sorted(os.listdir("/sys/class/net"))
    if len(host) > 1:
        assert sorted(build("FROM base\n" + probe, network="host").output.split()) == host


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("RUN --mount=type=cache,target=/c true", "RUN --mount=type=cache is not supported yet"),
        ("RUN --security=insecure true", "not supported"),
        ("ADD https://example.com/x /x", "ADD of https://example.com/x is not supported yet"),
        ("ADD --checksum=sha256:abc f /x", "ADD --checksum is for HTTP(S) sources"),
        ("COPY --chmod=u+x f /x", "not an octal mode"),
        ("COPY nothing /x", "cannot copy nothing: the build context has no such file"),
        ("COPY f g /x", "must be a directory"),
        ("COPY --from=1 f /x", "does not name an earlier stage"),
        ("EXPOSE $NOTHING/x/y", "cannot expose"),
    ],
)
def test_located_errors(build: Build, line: str, words: str) -> None:
    with pytest.raises(BuildError, match="Dockerfile:2") as caught:
        build(f"FROM base\n{line}\n", {"f": "", "g": ""})
    assert words in caught.value.message
    assert caught.value.excerpt


@pytest.mark.parametrize("kind", ["bind", "cache,target=/c", "tmpfs,target=/t", "secret,id=s", "ssh"])
def test_a_mount_that_is_not_there_yet_says_what_to_do_instead(build: Build, kind: str) -> None:
    with pytest.raises(BuildError, match=f"--mount=type={kind.partition(',')[0]} is not supported yet") as caught:
        build(
            f"FROM base\nRUN --mount=type={kind},target=/m true\n"
            if kind == "bind"
            else f"FROM base\nRUN --mount=type={kind} true\n"
        )
    assert "leave the mount out" in caught.value.hint or "COPY" in caught.value.hint


def test_missing_source_names_the_nearest(build: Build) -> None:
    with pytest.raises(BuildError) as caught:
        build("FROM base\nCOPY requirments.txt /x\n", {"requirements.txt": ""})
    assert "requirements.txt" in caught.value.hint


def test_ignored_source_says_so(build: Build) -> None:
    with pytest.raises(BuildError, match="excluded by .dockerignore"):
        build("FROM base\nCOPY secret /x\n", {"secret": "s", ".dockerignore": "secret\n"})


def test_dockerignore_thins_the_copy_and_the_special_one_wins(build: Build) -> None:
    files: dict[str, object] = {
        "a.txt": "",
        "b.log": "",
        "d/c.log": "",
        "d/keep.log": "",
        ".dockerignore": "**/*.log\n!d/keep.log\n",
    }
    assert set(build("FROM base\nCOPY . /x\n", files).layer()) >= {"x/a.txt", "x/d/keep.log"}
    names = build("FROM base\nCOPY . /x\n", files).layer()
    assert "x/b.log" not in names and "x/d/c.log" not in names
    special = build("FROM base\nCOPY . /x\n", {**files, "Dockerfile.dockerignore": "*.txt\n"}).layer()
    assert "x/b.log" in special and "x/a.txt" not in special


def test_another_dockerfile_and_standard_input(build: Build, engine: sampan.Engine, tmp_path: pathlib.Path) -> None:
    other = tmp_path / "Other"
    other.write_text("FROM base\nENV OTHER=1\nCOPY f /f\n")
    assert "OTHER=1" in build("FROM nothing\n", {"f": ""}, file=str(other)).config["Env"]
    read, write = os.pipe()
    os.write(write, b"FROM base\nENV PIPE=1\n")
    os.close(write)
    found = engine.store.images.resolve(engine.build(read))  # type: ignore[arg-type]
    os.close(read)
    assert "PIPE=1" in found.config["config"]["Env"]


def test_context_without_dockerfile(engine: sampan.Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "dockerfile").write_text("FROM base")
    with pytest.raises(NotFound, match="it has no Dockerfile") as caught:
        engine.build(str(tmp_path))
    assert "dockerfile" in caught.value.hint
    with pytest.raises(NotFound, match="cannot use the build context"):
        engine.build(str(tmp_path / "nothing"))


def test_settings_are_checked(build: Build) -> None:
    with pytest.raises(NotSupported, match="platform"):
        build("FROM base\n", platform="linux/s390x")
    with pytest.raises(BuildError, match="platform"):
        build("FROM --platform=linux/x/y/z base\n")
    with pytest.raises(BuildError, match="platform"):
        build("FROM --platform=linux/s390x base\n")
    with pytest.raises(InvalidArgument):
        build("FROM base\n", network="bridge")
    with pytest.raises(InvalidArgument):
        build("FROM base\n", tags=["UPPER CASE"])


def test_base_layers_keep_their_descriptors(build: Build, engine: sampan.Engine) -> None:
    from sampan.oci import jsontext

    built = build("FROM base\nRUN echo 1 >/f\n")
    manifest = jsontext.loads(engine.store.content.read(built.image.manifest_digest))
    base = jsontext.loads(engine.store.content.read(engine.store.images.resolve("base").manifest_digest))
    assert manifest["layers"][0]["digest"] == base["layers"][0]["digest"]
    assert manifest["layers"][1]["digest"] == built.image.diff_ids[1]
    assert manifest["layers"][1]["size"] == os.stat(engine.store.content.path(built.image.diff_ids[1])).st_size


def test_the_image_runs(build: Build, engine: sampan.Engine) -> None:
    build('FROM base\nCOPY f /f\nENTRYPOINT ["cat"]\nCMD ["/f"]\n', {"f": "works"}, tags=["runs"])
    assert engine.run("runs").stdout == b"works"


def test_other_tools_read_the_layers(build: Build, engine: sampan.Engine) -> None:
    built = build("FROM base\nRUN mkdir -p /d && echo 1 >/d/f && ln -s f /d/l\n")
    path = engine.store.content.path(built.image.diff_ids[-1])
    done = subprocess.run(["tar", "tf", path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["d/", "d/f", "d/l"]
