"""Layers that registries may not distribute: descriptors say where else they are (image-spec descriptor.md, urls).

Whoever made the image chose these addresses, so nothing of the user's goes there: no credentials, no cookies, no local
addresses (CVE-2020-15157), and no plain HTTP unless the registry itself is spoken to in it.
"""

from __future__ import annotations

from sampan.errors import NotFound, SampanError
from sampan.registry import message
from sampan.registry.message import Refused, Request, Response

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.registry.client import Registry

_MAX_REDIRECTS = 5


class ForeignPlace:
    """Addresses of one blob, tried in turn; a place like a repository for blobs.py."""

    def __init__(self, registry: Registry, urls: Sequence[str]) -> None:
        self.registry = registry
        self.verb = "pull"
        self._urls = [url for url in urls if isinstance(url, str)][:8]

    def __str__(self) -> str:
        return "the layer's own address"

    def get_blob(self, digest: str, offset: int = 0, *, ranged: bool = True) -> Response:
        """Begin to get it from an offset."""
        headers = {"Range": f"bytes={offset}-"} if offset and ranged else {}
        failure: SampanError = NotFound(f"cannot pull blob {digest}: it has no address")
        for url in self._urls:
            try:
                response = self._get(url, headers)
            except SampanError as exc:
                failure = exc
                continue
            if response.status in (200, 206):
                return response
            response.close()
            failure = NotFound(f"cannot pull blob {digest}: {message.shown(url)} answered {response.status}")
        raise failure

    def _get(self, url: str, headers: dict[str, str]) -> Response:
        for _ in range(_MAX_REDIRECTS):
            if message.origin(url)[0] == "http" and message.origin(self.registry.base)[0] == "https":
                raise Refused(f"cannot get a layer from {message.shown(url)}: it is plain HTTP")
            response = self.registry.transport.send(
                Request("GET", url, headers, trusted=False, near=self.registry.near)
            )
            if response.status not in (301, 302, 303, 307, 308):
                return response
            response.close()
            url = message.join(url, response.header("location"))
        raise Refused(f"cannot get a layer from {message.shown(url)}: it was redirected too often")
