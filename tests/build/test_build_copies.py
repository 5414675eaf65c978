"""COPY and ADD with the real executor: names, owners, archives, other stages."""

from __future__ import annotations

import os
import pathlib
import tarfile
from collections.abc import Callable

import pytest
from buildsupport import Built, Link, needs_ids

import sampan
from sampan.errors import BuildError

Build = Callable[..., Built]


def test_copy_of_files_and_directories(build: Build) -> None:
    files: dict[str, object] = {
        "one": ("1", 0o640),
        "dir/two": ("2", 0o755),
        "dir/.hidden": "h",
        "dir/link": Link("two"),
        "dir/empty": None,
    }
    built = build(
        "FROM base\nCOPY one /new/renamed\nCOPY dir /d\nCOPY one dir/two /many/\nCOPY dir/t* /d\nCOPY . /all\n", files
    )
    new = built.layer(1)
    assert new["new"].mode == 0o755
    assert (new["new/renamed"].mode, new["new/renamed"].uid, new["new/renamed"].gid) == (0o640, 0, 0)
    assert int(new["new/renamed"].mtime) == int(os.stat(built.directory + "/one").st_mtime)
    assert set(built.layer(2)) == {"d", "d/two", "d/.hidden", "d/link", "d/empty"}
    assert built.layer(2)["d/link"].linkname == "two"
    assert set(built.layer(3)) == {"many", "many/one", "many/two"}
    assert set(built.layer(4)) == {"d", "d/two"}
    assert {"all/one", "all/dir/link", "all/Dockerfile"} <= set(built.layer(5))


def test_copy_into_an_existing_directory_keeps_the_name(build: Build) -> None:
    built = build("FROM base\nRUN mkdir -p /real && ln -s real /through\nCOPY f /real\nCOPY f /through\n", {"f": "x"})
    assert "real/f" in built.layer(2)
    assert set(built.layer(3)) == {"real", "real/f"}


def test_copy_replaces_a_link_at_the_destination(build: Build) -> None:
    built = build(
        "FROM base\nRUN echo old >/real && ln -s real /link\nCOPY f /link\nRUN cat /real /link\n", {"f": "new\n"}
    )
    assert built.output == "old\nnew\n"


def test_copy_of_a_directory_onto_a_file_is_refused(build: Build) -> None:
    with pytest.raises(BuildError, match="not a directory"):
        build("FROM base\nRUN touch /f\nCOPY d /f\n", {"d/x": "1"})
    with pytest.raises(BuildError, match="not a directory"):
        build("FROM base\nRUN touch /f\nCOPY d/x /f/\n", {"d/x": "1"})


def test_copy_owner_and_mode(build: Build) -> None:
    files: dict[str, object] = {"f": "x", "d/g": "y"}
    built = build(
        "FROM base\nRUN mkdir -p /etc && echo u:x:41:42::/:/bin/sh >>/etc/passwd && echo g:x:43: >>/etc/group\n"
        "COPY --chown=u f /a\nCOPY --chown=u:g d /d\nCOPY --chown=7 f /b\nCOPY --chown=7:g --chmod=4711 d /e\n",
        files,
    )
    owners = {name: (m.uid, m.gid, oct(m.mode)) for name, m in built.files().items()}
    assert owners["a"][:2] == (41, 42)
    assert owners["d/g"][:2] == owners["d"][:2] == (41, 43)
    assert owners["b"][:2] == (7, 7)
    assert owners["e/g"] == (7, 43, "0o4711")


def test_unknown_owner_is_a_located_error(build: Build) -> None:
    with pytest.raises(BuildError, match="no such user") as caught:
        build("FROM base\nCOPY --chown=nosuchuser f /a\n", {"f": ""})
    assert caught.value.line == 2


def test_copy_excludes_and_parents(build: Build) -> None:
    files: dict[str, object] = {"a/b/c.txt": "1", "a/b/d.go": "2", "top": "3"}
    built = build("FROM base\nCOPY --exclude=**/*.go a /x\nCOPY --parents a/b/c.txt top /p/\n", files)
    assert set(built.layer(1)) == {"x", "x/b", "x/b/c.txt"}
    assert set(built.layer(2)) == {"p", "p/a", "p/a/b", "p/a/b/c.txt", "p/top"}


def test_here_documents(build: Build) -> None:
    built = build(
        "FROM base\nENV V=value\nCOPY <<one <<'two' /h/\nv=$V\none\nv=$V\ntwo\n"
        "RUN <<EOF\necho first\necho $V\nEOF\n"
        "RUN cat <<EOF >/out\ntext $V\nEOF\nRUN <<EOF\n#!/bin/cat\nscript\nEOF\n"
    )
    assert (built.read("h/one", 1), built.read("h/two", 1)) == (b"v=value\n", b"v=$V\n")
    assert built.layer(1)["h/one"].mode == 0o644
    assert built.output == "first\nvalue\n#!/bin/cat\nscript\n"
    assert built.read("out", 2) == b"text value\n"


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_add_unpacks_archives_by_content(build: Build, tmp_path: pathlib.Path, mode: str) -> None:
    path = tmp_path / "archive"
    with tarfile.open(str(path), mode) as tar:  # type: ignore[call-overload]
        member = tarfile.TarInfo("in/side")
        member.uid, member.mode, member.mtime = 12, 0o600, 1000
        tar.addfile(member)
    built = build("FROM base\nADD odd /to\nCOPY odd /copied\nADD --chown=3:4 odd /owned/\n", {"odd": path.read_bytes()})
    assert set(built.layer(1)) == {"to", "to/in", "to/in/side"}
    assert (built.layer(1)["to/in/side"].uid, built.layer(1)["to/in/side"].mtime) == (12, 1000)
    assert set(built.layer(2)) == {"copied"}
    assert built.layer(3)["owned/in/side"].gid == 4


def test_add_copies_what_is_no_archive(build: Build) -> None:
    built = build("FROM base\nADD broken.tar.gz text /to/\n", {"broken.tar.gz": b"\x1f\x8b" + bytes(600), "text": "t"})
    assert set(built.layer()) == {"to", "to/broken.tar.gz", "to/text"}


def test_hostile_archive_stays_inside(build: Build, tmp_path: pathlib.Path, engine: sampan.Engine) -> None:
    outside = tmp_path / "canary"
    outside.write_text("safe")
    path = tmp_path / "archive"
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("escape")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("escape/canary"))
    built = build("FROM base\nADD evil.tar /\n", {"evil.tar": path.read_bytes()})
    assert outside.read_text() == "safe"
    assert f"{tmp_path}/canary".lstrip("/") in built.layer()


@needs_ids
def test_multi_stage(build: Build) -> None:
    built = build(
        "FROM base AS one\nRUN mkdir -p /out/sub && echo bin >/out/prog && chmod 751 /out/prog && chown 5:6 /out/prog"
        " && ln -s prog /out/link && ln /out/prog /out/hard\n"
        "FROM base AS unused\nRUN false\n"
        "FROM scratch\nCOPY --from=one /out /o/\nCOPY --from=one /out/link /followed\nCOPY --from=0 /out/p* /w/\n"
    )
    first = built.layer(0)
    assert set(first) == {"o", "o/sub", "o/prog", "o/link", "o/hard"}
    regular = next(m for m in (first["o/prog"], first["o/hard"]) if m.isreg())
    assert (regular.uid, regular.gid, regular.mode) == (5, 6, 0o751)
    assert first["o/prog"].islnk() or first["o/hard"].islnk()
    assert built.read("followed", 1) == b"bin\n"
    assert set(built.layer(2)) == {"w", "w/prog"}
    assert "unused" not in {event.stage for event in built.events}


def test_copy_from_resolves_inside_the_stage(build: Build, tmp_path: pathlib.Path) -> None:
    (tmp_path / "canary").write_text("host")
    built = build(
        f"FROM base AS one\nRUN ln -s {tmp_path}/canary /abs && ln -s ../../../../..{tmp_path}/canary /rel &&"
        f" mkdir -p {tmp_path} && echo stage >{tmp_path}/canary\n"
        "FROM scratch\nCOPY --from=one /abs /../../rel /x/\n"
    )
    assert built.read("x/abs") == built.read("x/rel") == b"stage\n"


def test_a_file_whose_first_name_is_excluded_comes_by_its_next_one(build: Build) -> None:
    built = build(
        "FROM base AS made\nRUN mkdir -p /d/1 /d/2 && echo new > /d/1/f && ln /d/1/f /d/2/g && ln /d/1/f /d/2/h"
        " && ln -s to /d/1/link && ln /d/1/link /d/2/link\n"
        "FROM base\nRUN mkdir -p /x/1 && echo old > /x/1/f\n"
        "COPY --from=made --exclude=1 /d /x/\nRUN cat /x/2/g /x/2/h /x/1/f\n"
    )
    assert built.output.split() == ["new", "new", "old"]
    files = built.layer(2)
    assert files["x/2/h"].islnk() and files["x/2/h"].linkname == "x/2/g"
    assert files["x/2/link"].linkname == "to"


def test_copy_from_an_image_and_a_missing_file(build: Build) -> None:
    build("FROM scratch\nCOPY f /f\n", {"f": "image"}, tags=["files"])
    assert build("FROM scratch\nCOPY --from=files /f /g\n").read("g") == b"image"
    with pytest.raises(BuildError, match="no such file"):
        build("FROM scratch\nCOPY --from=files /nothing /g\n")
    with pytest.raises(BuildError, match="no such image"):
        build("FROM scratch\nCOPY --from=nosuchimage /f /g\n")


def test_stage_with_the_same_outcome_is_not_copied_again(build: Build, tmp_path: pathlib.Path) -> None:
    text = (
        "FROM base AS one\nRUN echo {} >/other; echo same >/out; touch -d @0 /out\n"
        "FROM scratch\nCOPY --from=one /out /out\n"
    )
    first = build(text.format("a"))
    second = build(text.format("b"))
    assert second.image.diff_ids == first.image.diff_ids
    assert second.cached == 1
