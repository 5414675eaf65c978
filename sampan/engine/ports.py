"""`port`: what a container publishes.

A record's `config["ports"]` is what the network has published: [container port "80/tcp", host address, host port] each.
Nothing writes it yet.
"""

from __future__ import annotations

from sampan.errors import InvalidArgument, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.engine.engine import Engine


def port(engine: Engine, name: str, private: str = "") -> list[tuple[str, str]]:
    """List (container port, host address and port), by port, of all or one; NotFound when that one is not published."""
    record = engine.containers.get(name)
    wanted = _wanted(private) if private else ""
    published = record.config.get("ports") or () if record.pid else ()
    rows = [(inside, _address(host, number)) for inside, host, number in published if wanted in ("", inside)]
    if wanted and not rows:
        raise NotFound(f"no public port {private!r} published for {record.name}")
    return sorted(rows, key=lambda row: (int(row[0].partition("/")[0]), row))


def _wanted(text: str) -> str:
    number, slash, protocol = text.partition("/")
    if not (number.isascii() and number.isdigit() and int(number) < 65536):
        raise InvalidArgument(f"{text!r} is not a port", "write 80 or 53/udp")
    if slash and protocol not in ("tcp", "udp", "sctp"):
        raise InvalidArgument(f"{text!r} is not a port: its protocol is none of tcp, udp and sctp")
    return f"{int(number)}/{protocol or 'tcp'}"


def _address(host: str, number: int) -> str:
    return f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
