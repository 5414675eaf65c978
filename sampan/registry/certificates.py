"""Certificates for one registry, in Docker's layout: certs.d/HOST[:PORT]/ holds *.crt (CAs), *.cert and *.key (client).

Looked for in $SAMPAN_CERTS_DIR, ~/.config/sampan, ~/.config/docker, ~/.docker, ~/.config/containers, /etc/sampan,
/etc/docker and /etc/containers (`certs.d` below each); all that are found count, as do the system's own CAs.
"""

from __future__ import annotations

import os

from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from ssl import SSLContext


def directories(host: str, environ: Mapping[str, str]) -> list[str]:
    """Give the directories, those that exist, that may hold certificates for a host with its port."""
    home = environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    tops = [f"{home}/sampan", f"{home}/docker", os.path.expanduser("~/.docker"), f"{home}/containers"]
    tops += ["/etc/sampan", "/etc/docker", "/etc/containers"]
    roots = [environ["SAMPAN_CERTS_DIR"]] if environ.get("SAMPAN_CERTS_DIR") else []
    roots += [top + "/certs.d" for top in tops]
    if host.startswith(".") or "/" in host:
        return []
    names = [host, host.removesuffix(":443")] if host.endswith(":443") else [host]
    return [path for root in roots for path in dict.fromkeys(f"{root}/{name}" for name in names) if os.path.isdir(path)]


def context(host: str, environ: Mapping[str, str], *, unverified: bool = False) -> SSLContext:
    """Make the TLS settings for a host; InvalidArgument when a certificate file cannot be used."""
    import ssl

    made = ssl.create_default_context()
    # Python 3.13 refuses private authorities without key usage, which Docker and earlier Pythons take.
    made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if unverified:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    for directory in directories(host, environ):
        names = sorted(os.listdir(directory))
        for name in names:
            path = f"{directory}/{name}"
            try:
                if name.endswith(".crt"):
                    made.load_verify_locations(path)
                elif name.endswith(".cert"):
                    made.load_cert_chain(path, _key(path), password=_no_password(path))
            except (OSError, ValueError) as exc:  # ssl.SSLError is an OSError
                raise InvalidArgument(f"cannot use certificate {path}: {_reason(exc)}") from exc
            if name.endswith(".key") and name[:-4] + ".cert" not in names:
                raise InvalidArgument(f"cannot use key {path}: there is no {name[:-4]}.cert beside it")
    return made


def _reason(exc: OSError | ValueError) -> str:
    """Say it without OpenSSL's names: its own for a file without any certificate is NO_CERTIFICATE_OR_CRL_FOUND."""
    import ssl

    if not isinstance(exc, ssl.SSLError):
        return getattr(exc, "strerror", "") or str(exc)
    if exc.reason == "KEY_VALUES_MISMATCH":
        return "the key beside it is not its own"
    return "it holds no certificate and key in PEM form"


def _key(path: str) -> str:
    key = path.removesuffix(".cert") + ".key"
    if not os.path.exists(key):
        raise InvalidArgument(f"cannot use certificate {path}: there is no {os.path.basename(key)} beside it")
    return key


def _no_password(path: str) -> Callable[[], str]:
    """Refuse a key that needs a pass phrase: OpenSSL would ask for it on the terminal."""

    def refuse() -> str:
        raise InvalidArgument(f"cannot use the key of {path}: it is encrypted")

    return refuse
