"""Which proxy a URL goes through: HTTP_PROXY, HTTPS_PROXY and NO_PROXY as Docker and curl read them.  Pure.

NO_PROXY is a list of host names (with those below them), addresses, networks (10.0.0.0/8) and `*`; each may have a
port.  This host itself is never asked through a proxy (Go's httpproxy, which Docker uses).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def choose(scheme: str, host: str, port: int, environ: Mapping[str, str]) -> str:
    """Give the URL of the proxy to use, or ""."""
    proxy = _variable(environ, f"{scheme}_proxy")
    # httpoxy (CVE-2016-5385): below a CGI server HTTP_PROXY is a header of the request.
    if scheme == "http" and "REQUEST_METHOD" in environ:
        proxy = environ.get("http_proxy", "")
    if not proxy or is_loopback(host) or _is_excepted(host, port, _variable(environ, "no_proxy")):
        return ""
    return proxy if "://" in proxy else "http://" + proxy


def is_loopback(host: str) -> bool:
    """Tell whether a host name or address is this host's own."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    parts = host.split(".")
    if ":" not in host and (len(parts) != 4 or not all(_is_octet(part) for part in parts)):
        return False
    if ":" not in host:
        return parts[0] == "127"
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _is_octet(text: str) -> bool:
    """Tell whether a text is one of the four numbers of an IPv4 address, as `ipaddress` reads them."""
    return text.isascii() and text.isdecimal() and len(text) <= 3 and int(text) < 256 and str(int(text)) == text


def _variable(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name.upper(), "") or environ.get(name, "")


def _is_excepted(host: str, port: int, listed: str) -> bool:
    return any(_fits(host, port, word.strip().lower()) for word in listed.split(",") if word.strip())


def _fits(host: str, port: int, word: str) -> bool:
    from ipaddress import ip_address, ip_network

    if word == "*":
        return True
    name, colon, number = word.rpartition(":")
    if colon and number.isdecimal() and (":" not in name or name.endswith("]")):
        if int(number) != port:
            return False
        word = name
    word = word.strip("[]")
    try:
        address = ip_address(host)
    except ValueError:
        bare = word.removeprefix("*").removeprefix(".")
        return host == bare and not word.startswith(".") or host.endswith("." + bare)
    try:
        return address in ip_network(word, strict=False)
    except ValueError:
        return False
