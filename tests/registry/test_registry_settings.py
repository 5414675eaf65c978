"""Where registries are, who the user is there, through which proxy: files and environment, without a network."""

from __future__ import annotations

import base64
import json
import os
import stat
import threading
from pathlib import Path

import pytest

from sampan.errors import Denied, IntegrityError, InvalidArgument, Unavailable
from sampan.oci import reference
from sampan.registry import certificates, challenge, credentials, proxies, settings
from sampan.registry.auth import Login
from sampan.registry.credentials import Credentials

CONF = """
unqualified-search-registries = ["quay.example"]
insecure-networks = ["10.1.0.0/16"]

[[registry]]
prefix = "docker.io"
location = "hub.example/docker"
[[registry.mirror]]
location = "mirror.example:5000/hub"
[[registry.mirror]]
location = "tags.example"
pull-from-mirror = "tag-only"
[[registry.mirror]]
location = "digests.example"
pull-from-mirror = "digest-only"
insecure = true

[[registry]]
prefix = "docker.io/library/secret"
blocked = true

[[registry]]
location = "plain.example:5000"
insecure = true

[[registry]]
prefix = "*.wild.example"
[[registry.mirror]]
location = "wildmirror.example"
"""


@pytest.fixture
def loaded(tmp_path: Path) -> settings.Settings:
    (tmp_path / "registries.conf").write_text(CONF)
    return settings.load({"SAMPAN_REGISTRIES_CONF": str(tmp_path / "registries.conf")})


def places(loaded: settings.Settings, name: str, **how: bool) -> list[str]:
    return [f"{one.host}/{one.path}" for one in loaded.places(reference.parse(name), **how)]


def test_mirrors_come_first_and_by_kind(loaded: settings.Settings) -> None:
    last = "hub.example/docker/library/alpine"
    digest = "sha256:" + "0" * 64
    assert places(loaded, "alpine") == ["mirror.example:5000/hub/library/alpine", "tags.example/library/alpine", last]
    assert places(loaded, f"alpine@{digest}")[1:] == ["digests.example/library/alpine", last]
    assert places(loaded, "alpine", push=True) == [last]
    assert places(loaded, "a.wild.example/x/y") == ["wildmirror.example/x/y", "a.wild.example/x/y"]
    assert places(loaded, "other.example/x") == ["other.example/x"]
    assert places(settings.Settings(), "alpine") == ["registry-1.docker.io/library/alpine"]


def test_the_longest_prefix_counts_and_ends_at_a_border(loaded: settings.Settings) -> None:
    for name in ("secret", "secret:1"):
        with pytest.raises(Denied, match="blocked"):
            places(loaded, name)
    assert places(loaded, "secrets")[-1] == "hub.example/docker/library/secrets"


def test_plain_http_is_allowed_by_name_and_by_network(loaded: settings.Settings) -> None:
    def plain(name: str) -> tuple[bool, bool]:
        place = loaded.places(reference.parse(name), push=True)[0]
        return place.plain, place.unverified

    assert plain("plain.example:5000/x") == (True, True)
    assert plain("plain.example/x") == (False, False)
    for host in ("127.0.0.1:5000", "127.9.9.9", "[::1]:5000", "localhost", "localhost:1", "10.1.2.3:80"):
        assert plain(f"{host}/x") == (True, False)
    for host in ("10.2.0.1", "128.0.0.1", "x.localhost.example", "127.0.0.1.example"):
        assert plain(f"{host}/x") == (False, False)


def test_the_environment_adds_to_the_files(tmp_path: Path) -> None:
    (tmp_path / "registries.conf").write_text(CONF)
    loaded = settings.load(
        {
            "SAMPAN_REGISTRIES_CONF": str(tmp_path / "registries.conf"),
            "SAMPAN_REGISTRY_MIRRORS": "docker.io=http://late.example, quay.io=https://q.example/",
            "SAMPAN_BLOCKED_REGISTRIES": "evil.example",
            "SAMPAN_INSECURE_REGISTRIES": "lab.example:5000,192.168.0.0/16",
        }
    )
    assert "late.example/library/alpine" in places(loaded, "alpine")
    assert places(loaded, "quay.io/a/b") == ["q.example/a/b", "quay.io/a/b"]
    with pytest.raises(Denied):
        places(loaded, "evil.example/x")
    assert loaded.plain_allowed("192.168.1.1:5000") and loaded.plain_allowed("lab.example:5000")


def test_the_users_files_are_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, mirror in (("containers/registries.conf", "one"), ("sampan/registries.toml", "two")):
        (home / ".config" / path).parent.mkdir(parents=True)
        (home / ".config" / path).write_text(f'[[registry]]\nprefix="{mirror}.example"\nblocked=true\n')
    loaded = settings.load({})
    assert loaded.rules["one.example"].blocked and loaded.rules["two.example"].blocked


@pytest.mark.parametrize(
    "text",
    ["[registries.search]\n", "[[registry]]\n", "x = [", 'registry = "x"', "[[registry]]\nprefix='a'\nblocked='yes'",
     "insecure-networks = ['10.0.0.0/99']", "[[registry]]\nprefix='a'\n[[registry.mirror]]\n", "\xff"],
)  # fmt: skip
def test_a_file_that_cannot_be_understood_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.conf").write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidArgument, match=r"x\.conf"):
        settings.load({"SAMPAN_REGISTRIES_CONF": str(tmp_path / "x.conf")})


# ---- logins ----


def auth(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def test_what_distributions_bring_is_not_parsed(tmp_path: Path) -> None:
    """Comments and short names: everything else is read whole, and faults are told."""
    for text, nothing in (
        ('# a comment\n\n[aliases]\n  # fedora\n  "almalinux" = "docker.io/library/almalinux"\n', True),
        ("", True),
        ('"registry" = "x"\n', False),
        ('[aliases]\n"a" = "b\\\\"\n', False),
        ("[aliases]\n[[registry]]\nprefix = 'a.example'\nblocked = true\n", False),
        ('insecure-networks = ["10.0.0.0/8"]\n', False),
    ):
        (tmp_path / "file").write_text(text)
        assert settings._says_nothing(text.encode()) is nothing
    blocked = settings.load({"SAMPAN_REGISTRIES_CONF": str(tmp_path / "file")})
    assert not blocked.plain_allowed("9.0.0.1") and blocked.plain_allowed("10.0.0.1")


def test_logins_are_found_where_docker_and_containers_keep_them(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "auths": {
                    "https://index.docker.io/v1/": {"auth": auth("hub", "a")},
                    "https://old.example/v1/": {"auth": auth("old", "b")},
                    "token.example": {"auth": auth("t", ""), "identitytoken": "long"},
                    "empty.example": {},
                }
            }
        )
    )
    (tmp_path / "auth.json").write_text(
        json.dumps(
            {"auths": {"pod.example/team/app": {"auth": auth("app", "x")}, "pod.example": {"auth": auth("p", "y")}}}
        )
    )
    found = Credentials({"DOCKER_CONFIG": str(tmp_path), "REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")})
    assert [found.find(host).username for host in ("docker.io", "registry-1.docker.io", "old.example")] == [
        "hub",
        "hub",
        "old",
    ]
    assert found.find("token.example").refresh_token == "long"
    assert found.find("pod.example", "team/app/sub").username == "app"
    assert found.find("pod.example", "team/apple").username == "p"
    assert not found.find("empty.example") and not found.find("nobody.example")


def test_the_most_specific_login_decides_in_each_file(tmp_path: Path) -> None:
    first, second = tmp_path / "run/containers", tmp_path / "config/containers"
    for directory, auths in (
        (first, {"r.example/a/b": {"auth": auth("ab", "x")}, "r.example/a": {}, "r.example": {"auth": auth("r", "x")}}),
        (second, {"r.example/a": {"auth": auth("a", "x")}, "docker.io/library": {"auth": auth("lib", "x")}}),
    ):
        directory.mkdir(parents=True)
        (directory / "auth.json").write_text(json.dumps({"auths": auths}))
    found = Credentials(
        {
            "DOCKER_CONFIG": str(tmp_path),
            "XDG_RUNTIME_DIR": str(tmp_path / "run"),
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
        }
    )
    names = ("a/b/c", "a/b", "a/bc", "a", "ab", "")
    assert [found.find("r.example", name).username for name in names] == ["ab", "ab", "a", "a", "r", "r"]
    assert found.find("registry-1.docker.io", "library/x").username == "lib"
    realms = [found.realm("r.example", name) for name in ("a/b/c", "a/b", "a/bc", "a", "ab", "")]
    assert realms[0] == realms[1] != realms[2] == realms[3] != realms[4] == realms[5]


def test_a_login_is_written_without_touching_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"psFormat": "x", "auths": {"other.example": {"auth": auth("o", "o")}}}))
    path.chmod(0o644)
    kept = Credentials({"DOCKER_CONFIG": str(tmp_path)})
    assert kept.store("new.example:5000", Login("me", "p:w")) == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and sorted(os.listdir(tmp_path)) == ["config.json", "home"]
    value = json.loads(path.read_text())
    assert value["psFormat"] == "x" and set(value["auths"]) == {"other.example", "new.example:5000"}
    assert kept.find("new.example:5000").password == "p:w"
    assert kept.erase("new.example:5000") and not kept.erase("new.example:5000")
    assert set(json.loads(path.read_text())["auths"]) == {"other.example"}


@pytest.mark.parametrize("text", ['{"auths": null}', '{"auths": null, "credHelpers": null, "credsStore": null}', "\n"])
def test_a_file_with_empty_maps_takes_a_login(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    kept = Credentials({"DOCKER_CONFIG": str(tmp_path)})
    assert not kept.erase("new.example:5000")
    kept.store("new.example:5000", Login("me", "p:w"))
    assert kept.find("new.example:5000").password == "p:w" and kept.erase("new.example:5000")


def test_logins_at_once_are_all_kept(tmp_path: Path) -> None:
    kept = Credentials({"DOCKER_CONFIG": str(tmp_path / "new")})
    threads = [threading.Thread(target=kept.store, args=(f"r{n}.example", Login("u", "p"))) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads((tmp_path / "new/config.json").read_text())["auths"]) == 12


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/config.json").symlink_to(tmp_path / "real/config.json")
    Credentials({"DOCKER_CONFIG": str(tmp_path / "docker")}).store("a.example", Login("u", "p"))
    assert (tmp_path / "docker/config.json").is_symlink() and (tmp_path / "real/config.json").exists()


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"auths": []}', '{"credsStore": "../../bin/sh"}', '{"credsStore": 5}', '{"credHelpers": ["x"]}'],
)
def test_a_broken_file_is_named_and_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    kept = Credentials({"DOCKER_CONFIG": str(tmp_path)})
    for operation in (lambda: kept.find("a.example"), lambda: kept.store("a.example", Login("u", "p"))):
        with pytest.raises(InvalidArgument, match=r"config\.json"):
            operation()
    assert (tmp_path / "config.json").read_text() == text


HELPER = """#!/bin/sh
echo "$0 $*" >> "$STATE.calls"
case $1 in
store) cat > "$STATE" ;;
get) read -r server
     grep -q "$server" "$STATE" 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; }
     cat "$STATE" ;;
erase) cat > /dev/null; rm -f "$STATE" ;;
esac
"""


def with_helper(tmp_path: Path, script: str = HELPER) -> Credentials:
    helper = tmp_path / "docker-credential-mine"
    helper.write_text(script)
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text('{"credsStore": "mine", "credHelpers": {"special.example": "absent"}}')
    path = f"{tmp_path}:{os.environ['PATH']}"
    return Credentials({"DOCKER_CONFIG": str(tmp_path), "PATH": path, "STATE": str(tmp_path / "state")})


def test_a_helper_keeps_the_secret(tmp_path: Path) -> None:
    kept = with_helper(tmp_path)
    assert not kept.find("a.example")
    assert kept.store("a.example", Login("me", "hunter2")) == "docker-credential-mine"
    assert "hunter2" not in (tmp_path / "config.json").read_text() + (tmp_path / "state.calls").read_text()
    found = kept.find("a.example")
    assert (found.username, found.password) == ("me", "hunter2") and "hunter2" not in repr(found)
    assert kept.erase("a.example") and not kept.find("a.example")
    kept.store("a.example", Login("me", "x", "refresh"))
    assert kept.find("a.example").refresh_token == "refresh"


def test_a_helper_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="docker-credential-absent: it is not on PATH"):
        with_helper(tmp_path).find("special.example")
    with pytest.raises(Unavailable, match="ended with 3: out of order"):
        with_helper(tmp_path, "#!/bin/sh\necho out of order; exit 3\n").find("a.example")
    with pytest.raises(IntegrityError, match="not JSON"):
        with_helper(tmp_path, "#!/bin/sh\necho hello\n").find("a.example")


def test_docker_names_docker_io_by_its_url() -> None:
    assert credentials.key_of("docker.io") == "https://index.docker.io/v1/"
    assert credentials.key_of("a.example:5000") == "a.example:5000"


# ---- challenges, proxies, certificates ----


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('Bearer realm="https://a/b?c=d,e",service="s x",scope="repository:a:pull,push"',
         [("bearer", {"realm": "https://a/b?c=d,e", "service": "s x", "scope": "repository:a:pull,push"})]),
        ('Basic realm="a\\"b", Bearer realm=x', [("basic", {"realm": 'a"b'}), ("bearer", {"realm": "x"})]),
        ("Negotiate, BASIC REALM = y", [("negotiate", {}), ("basic", {"realm": "y"})]),
        ("", []), (",,,", []), ('Bearer realm="open', [("bearer", {"realm": "open"})]), ("\x00", []),
    ],
)  # fmt: skip
def test_challenges(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    assert [(one.scheme, one.parameters) for one in challenge.parse(header)] == expected


@pytest.mark.parametrize(
    ("host", "no_proxy", "proxied"),
    [
        ("a.example", "", True), ("a.example", "a.example", False), ("b.a.example", "a.example", False),
        ("xa.example", "a.example", True), ("b.a.example", ".a.example", False), ("a.example", ".a.example", True),
        ("a.example", "*", False), ("10.1.2.3", "10.0.0.0/8", False), ("11.1.2.3", "10.0.0.0/8", True),
        ("a.example", "a.example:80", True), ("a.example", "a.example:443", False), ("::1", "", False),
        ("127.0.0.1", "", False), ("localhost", "", False), ("fd00::1", "[fd00::1]:443", False), ("a", " , b,", True),
    ],
)  # fmt: skip
def test_proxies(host: str, no_proxy: str, proxied: bool) -> None:
    environ = {"https_proxy": "proxy.example:3128", "NO_PROXY": no_proxy}
    assert proxies.choose("https", host, 443, environ) == ("http://proxy.example:3128" if proxied else "")


def test_a_header_cannot_choose_the_proxy() -> None:
    assert proxies.choose("http", "a.example", 80, {"HTTP_PROXY": "http://evil", "REQUEST_METHOD": "GET"}) == ""


@pytest.mark.parametrize("host", ["..", "../x", ".hidden", "a/b"])
def test_certificates_are_looked_for_below_their_directory(tmp_path: Path, host: str) -> None:
    (tmp_path / "certs").mkdir()
    (tmp_path / "x").mkdir()
    assert certificates.directories(host, {"SAMPAN_CERTS_DIR": str(tmp_path / "certs")}) == []


def test_a_login_that_was_killed_leaves_no_secrets_after_the_next(tmp_path: Path) -> None:
    place = tmp_path / "docker"
    kept = Credentials({"DOCKER_CONFIG": str(place)})
    place.mkdir()
    (place / ".config.json.sampan").write_text("secret")
    kept.store("a.example", Login("me", "word"))
    kept.store("b.example", Login("me", "word"))
    assert os.listdir(place) == ["config.json"]
    assert (place / "config.json").stat().st_mode & 0o777 == 0o600
