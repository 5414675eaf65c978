"""Operations on registries themselves: log in and out, search."""

from __future__ import annotations

from sampan.engine.pulling import registries
from sampan.errors import Denied, InvalidArgument, NotSupported, SampanError, Unauthorized
from sampan.oci import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT = "docker.io"


def server(text: str) -> str:
    """Give the registry that a user's word names: a host, with a port perhaps, or a URL of one.

    What follows the host is left out, as in Docker: a login counts for a whole registry.
    """
    host = text.removeprefix("https://").removeprefix("http://").partition("/")[0] if text else DEFAULT
    if host in ("index.docker.io", "registry-1.docker.io"):
        return DEFAULT
    try:
        # The grammar of references decides what a registry's name may be.
        domain = reference.parse(f"{host}/x").domain
    except InvalidArgument:
        domain = ""
    if not host or domain != host:
        raise InvalidArgument(f"invalid registry {text[:200]!r}", "write a host name with a dot or a port")
    return host


def login(host: str, username: str, password: str) -> str:
    """Verify a name and password at a registry and keep them; give where they are kept now.

    They are kept as those of the place where the configuration puts the registry: there they are looked for.
    """
    from sampan.registry.auth import Login
    from sampan.registry.client import Registry

    if not username or not password:
        raise InvalidArgument(f"cannot log in to {host}: name and password are both needed")
    speaker = registries()
    try:
        offered = Login(username, password)
        place = speaker.settings.place_of(host)
        registry = Registry(
            speaker.transport, speaker.settings, place, lambda: offered, offline=True, tell=speaker.tell
        )
        try:
            registry.ping()
        except Unauthorized as exc:
            raise Unauthorized(f"cannot log in to {host}: name or password is wrong") from exc
        token = registry.authenticator.refresh_token
        return speaker.credentials.store(place.host, Login(username, password, token) if token else offered)
    finally:
        speaker.close()


def stored(host: str) -> str:
    """Give the name under which the user is logged in, or ""."""
    speaker = registries()
    return speaker.credentials.find(speaker.settings.place_of(host).host).username


def relogin(host: str) -> bool:
    """Try the login that is kept; tell whether it is still good."""
    speaker = registries()
    try:
        place = speaker.settings.place_of(host)
        if not speaker.credentials.find(place.host):
            return False
        try:
            speaker.registry(place).ping()
        except Unauthorized:
            return False
        return True
    finally:
        speaker.close()


def logout(host: str) -> bool:
    """Forget the login of a registry; tell whether there was one."""
    speaker = registries()
    try:
        place = speaker.settings.place_of(host).host
    except Denied:  # a blocked one: its login can be forgotten all the same
        place = host
    known = [speaker.credentials.erase(name) for name in dict.fromkeys((place, host))]
    return any(known)


def search(term: str, limit: int) -> list[dict[str, Any]]:
    """Search a registry: Docker's index for a bare term, else the catalog of the registry that the term begins with."""
    first, slash, rest = term.partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost")
    host, words = (first, rest) if named else (DEFAULT, term)
    speaker = registries()
    try:
        registry = speaker.registry(speaker.settings.place_of(host))
        if host == DEFAULT:
            return _search_index(registry, words, limit)
        found = []
        for name in registry.catalog():
            if words.lower() in name.lower():
                found.append({"name": f"{host}/{name}", "description": "", "star_count": 0, "is_official": False})
            if len(found) >= limit:
                break
        return found
    except SampanError as exc:
        if not exc.message.startswith("cannot search"):
            exc.message = f"cannot search {host}: {exc.message}"
            exc.args = (exc.message,)
        raise
    finally:
        speaker.close()


def _search_index(registry: Any, words: str, limit: int) -> list[dict[str, Any]]:
    """Ask Docker's first API (v1/search), which its index still answers."""
    from urllib.parse import urlencode

    from sampan.registry.message import Request

    url = "https://index.docker.io/v1/search?" + urlencode({"q": words, "n": min(limit, 100)})
    with registry.send(Request("GET", url)) as response:
        if response.status != 200:
            raise NotSupported(f"cannot search {registry.host}: it answered {response.status}")
        answer = response.json(4 << 20, "the search's answer")
    results = answer.get("results") if isinstance(answer, dict) else None
    return [one for one in results or () if isinstance(one, dict) and isinstance(one.get("name"), str)][:limit]
