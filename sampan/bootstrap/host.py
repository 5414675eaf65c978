"""Put together a small root file system from programs of this host, with everything that they need and nothing else.

No network and no privilege: files are read, never run (but for interpreters, which are asked where their library
lies), and whoever packs, the owners are 0:0. The result is one layer of an ordinary image.
"""

from __future__ import annotations

import os

from sampan.bootstrap import HOSTS
from sampan.bootstrap.closure import STANDARD_PATH, Libraries
from sampan.bootstrap.interpreters import add_closure, add_perl, add_python, is_perl, is_python
from sampan.bootstrap.tree import Node, Tree
from sampan.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# What a script may expect of the smallest system; a host that lacks one of them is not refused for it.
USUAL = """
    [ awk base64 basename bash cat chgrp chmod chown cmp comm cp cut date dd df diff dirname du echo egrep env expr
    false fgrep find fold getent grep gunzip gzip head hostname id install kill ln ls md5sum mkdir mkfifo mknod
    mktemp mv nl nohup nproc od paste pathchk printenv printf pwd readlink realpath rev rm rmdir sed seq sha1sum
    sha256sum sha512sum sleep sort split stat stty sync tac tail tar tee test timeout touch tr true truncate tty
    uname uniq unlink wc which whoami xargs yes
"""
USUAL_TOOLS = "coreutils"  # a word for all of USUAL, as nobody wants to list them
DEFAULT = ("make", "python3")
DIRECTORIES = {
    "/tmp": 0o1777,
    "/var/tmp": 0o1777,
    "/root": 0o700,
    "/proc": 0o555,
    "/sys": 0o555,
    "/dev": 0o755,
    "/run": 0o755,
}
LINKS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
CERTIFICATES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")
# Opened by name at run time, so that no file lists them: name service (glibc nss), thread exit (glibc pthread_exit).
GLIBC_RUNTIME = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2", "libgcc_s.so.1")
PASSWD = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
GROUP = b"root:x:0:\nnobody:x:65534:\n"
NSSWITCH = b"passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n"


def make(programs: Sequence[str] = (), root: str = "", path: str | None = None) -> Iterator[Node]:
    """Yield the files of an image that can run `programs` (default: a shell, the usual tools, make and Python).

    `sh` is always there, and "coreutils" stands for the usual tools. `path` is searched after the standard
    directories (default: PATH). A program that is not found raises NotFound with its name.
    """
    tree, libraries = Tree(root), Libraries(root)
    search = os.environ.get("PATH", "") if path is None else path
    for name in LINKS:
        if os.path.lexists(root + name):
            tree.add(name)
    add_program(tree, libraries, "sh", search)
    for program in programs or (USUAL_TOOLS, *DEFAULT):
        if program == USUAL_TOOLS:
            add_usual(tree, libraries)
        else:
            add_program(tree, libraries, program, search)
    add_system(tree, libraries)
    return tree.nodes()


def add_usual(tree: Tree, libraries: Libraries) -> None:
    """Pack those of the usual tools that this host has in its standard directories."""
    for program in USUAL.split():
        try:
            add_closure(tree, libraries, _as_found(tree, libraries, program, ""))
        except NotFound:
            continue


def add_program(tree: Tree, libraries: Libraries, program: str, search: str) -> None:
    """Pack one program by name or absolute path, so that its name is found on the image's PATH."""
    if not program or program in (".", "..") or "\0" in program:
        raise InvalidArgument(f"cannot pack program {program!r}: not a name")
    if is_python(program):
        executable = add_python(tree, libraries, program, search)
        for name in dict.fromkeys((os.path.basename(program), "python3", "python")):
            link(tree, name, executable)
        return
    if is_perl(program):
        link(tree, "perl", add_perl(tree, libraries, search))
        return
    found = _as_found(tree, libraries, program, search)
    add_closure(tree, libraries, found)
    link(tree, os.path.basename(program), found)


def _as_found(tree: Tree, libraries: Libraries, program: str, search: str) -> str:
    """Return a program's path; one below a directory that is a link (/bin) is as good as one below its target."""
    found = libraries.which(program, search)
    tree.add(os.path.dirname(found))
    return found


def link(tree: Tree, name: str, executable: str) -> None:
    """Make sure that `name` is found on the image's PATH: beside the executable, or in /usr/local/bin."""
    parent = os.path.dirname(executable)
    if parent in STANDARD_PATH:
        base = os.path.basename(executable)
        if name != base and not any(f"{place}/{name}" in tree for place in STANDARD_PATH):
            tree.add_link(f"{parent}/{name}", "python3" if f"{parent}/python3" in tree and is_python(name) else base)
        return
    tree.add_link(f"/usr/local/bin/{name}", executable)


def add_system(tree: Tree, libraries: Libraries) -> None:
    """Pack the files and directories that every program may expect."""
    for path, mode in DIRECTORIES.items():
        if path not in tree or mode != 0o700:
            tree.add_directory(path, mode)
    tree.add_bytes("/etc/passwd", PASSWD)
    tree.add_bytes("/etc/group", GROUP)
    tree.add_bytes("/etc/hosts", HOSTS.encode())
    tree.add_bytes("/etc/os-release", os_release(_read(f"{tree.root}/etc/os-release")))
    for path in CERTIFICATES:
        if os.path.isfile(tree.root + path) and os.access(tree.root + path, os.R_OK):
            tree.add(path)
    shell = libraries.parsed(tree.add("/bin/sh"))
    if shell is not None and "/ld-musl-" not in shell.interpreter:
        add_glibc(tree, libraries, shell.kind)
    elif shell is not None:
        for name in sorted(os.listdir(tree.root + "/etc")):
            if name.startswith("ld-musl-") and name.endswith(".path"):
                tree.add(f"/etc/{name}")


def add_glibc(tree: Tree, libraries: Libraries, kind: tuple[int, int]) -> None:
    """Pack what glibc opens at run time, and its cache where a library was found only through that."""
    tree.add_bytes("/etc/nsswitch.conf", NSSWITCH)
    for name in GLIBC_RUNTIME:
        found = libraries.find(name, kind)
        if found:
            for needed in libraries.closure(found, lenient=True):
                tree.add(needed)
    if libraries.from_cache:
        tree.add("/etc/ld.so.cache")


def os_release(host: str) -> bytes:
    """Describe the image as made from this host (os-release(5))."""
    values = dict(line.split("=", 1) for line in host.splitlines() if "=" in line and not line.startswith("#"))
    name = values.get("PRETTY_NAME", "Linux").strip("\"'")
    clean = "".join(letter for letter in name if letter.isprintable() and letter not in '"\\$`')
    lines = ["ID=sampan-host", 'NAME="sampan host tree"', f'PRETTY_NAME="programs of {clean}"']
    like = values.get("ID", "").strip("\"'")
    if like and not like.strip("abcdefghijklmnopqrstuvwxyz0123456789._-"):
        lines.append(f"ID_LIKE={like}")
    return ("\n".join(lines) + "\n").encode()


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(65536)
    except OSError:
        return ""  # os-release is optional (os-release(5))
