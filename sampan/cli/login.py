"""sampan login: log in to a registry, and keep that for the next time, where Docker keeps it."""

from __future__ import annotations

import os
import sys

from sampan.cli import files, output
from sampan.cli.options import FLAG, Command, Option
from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values

NEEDS_ENGINE = False
OPTIONS = Command(
    "login",
    "Log in to a registry (docker.io when none is named); it is asked whether name and password are right.",
    "[SERVER]",
    (
        Option("password", "p", help="Password (other users can see it: --password-stdin is safer)"),
        Option("password-stdin", "", FLAG, "Read the password from standard input"),
        Option("username", "u", help="User name"),
    ),
    examples=("sampan login -u me registry.example", "sampan login -u me --password-stdin registry.example < token"),
)


def run(engine: object, values: Values) -> int:
    """Ask for what is missing, verify it, keep it."""
    from sampan.engine import registries

    host = registries.server(values.args[0] if values.args else "")
    _check(values)
    if not values.username and not values.password and not values.password_stdin and registries.relogin(host):
        output.line("Login Succeeded")
        return 0
    username = values.username or _ask_name(host)
    password = _password(values, username, host)
    kept = registries.login(host, username, password)
    if kept.endswith(".json"):
        sys.stderr.write(f"sampan: warning: the password is kept unencrypted in {kept}\n")
        sys.stderr.write('hint: a credential helper keeps it safer: "credsStore" in that file names one\n')
    output.line("Login Succeeded")
    return 0


def _check(values: Values) -> None:
    if values.password_stdin and values.password:
        raise InvalidArgument("--password and --password-stdin exclude each other")
    if values.password_stdin and not values.username:
        raise InvalidArgument("--password-stdin needs --username")
    if values.password:
        sys.stderr.write("sampan: warning: --password shows the password to others; use --password-stdin\n")


def _ask_name(host: str) -> str:
    from sampan.engine import registries

    if not os.isatty(0):
        raise InvalidArgument("cannot ask for the user name: standard input is not a terminal", "use --username")
    known = registries.stored(host)
    sys.stderr.write(f"Username ({known}): " if known else "Username: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip() or known


def _password(values: Values, username: str, host: str) -> str:
    if values.password:
        return str(values.password)
    if values.password_stdin:
        files.standard_input("the password")
        # Docker: a line end at the end is not part of it.
        return sys.stdin.read(1 << 20).removesuffix("\n").removesuffix("\r")
    if not os.isatty(0):
        raise InvalidArgument("cannot ask for the password: standard input is not a terminal", "use --password-stdin")
    from getpass import getpass

    return getpass(f"Password of {username} at {host}: ")
