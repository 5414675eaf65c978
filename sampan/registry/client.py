"""One repository at one place of one registry: the distribution specification (v1.1), client side.

Everything received is checked: a manifest against the digest that was asked for or that the registry states, its media
type against what it calls itself (oci/image.py); a blob by whoever reads its stream.  Redirects are followed here:
never from https to http, never with Authorization to another origin, at most ten.
"""

from __future__ import annotations

import time

from sampan.errors import (
    Denied,
    IntegrityError,
    NotFound,
    NotSupported,
    SampanError,
    Unauthorized,
    Unavailable,
)
from sampan.oci import digest as digests
from sampan.oci import image, reference
from sampan.registry import message, proxies, referrers
from sampan.registry.auth import Authenticator, Login
from sampan.registry.message import Interrupted, Refused, Request
from sampan.registry.retry import ATTEMPTS, Patience, is_passing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from typing import Any

    from sampan.registry.message import Response
    from sampan.registry.settings import Place, Settings
    from sampan.registry.transport import HttpTransport

ACCEPT = ", ".join((image.OCI_INDEX, image.OCI_MANIFEST, image.DOCKER_INDEX, image.DOCKER_MANIFEST))
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_MAX_REDIRECTS = 10
_MAX_PAGES = 10_000
_MAX_ENTRIES = 1_000_000  # of a list in pages: names of some hundred megabytes
_ERRORS = 16 << 10
# What a Content-Type may be without saying which kind of manifest it is: of registries that keep them as plain files.
# Any other that is no manifest's is refused; what the document calls itself then counts for nothing.
_SCHEMA_1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
_PLAIN = frozenset(("", "application/json", "application/octet-stream", "binary/octet-stream", "text/plain"))


class Manifest:
    """A manifest or an index as the registry keeps it: its bytes, media type, digest, and the parsed document."""

    __slots__ = ("data", "digest", "document", "media_type")

    def __init__(self, data: bytes, media_type: str, digest: str, document: dict[str, Any]) -> None:
        self.data = data
        self.media_type = media_type
        self.digest = digest
        self.document = document


class Registry:
    """Requests to one registry: address, authentication, redirects, retries.  Safe for several threads."""

    def __init__(
        self,
        transport: HttpTransport,
        settings: Settings,
        place: Place,
        login: Callable[[], Login],
        pause: Callable[[float], None] = time.sleep,
        *,
        offline: bool = False,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.transport = transport
        self._tell = tell
        self.place = place
        self._settings = settings
        self._find_login = login
        self._pause = pause
        self._offline = offline
        self._base = ""
        self._authenticator: Authenticator | None = None

    @property
    def host(self) -> str:
        """The registry as a user knows it."""
        return self.place.host

    @property
    def near(self) -> bool:
        """Whether it runs on this host."""
        return proxies.is_loopback(message.origin(self.base)[1])

    @property
    def login(self) -> Login:
        """Who the user is here."""
        return self.authenticator.login

    @property
    def base(self) -> str:
        """The URL that API paths are appended to."""
        if not self._base:
            self._base = self._find()
        return self._base

    @property
    def authenticator(self) -> Authenticator:
        """What authenticates requests here; one for all repositories, so that tokens are shared."""
        base = self.base
        if self._authenticator is None:
            self._authenticator = Authenticator(
                message.origin(base),
                self._find_login,
                time.monotonic,
                self._settings.plain_allowed,
                offline=self._offline,
            )
        return self._authenticator

    def _find(self) -> str:
        """Decide between https and http: https, unless plain HTTP is allowed here and the server speaks no TLS at all.

        So a certificate that is wrong, or a broken handshake, never leads to plain HTTP.
        """
        scheme, host, port = message.origin(f"https://{self.place.host}/")
        explicit = self.place.host.endswith(f":{port}")
        self.transport.trust(host, port, unverified=self.place.unverified)
        if not self.place.plain:
            return f"https://{self.place.host}"
        patience = self.patience(3)
        while True:
            try:
                if self.transport.speaks_tls(host, port):
                    return f"https://{self.place.host}"
                return f"http://{self.place.host}"
            except Interrupted as exc:
                if not explicit:
                    return f"http://{self.place.host}"  # nothing at port 443
                patience.after(exc)

    def send(self, request: Request, scopes: Sequence[str] = (), *, attempts: int = 0) -> Response:
        """Send a request: authenticated, redirected, and again when the failure may pass."""
        patience = self.patience(attempts or ATTEMPTS)
        while True:
            try:
                response = self._once(request, scopes)
            except Interrupted as exc:
                patience.after(exc)
                continue
            if not is_passing(response.status) or not patience.answer(response):
                return response

    def patience(self, attempts: int = ATTEMPTS) -> Patience:
        """Give a counter of attempts at something."""
        return Patience(self._pause, attempts, self._tell)

    def once(self, request: Request, scopes: Sequence[str] = ()) -> Response:
        """Send a request without trying again: for callers that know better how to go on."""
        return self._once(request, scopes)

    def _once(self, request: Request, scopes: Sequence[str]) -> Response:
        if message.origin(request.url) != message.origin(self.base):
            return self._redirected(request, self.transport.send(request))
        flow = self.authenticator.flow(request, scopes)
        sent = next(flow)
        while True:
            response = self.transport.send(sent)
            try:
                sent = flow.send(response)
            except StopIteration:
                return self._redirected(sent, response)

    def _redirected(self, request: Request, response: Response) -> Response:
        """Follow redirects of GET and HEAD; those of anything else are the caller's business."""
        for _ in range(_MAX_REDIRECTS):
            if response.status not in _REDIRECTS or request.method not in ("GET", "HEAD"):
                return response
            response.close()
            request = self.follow(request, response.header("location"))
            response = self.transport.send(request)
        response.close()
        raise Refused(f"cannot get {message.shown(request.url)}: it was redirected more than {_MAX_REDIRECTS} times")

    def follow(self, request: Request, location: str) -> Request:
        """Give the request for where a registry sends us; Refused when that is not safe."""
        if not location:
            raise IntegrityError(f"cannot follow {self.host}: it redirects without saying where")
        url = message.join(request.url, location)
        before, after = message.origin(request.url), message.origin(url)
        if before[0] == "https" and after[0] == "http":
            raise Refused(f"cannot follow {self.host} to {message.shown(url)}: that would leave https for plain HTTP")
        headers = dict(request.headers)
        if after != message.origin(self.base):
            headers.pop("Authorization", None)
        trusted = after == message.origin(self.base)
        return Request(request.method, url, headers, request.body, request.length, trusted=trusted, near=self.near)

    def failure(self, response: Response, action: str) -> SampanError:
        """Give the error for an answer that is not what was asked for, with the registry's own words; closes it."""
        words = _registry_words(response)
        status = response.status
        response.close()
        said = f"{status}{': ' + words if words else ''}"
        if status == 401:
            known = bool(self.authenticator.login)
            hint = (
                "the stored login may be out of date: log in again"
                if known
                else f"log in first: sampan login {self.host}"
            )
            wants = "another login" if known else "a login"
            return Unauthorized(f"cannot {action}: {self.host} wants {wants} ({said})", hint)
        if status == 403:
            return Denied(f"cannot {action}: {self.host} denies it ({said})")
        if status == 404:
            return NotFound(
                f"cannot {action}: {self.host} does not have it ({said})",
                "check the spelling; if it is private, log in first",
            )
        kind = Unavailable if is_passing(status) else IntegrityError
        return kind(f"cannot {action}: {self.host} answered {said}")

    def ping(self) -> None:
        """Ask whether this is a registry that accepts us; Unauthorized when it does not."""
        with self.send(Request("GET", self.base + "/v2/")) as response:
            if response.status != 200:
                raise self.failure(response, f"log in to {self.host}")

    def pages(
        self, path: str, key: str, scopes: Sequence[str], action: str, unknown: Collection[int] = ()
    ) -> Iterator[Any]:
        """Give the entries of a list that comes in pages (Link header, RFC 8288).

        NotSupported for a status in `unknown`: the registry has no such list at all.
        """
        url = self.base + path
        seen: set[str] = set()
        count = 0
        while url:
            if url in seen:
                raise IntegrityError(f"cannot {action}: {self.host} sends us in a circle")
            if len(seen) >= _MAX_PAGES or count > _MAX_ENTRIES:
                raise IntegrityError(f"cannot {action}: {self.host} sends a list without end")
            seen.add(url)
            with self.send(Request("GET", url), scopes) as response:
                if response.status in unknown:
                    raise NotSupported(f"cannot {action}: {self.host} has no such list")
                if response.status != 200:
                    raise self.failure(response, action)
                answer = response.json(image.MAX_DOCUMENT, f"the answer of {self.host}")
                url = self._next(url, response.header("link"))
            entries = answer.get(key) if isinstance(answer, dict) else None
            if not isinstance(entries, list | None):
                raise IntegrityError(f"cannot {action}: {self.host} sent no list of {key}")
            count += len(entries or ())
            yield from entries or ()

    def _next(self, url: str, link: str) -> str:
        target, closed, rest = link.strip().removeprefix("<").partition(">")
        if not closed or "next" not in rest:
            return ""
        following = message.join(url, target)
        if message.origin(following) != message.origin(self.base):
            raise Refused(f"cannot follow {self.host} to {message.shown(following)}: that is another place")
        return following

    def catalog(self) -> Iterator[str]:
        """Give the names of all repositories, where the registry tells them."""
        entries = self.pages("/v2/_catalog?n=1000", "repositories", ["registry:catalog:*"], f"list {self.host}")
        yield from (entry for entry in entries if isinstance(entry, str))


class Repository:
    """One repository of a registry; errors about its manifests say that `verb` failed."""

    def __init__(self, registry: Registry, path: str, verb: str = "pull") -> None:
        self.registry = registry
        self.path = path
        self.verb = verb
        self.pull_scope = [f"repository:{path}:pull"]
        self.push_scope = [f"repository:{path}:pull,push"]

    def __str__(self) -> str:
        return f"{self.registry.host}/{self.path}"

    def url(self, rest: str) -> str:
        """Give the URL of something in the repository."""
        return f"{self.registry.base}/v2/{self.path}/{rest}"

    # ---- manifests ----

    def head(self, name: str) -> tuple[str, str, int] | None:
        """Ask which digest, media type and size a tag or digest has; None when the registry does not say.

        NotFound when there is none.
        """
        request = Request("HEAD", self.url("manifests/" + name), {"Accept": ACCEPT})
        with self.registry.send(request, self.pull_scope) as response:
            if response.status == 404:
                raise self.registry.failure(response, f"{self.verb} {self._named(name)}")
            if response.status in (401, 403):
                raise self.registry.failure(response, f"{self.verb} {self._named(name)}")
            digest = response.header("docker-content-digest")
            if response.status != 200 or not digests.is_valid(digest):
                return None
            size = response.header("content-length")
            return digest, _kind(response), int(size) if size.isdecimal() and len(size) < 16 else -1

    def manifest(self, name: str, expected: str = "") -> Manifest:
        """Get a manifest or an index by tag or digest, verified; `expected` is its digest where it is known."""
        what = self._named(name)
        request = Request("GET", self.url("manifests/" + name), {"Accept": ACCEPT})
        patience = self.registry.patience()
        while True:
            with self.registry.send(request, self.pull_scope) as response:
                if response.status != 200:
                    raise self.registry.failure(response, f"{self.verb} {what}")
                self._check_length(response, what)
                try:
                    data = response.document(image.MAX_DOCUMENT, f"the manifest of {what}")
                except Interrupted as exc:
                    patience.after(exc)
                    continue
            return self._checked(response, data, expected or (name if digests.is_valid(name) else ""), what)

    def _check_length(self, response: Response, what: str) -> None:
        length = response.header("content-length")
        if length.isdecimal() and (len(length) > 12 or int(length) > image.MAX_DOCUMENT):
            raise IntegrityError(f"cannot {self.verb} {what}: its manifest has more than {image.MAX_DOCUMENT} bytes")

    def _checked(self, response: Response, data: bytes, expected: str, what: str) -> Manifest:
        digest = digests.of(data)
        stated = response.header("docker-content-digest")
        for wanted in filter(None, (expected, stated if stated.startswith(digests.PREFIX) else "")):
            if wanted != digest:
                raise IntegrityError(
                    f"cannot {self.verb} {what}: its manifest has the digest {digest}, not {wanted[:80]}"
                )
        self._check_kind(response, what)
        try:
            document = image.parse(data, _kind(response))
        except SampanError as exc:
            exc.message = f"cannot {self.verb} {what}: {exc.message}"
            exc.args = (exc.message,)
            raise
        return Manifest(data, document["mediaType"], digest, document)

    def _check_kind(self, response: Response, what: str) -> None:
        kind = _kind(response)
        if kind in _SCHEMA_1:
            raise NotSupported(
                f"cannot {self.verb} {what}: it has a manifest of Docker's schema 1, which registries ended in 2024"
            )
        if kind in _PLAIN or kind in image.MANIFESTS or kind in image.INDEXES:
            return
        where = message.netloc(message.origin(response.url))
        if kind.startswith("application/vnd."):
            raise NotSupported(f"cannot {self.verb} {what}: {where} sent a manifest of type {_printable(kind)[:100]!r}")
        is_page = kind in ("text/html", "application/xhtml+xml")
        raise IntegrityError(
            f"cannot {self.verb} {what}: {where} sent {_printable(kind)[:100]}, not a manifest",
            "is that a login page, or a proxy on the way?" if is_page else "",
        )

    def put_manifest(self, name: str, data: bytes, media_type: str) -> str:
        """Store a manifest under a tag or its digest; give its digest.

        Where it has a subject that the registry does not say it will find, the referrers tag is kept for it.
        """
        request = Request("PUT", self.url("manifests/" + name), {"Content-Type": media_type}, data)
        with self.registry.send(request, self.push_scope) as response:
            if response.status not in (200, 201):
                raise self.registry.failure(response, f"push {self._named(name)}")
            stated, digest = response.header("docker-content-digest"), digests.of(data)
            if stated.startswith(digests.PREFIX) and stated != digest:
                raise IntegrityError(
                    f"cannot push {self._named(name)}: the registry took it as {stated[:80]}, not {digest}"
                )
            linked = bool(response.header("oci-subject"))
        if not linked:
            referrers.remember(self, data, media_type)
        return digest

    def has_manifest(self, digest: str) -> bool:
        """Tell whether a manifest is there."""
        with self.registry.send(
            Request("HEAD", self.url("manifests/" + digest), {"Accept": ACCEPT}), self.push_scope
        ) as response:
            return response.status == 200

    def tags(self) -> list[str]:
        """List the tags, sorted."""
        entries = self.registry.pages(
            f"/v2/{self.path}/tags/list?n=1000", "tags", self.pull_scope, f"list the tags of {self}"
        )
        # A tag becomes part of a name here: one that is none is not believed.
        return sorted({entry for entry in entries if isinstance(entry, str) and reference.is_tag(entry)})

    def _named(self, name: str) -> str:
        return f"{self}{'@' if ':' in name else ':'}{name}"

    # ---- blobs ----

    def has_blob(self, digest: str) -> bool:
        """Tell whether a blob is there."""
        with self.registry.send(Request("HEAD", self.url("blobs/" + digest)), self.push_scope) as response:
            if response.status in (401, 403):
                raise self.registry.failure(response, f"push to {self}")
            return response.status == 200

    def get_blob(self, digest: str, offset: int = 0, *, ranged: bool = True) -> Response:
        """Begin to get a blob, from an offset; one attempt.  The caller looks at the status."""
        headers = {"Range": f"bytes={offset}-"} if offset and ranged else {}
        return self.registry.once(
            Request("GET", self.url("blobs/" + digests.validate(digest)), headers), self.pull_scope
        )


def _kind(response: Response) -> str:
    return response.header("content-type").partition(";")[0].strip().lower()


def _registry_words(response: Response) -> str:
    """Give what an error's body says (distribution-spec, "Error Codes"), printable and short."""
    try:
        answer = response.json(_ERRORS, "error")
        errors = answer.get("errors") if isinstance(answer, dict) else None
        first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
    except SampanError:
        return ""  # not JSON: a proxy's page, whose words would only confuse
    words = f"{first.get('message') or ''}" or f"{first.get('code') or ''}"
    return _printable(words)[:200]


def _printable(words: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in words)
