"""A registry for the session, empty stores, and an environment that knows no logins but the test's own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "transfer"))  # transfersupport

from sampan.registry import retry  # noqa: E402


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the logins and the configuration of whoever runs it."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("SAMPAN_REGISTRIES_CONF", "/dev/null")
    for name in ("DOCKER_CONFIG", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "REGISTRY_AUTH_FILE", "SAMPAN_CERTS_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """docker-registry without authentication or TLS."""
    import registrysupport

    with registrysupport.running(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between attempts are a hundredth; how long they are is tested by itself."""
    monkeypatch.setattr(retry, "_FIRST", 0.003)


@pytest.fixture
def registry(request: pytest.FixtureRequest, quick: None) -> Iterator[object]:
    """A registry that does what a test tells it, with an image of the module's LAYER."""
    from lyingregistry import lying

    with lying() as made:
        made.manifest("app", "1", made.image([request.module.LAYER]))
        yield made
