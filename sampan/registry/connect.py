"""What a command needs to speak to registries: one transport, the settings and the credentials of this user."""

from __future__ import annotations

import time

from sampan.errors import Unavailable
from sampan.registry import settings as configuration
from sampan.registry.client import Registry, Repository
from sampan.registry.credentials import Credentials
from sampan.registry.transport import HttpTransport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sampan.oci.reference import Reference
    from sampan.registry.auth import Login
    from sampan.registry.settings import Place

_GLANCE = 0.05  # seconds between two looks at whether to stop


class Registries:
    """The registries that one command speaks to; `tell` is given a line before a wait that a user would notice."""

    def __init__(self, environ: Mapping[str, str], tell: Callable[[str], None] = lambda line: None) -> None:
        self.tell = tell
        self.settings = configuration.load(environ)
        self.credentials = Credentials(environ)
        self.transport = HttpTransport(self.settings, environ)
        self._stopped = False
        self._known: dict[tuple[object, ...], Registry] = {}

    def repositories(self, ref: Reference, *, push: bool = False, verb: str = "pull") -> list[Repository]:
        """Give the places of a reference's repository, mirrors first; Denied when it is blocked.

        `verb` is what their errors say that cannot be done with a manifest.
        """
        return [Repository(self.registry(place), place.path, verb) for place in self.settings.places(ref, push=push)]

    def registry(self, place: Place) -> Registry:
        """Give the registry of a place; the same one for the same host and login."""
        realm = self.credentials.realm(place.host, place.path)
        key = place.host, place.plain, place.unverified, realm
        if key not in self._known:
            self._known[key] = Registry(
                self.transport, self.settings, place, lambda: self._login(place), self._sleep, tell=self.tell
            )
        return self._known[key]

    def _login(self, place: Place) -> Login:
        return self.credentials.find(place.host, place.path)

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (rest := until - time.monotonic()) > 0 and not self._stopped:
            time.sleep(min(rest, _GLANCE))
        if self._stopped:
            raise Unavailable("cannot go on: it was interrupted")

    def interrupt(self) -> None:
        """Break off everything that is under way, from another thread."""
        self._stopped = True
        self.transport.abort()

    def close(self) -> None:
        """Close what is open."""
        self.transport.close()
