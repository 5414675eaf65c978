"""Authentication as a generator of requests: it asks for what it needs to know, and never touches the network.

    flow = authenticator.flow(request, scopes)      yields requests, is sent their responses
    response = the last one that it was sent

A registry answers 401 and says how it wants to be asked: with name and password (Basic, RFC 7617), or with a token from
another server (Bearer; distribution's "Token Authentication Specification").  Tokens are kept by scope until shortly
before they expire; one that is refused earlier is fetched anew, once.

Rules: name, password and refresh token go to the registry itself, or to a token server that is at least as well
protected: the same host, else https with a real name.  Never to plain http, an address or this host because a
registry says so (CVE-2026-48978); such a server is asked without them.
"""

from __future__ import annotations

from sampan.errors import IntegrityError, Unauthorized
from sampan.registry import challenge, message
from sampan.registry.message import Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from typing import Any

    from sampan.registry.message import Origin, Response

    Flow = Generator[Request, Response, None]

CLIENT = "sampan"
_LIFETIME = 60  # seconds, when the server says none ("Token Authentication Specification", expires_in)
_LIMIT = 1 << 20


class Login:
    """What a user may be known by: name and password, or a refresh token ("identity token" in Docker's words)."""

    __slots__ = ("password", "refresh_token", "username")

    def __init__(self, username: str = "", password: str = "", refresh_token: str = "") -> None:
        self.username = username
        self.password = password
        self.refresh_token = refresh_token

    def __bool__(self) -> bool:
        return bool(self.refresh_token or self.username or self.password)

    def __repr__(self) -> str:
        return f"Login({self.username!r})"  # never the secret


def basic(login: Login) -> str:
    """Give the Authorization header of name and password."""
    import binascii

    pair = f"{login.username}:{login.password}".encode()
    return "Basic " + binascii.b2a_base64(pair, newline=False).decode()


class Authenticator:
    """Authenticate requests to one registry: `home` is its origin, `now` a clock in seconds that never goes back.

    `plain_allowed(host)` tells whether a host may be spoken to in plain HTTP at all.
    """

    def __init__(
        self,
        home: Origin,
        login: Callable[[], Login],
        now: Callable[[], float],
        plain_allowed: Callable[[str], bool] = lambda host: False,
        *,
        offline: bool = False,
    ) -> None:
        self.home = home
        self._login = login
        self._now = now
        self._plain_allowed = plain_allowed
        self._offline = offline
        self._known: Login | None = None
        self._tokens: dict[str, tuple[str, float]] = {}
        self._basic = False
        self._challenge: challenge.Challenge | None = None
        self.refresh_token = ""  # what a token server gave for later, when `offline` asked for it

    @property
    def login(self) -> Login:
        """Who the user is; looked up when it is first needed."""
        if self._known is None:
            self._known = self._login()
        return self._known

    def flow(self, request: Request, scopes: Sequence[str] = ()) -> Flow:
        """Send a request with what is known, and once more with what the registry asks for."""
        scope = " ".join(scopes)
        prepared = yield from self._prepared(request, scope)
        response = yield prepared
        if response.status != 401:
            return
        again = yield from self._answer(request, response, scope, "Authorization" in prepared.headers)
        if again is not None:
            response.close()
            yield again

    def _prepared(self, request: Request, scope: str) -> Generator[Request, Response, Request]:
        if self._basic:
            return request.with_headers(Authorization=basic(self.login))
        token, until = self._tokens.get(scope, ("", 0.0))
        if token and self._now() < until:
            return request.with_headers(Authorization=f"Bearer {token}")
        if self._challenge is not None:
            token = yield from self._fetch(self._challenge, scope)
            return request.with_headers(Authorization=f"Bearer {token}")
        return request

    def _answer(
        self, request: Request, response: Response, scope: str, known: bool
    ) -> Generator[Request, Response, Request | None]:
        """Give the request that answers a 401, or None when there is nothing to add to it."""
        offered = {one.scheme: one for one in reversed(challenge.parse(response.header("www-authenticate")))}
        bearer = offered.get("bearer")
        if bearer is not None and bearer.parameters.get("realm"):
            self._challenge = bearer
            token = yield from self._fetch(bearer, scope or bearer.parameters.get("scope", ""), scope)
            return request.with_headers(Authorization=f"Bearer {token}")
        if "basic" in offered and not known and self.login.username:
            self._basic = True
            return request.with_headers(Authorization=basic(self.login))
        return None

    def _fetch(
        self, asked: challenge.Challenge, scope: str, key: str | None = None
    ) -> Generator[Request, Response, str]:
        """Get a token for a scope from the realm."""
        realm = message.join(f"{self.home[0]}://{message.netloc(self.home)}/", asked.parameters["realm"])
        server = message.origin(realm)
        login = self.login if self._is_safe(server) else Login()
        token_request = self._token_request(realm, server, asked.parameters.get("service", ""), scope, login)
        response = yield token_request
        if response.status != 200:
            raise self._refused(response, server, bool(self.login) and not login)
        answer = response.json(_LIMIT, f"the token of {message.netloc(server)}")
        response.close()
        return self._keep(answer, scope if key is None else key, server)

    def _token_request(self, realm: str, server: Origin, service: str, scope: str, login: Login) -> Request:
        from urllib.parse import urlencode

        from sampan.registry import proxies

        trusted, near = server[1] == self.home[1], proxies.is_loopback(self.home[1])
        fields = [("service", service)] if service else []
        fields += [("scope", one) for one in scope.split(" ") if one]
        if login.refresh_token:
            pairs = [("grant_type", "refresh_token"), ("service", service), ("client_id", CLIENT)]
            pairs += [("scope", scope), ("refresh_token", login.refresh_token)]
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            return Request("POST", realm, form, urlencode(pairs).encode(), trusted=trusted, near=near)
        if login:
            fields.append(("account", login.username))
        if self._offline and login:
            fields += [("offline_token", "true"), ("client_id", CLIENT)]
        url = realm + ("&" if "?" in realm else "?") + urlencode(fields) if fields else realm
        return Request("GET", url, {"Authorization": basic(login)} if login else {}, trusted=trusted, near=near)

    def _is_safe(self, server: Origin) -> bool:
        """Tell whether the token server may see the user's secret."""
        scheme, host, _ = server
        if scheme == "http":
            return self.home[0] == "http" and self._plain_allowed(host)
        return host == self.home[1] or not is_address(host)

    def _keep(self, answer: Any, key: str, server: Origin) -> str:
        fields = answer if isinstance(answer, dict) else {}
        token = fields.get("token") or fields.get("access_token")
        # A token becomes a header: nothing that could end the line may be in it.
        if not isinstance(token, str) or not token or not token.isascii() or not token.isprintable():
            raise IntegrityError(f"cannot authenticate: the token server {message.netloc(server)} sent no valid token")
        lifetime = fields.get("expires_in")
        seconds = lifetime if isinstance(lifetime, int) and 0 < lifetime < 1 << 31 else _LIFETIME
        self._tokens[key] = (token, self._now() + seconds * 0.9 - 2)
        refresh = fields.get("refresh_token")
        if self._offline and isinstance(refresh, str):
            self.refresh_token = refresh
        return token

    def _refused(self, response: Response, server: Origin, withheld: bool) -> Unauthorized:
        status = response.status
        response.close()
        hint = "" if self.login else "log in first: sampan login " + message.netloc(self.home)
        if withheld:
            hint = f"the password was not sent there: {server[1]} is neither the registry's host nor https with a name"
        where = message.netloc(server)
        return Unauthorized(
            f"cannot authenticate at {message.netloc(self.home)}: its token server {where} answered {status}", hint
        )


def is_address(host: str) -> bool:
    """Tell whether a host is this one, or given by its address, or could be by the time it is asked for (IDNA)."""
    from ipaddress import ip_address

    host = host.rstrip(".")
    if host == "localhost" or host.endswith(".localhost") or not host.isascii():
        return True
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        last = host.rpartition(".")[2]  # inet_aton(3) reads 2130706433 and 127.0.0x1 too; no domain ends in a number
        return last.isdecimal() or last.startswith("0x")
    return True
