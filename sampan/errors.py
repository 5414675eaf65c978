"""Every kind of error that sampan raises: by what the caller should do about it.

A message says what was tried, on what, and why it failed, in one line; a hint says what to do next.
"""

from __future__ import annotations


def counted(number: int, one: str, several: str = "") -> str:
    """Return a number with its noun: `1 file`, `2 files`."""
    return f"{number} {one if number == 1 else several or one + 's'}"


class SampanError(Exception):
    """Say what was tried, on what and why it failed; `hint` says what would help."""

    exit_code = 125
    http_status = 500

    def __init__(self, message: str, hint: str = "", *, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code


class InvalidArgument(SampanError):
    """The request itself is wrong: correct it and call again."""

    http_status = 400


class Unauthorized(SampanError):
    """Credentials are missing or were refused."""

    http_status = 401


class Denied(SampanError):
    """The host or the peer forbids it to this user."""

    http_status = 403


class NotFound(SampanError):
    """No such image, container, volume or file."""

    http_status = 404


class Conflict(SampanError):
    """The thing exists already, is in use, or is in the wrong state."""

    http_status = 409


class NotSupported(SampanError):
    """A host feature (named in the message) or a part of sampan is missing."""

    http_status = 501


class Unavailable(SampanError):
    """It did not work now (disk full, network, lock): it may later."""

    http_status = 503


class IntegrityError(SampanError):
    """Content is not what its digest, size or format says."""

    http_status = 500


class BuildError(SampanError):
    """A Dockerfile or a step is wrong: `file`, first and last `line`s and an `excerpt` point at it.

    Of a step that failed: its `step` number in its `stage` (0: no step was reached), the `instruction`, and of a RUN
    the end of its `output` in bytes, both streams as they came.
    """

    exit_code = 1
    http_status = 400

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        file: str = "",
        line: int = 0,
        end_line: int = 0,
        excerpt: str = "",
        exit_code: int | None = None,
    ) -> None:
        super().__init__(message, hint, exit_code=exit_code)
        self.file = file
        self.line = line
        self.end_line = end_line or line
        self.excerpt = excerpt
        self.stage = self.instruction = ""
        self.step = 0
        self.output = b""
