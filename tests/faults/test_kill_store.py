"""kill -9 of each process of each command that changes images, volumes, records or logins, or writes files for the
caller, before each system call that changes something (tracer.py): afterwards the same command works or says in a line
why not, `system check` finds nothing, every file has an owner, nothing is left (invariants.py), and what was written
for the caller is whole (products.py).

`make test-faults` kills at a dozen calls of each process, with `SAMPLE=0` at every one; `make test` at one of each
process of the commands in QUICK. A command is added by a row of CASES.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from invariants import Store, spread
from products import Products
from test_kill_sweep import FULL, ROLES

REGISTRY = Path(__file__).parent.parent / "registry"
QUICK = ("pull", "load", "build", "commit", "volume rm")
CREATED = ["create", "--name", "t", "base", "true"]
MADE = ("built", "made", "other", "loaded:1", "imported", "booted", "copied")

# What is done first ("-": it may fail), and the command that is killed. REG: the registry; FILES: a directory.
CASES: dict[str, tuple[list[list[str]], list[str]]] = {
    "pull": ([["-", "rmi", "-f", "REG/small:1"]], ["pull", "-q", "REG/small:1"]),
    "load": ([["-", "rmi", "-f", "loaded:1"]], ["load", "-q", "-i", "FILES/loaded.tar"]),
    "save": ([], ["save", "-o", "FILES/out.tar", "base"]),
    "build": ([], ["build", "-q", "--no-cache", "-t", "built", "FILES/context"]),
    "commit": ([CREATED], ["commit", "t", "made"]),
    "tag": ([], ["tag", "base", "other"]),
    "rmi": ([["load", "-q", "-i", "FILES/loaded.tar"]], ["rmi", "loaded:1"]),
    "cp in": ([CREATED], ["cp", "FILES/context", "t:/copied"]),
    "cp out": ([CREATED], ["cp", "t:/etc", "FILES/copied"]),
    "export": ([CREATED], ["export", "-o", "FILES/exported.tar", "t"]),
    "import": ([], ["import", "FILES/root.tar", "imported"]),
    "bootstrap": ([], ["bootstrap", "-t", "booted", "host", "true"]),
    "image copy oci": ([], ["image", "copy", "-q", "base", "oci:FILES/layout"]),
    "image copy archive": ([], ["image", "copy", "-q", "base", "oci-archive:FILES/archive.tar"]),
    "image copy in": ([], ["image", "copy", "-q", "oci-archive:FILES/loaded.tar", "copied"]),
    "prune": ([["import", "FILES/root.tar", "imported"], ["volume", "create", "v"], CREATED],
              ["system", "prune", "-a", "-f", "--volumes", "--filter", "label!=keep"]),
    "rename": ([CREATED], ["rename", "t", "renamed"]),
    "update": ([CREATED], ["update", "--restart", "always", "t"]),
    "create": ([], ["create", "--name", "t", "-v", "named:/v", "base", "true"]),
    "volume create": ([["-", "volume", "rm", "v"]], ["volume", "create", "v"]),
    "volume rm": ([["volume", "create", "v"]], ["volume", "rm", "v"]),
    "doctor": ([], ["doctor"]),
    "login": ([], ["login", "-u", "somebody", "-p", "secret", "REG"]),
}  # fmt: skip

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="a tracer of set-uid programs must be root"),
    pytest.mark.skipif(not shutil.which("docker-registry"), reason="needs docker-registry"),
    pytest.mark.parametrize("store", ["root", "user", "mapped"] if FULL else ["root"], indirect=True, scope="module"),
]

DOCKERFILE = "FROM base\nRUN sh -c 'echo x > /made'\nCOPY file /copied\n"


@pytest.fixture(scope="module")
def registry(store: Store) -> Iterator[str]:
    """Serve `small`, and prepare the files that the cases use."""
    sys.path.insert(0, str(REGISTRY))
    from registrysupport import running

    beside = files(store)
    (beside / "context").mkdir(parents=True)
    (beside / "context/Dockerfile").write_text(DOCKERFILE)
    (beside / "context/file").write_text("content\n")
    os.chown(beside, *store.ids)
    store.env["HOME"] = str(beside)
    with running(beside / "registry") as served:
        (beside / "kept").mkdir()
        (beside / "kept/Dockerfile").write_text("FROM base\nLABEL keep=yes\n")
        store.succeeds("build", "-q", "-t", "base", f"{beside}/kept")
        store.succeeds("build", "-q", "-t", f"{served.host}/small:1", "-t", "loaded:1", f"{beside}/context")
        store.succeeds("push", "-q", f"{served.host}/small:1")
        store.succeeds("save", "-o", f"{beside}/loaded.tar", "loaded:1")
        store.succeeds("rmi", "-f", f"{served.host}/small:1", "loaded:1")
        store.succeeds(*CREATED)
        store.succeeds("export", "-o", f"{beside}/root.tar", "t")
        store.succeeds("rm", "t")
        yield served.host
    shutil.rmtree(beside)


def files(store: Store) -> Path:
    """Give a directory for what is not the store's."""
    return store.root.with_name(store.root.name + "-files")


def words_of(store: Store, words: list[str], registry: str) -> list[str]:
    return [word.replace("REG", registry).replace("FILES", str(files(store))) for word in words if word != "-"]


def do(store: Store, words: list[str], registry: str) -> subprocess.CompletedProcess[str]:
    """Run a command; if it fails, in one clear line and a hint."""
    done = store.command(*words_of(store, words, registry))
    assert "Traceback" not in done.stderr and len(done.stderr.splitlines()) <= 4, done.stderr
    return done


def killed(store: Store, case: str, registry: str, role: str, number: int) -> dict[str, object]:
    before, command = CASES[case]
    for words in before:
        done = do(store, words, registry)
        assert words[0] == "-" or done.returncode == 0, f"{words}: {done.stderr}"
    return store.traced(words_of(store, command, registry), role, number)


def check(store: Store, case: str, registry: str, products: Products | None = None) -> None:
    """Assert that all is well, and remove what the case made."""
    made = Products(files(store)) if products is None else products
    looked = store.command("system", "check")
    assert looked.returncode == 0, looked.stdout + looked.stderr
    made.check(after_kill=True)
    do(store, CASES[case][1], registry)
    made.check(after_kill=False)
    store.command("rm", "-f", "t", "renamed")
    store.command("rmi", "-f", *MADE, f"{registry}/small:1")
    store.succeeds("system", "prune", "-f", "--volumes")
    store.succeeds("system", "check", "-q")
    store.check()
    for name in ("copied", "layout"):
        shutil.rmtree(files(store) / name, ignore_errors=True)


@pytest.mark.parametrize("case", CASES)
def test_a_kill_of_what_changes_the_store_leaves_it_whole(
    store: Store, registry: str, case: str, request: pytest.FixtureRequest
) -> None:
    if not FULL and case not in QUICK:
        pytest.skip("some commands as root here, all and also as an ordinary user in `make test-faults`")
    store.clear()
    counts = killed(store, case, registry, "command", 0)["counts"]
    products = Products(files(store))
    products.keep()
    check(store, case, registry, products)
    assert isinstance(counts, dict) and counts["command"] > 1
    for role in ROLES:
        for number in (
            spread(counts[role], request.config.getoption("--sample", 0)) if FULL else [1 + counts[role] // 2]
        ):
            if number > counts[role]:
                continue
            found = killed(store, case, registry, role, number)
            try:
                check(store, case, registry, products)
            except AssertionError as error:
                where = f"{case}: {role} killed before call {number} of {counts[role]}, {found['killed']}"
                raise AssertionError(f"{where}: {error}") from error
