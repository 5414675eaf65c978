"""Whether a peer speaks TLS at all, asked without a TLS library: its import takes as long as ten of our modules.

The first bytes of a client are sent, and of the answer the first two are looked at.  Nothing is verified by that, and
nothing else is ever said on such a connection.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# A hello of TLS 1.2 (RFC 5246, 7.4.1.2; the record's own version is that of RFC 8446, 5.1): the suites and the curves
# that are common.  The type of the extension that names the curves is a line feed, which ends a line for HTTP.
_SUITES = b"\xc0\x2b\xc0\x2f\xc0\x2c\xc0\x30\xcc\xa9\xcc\xa8\x00\x9c\x00\x2f"
_CURVES = b"\x00\x0a\x00\x08\x00\x06\x00\x1d\x00\x17\x00\x18" + b"\x00\x0b\x00\x02\x01\x00"
_SIGNATURES = b"\x00\x0d\x00\x0e\x00\x0c\x04\x03\x08\x04\x04\x01\x05\x03\x08\x05\x05\x01"


def hello(host: str, random: bytes) -> bytes:
    """Make what a TLS client says first to a host; `random` are 32 bytes."""
    name = host.encode("ascii")
    extensions = _CURVES + _SIGNATURES
    if not (":" in host or host.replace(".", "").isdecimal()):  # an address is no name (RFC 6066, 3)
        listed = b"\0" + len(name).to_bytes(2, "big") + name
        listed = len(listed).to_bytes(2, "big") + listed
        extensions = b"\0\0" + len(listed).to_bytes(2, "big") + listed + extensions
    body = b"\x03\x03" + random + b"\0" + len(_SUITES).to_bytes(2, "big") + _SUITES + b"\1\0"
    body += len(extensions).to_bytes(2, "big") + extensions
    message = b"\1" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message


def answers_tls(sock: Any, host: str, random: bytes) -> bool:
    """Tell whether a peer answers TLS: with a record of a handshake or an alert (RFC 8446, 5.1); raise OSError."""
    sock.sendall(hello(host, random))
    answer = b""
    while len(answer) < 2:
        more = sock.recv(2 - len(answer))
        if not more:
            return False
        answer += more
    return answer in (b"\x16\x03", b"\x15\x03")
