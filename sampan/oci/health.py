"""Health checks: the image's HEALTHCHECK and what was asked become one, with Docker's defaults. Pure.

Durations are nanoseconds, as in an image's configuration (image-spec config.md, "Healthcheck" of Docker's extension).
"""

from __future__ import annotations

from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.oci.options import RunOptions

_SECOND = 1_000_000_000
DEFAULTS = {
    "Interval": 30 * _SECOND,
    "Timeout": 30 * _SECOND,
    "StartPeriod": 0,
    "StartInterval": 5 * _SECOND,
    "Retries": 3,
}
_OPTIONS = {
    "Interval": "health_interval",
    "Timeout": "health_timeout",
    "StartPeriod": "health_start_period",
    "StartInterval": "health_start_interval",
    "Retries": "health_retries",
}
_LONGEST = 1 << 62
_LEAST = 1_000_000  # Docker's: a millisecond


def healthcheck(config: dict[str, Any], options: RunOptions) -> dict[str, Any] | None:
    """Return a container's check in Docker's form, `{"Test": […], "Interval": …}`; None when it has none.

    `config` is the image's (hostile) configuration. A check of the image that is not one raises InvalidArgument too.
    """
    asked = {key: value for key, name in _OPTIONS.items() if (value := _asked(options, name))}
    if options.no_healthcheck:
        if asked or options.health_cmd:
            raise InvalidArgument("--no-healthcheck conflicts with the other --health options")
        return {"Test": ["NONE"]}
    image = _checked(config.get("Healthcheck") or {})
    test = ["CMD-SHELL", options.health_cmd] if options.health_cmd else list(image.get("Test") or ())
    if not test:
        return None
    return {"Test": test, **{key: image[key] for key in DEFAULTS if image.get(key)}, **asked}


def _asked(options: RunOptions, name: str) -> int:
    value: float = getattr(options, name)
    option = "--" + name.replace("_", "-")
    if name == "health_retries":
        if not 0 <= value < 1 << 31:
            raise InvalidArgument(f"{option} cannot be negative" if value < 0 else f"{option} {value} is too large")
        return int(value)
    nanoseconds = round(value * _SECOND)
    if nanoseconds < 0 or 0 < nanoseconds < _LEAST or nanoseconds > _LONGEST:
        raise InvalidArgument(f"{option} must be a millisecond at least", "for example 500ms or 1m30s")
    return nanoseconds


def _checked(check: Any) -> dict[str, Any]:
    test = check.get("Test") or [] if isinstance(check, dict) else None
    if not isinstance(test, list) or not all(isinstance(word, str) and "\0" not in word for word in test):
        raise InvalidArgument("invalid HEALTHCHECK of the image", "use --no-healthcheck to do without")
    for key in DEFAULTS:
        value = check.get(key) or 0
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LONGEST:
            raise InvalidArgument(
                f"invalid {key} in the HEALTHCHECK of the image", "use --no-healthcheck to do without"
            )
    return dict(check)


def arguments(check: dict[str, Any], shell: list[str]) -> list[str]:
    """Return what a probe executes, `shell` being the image's; nothing when there is no probe (NONE, or unknown)."""
    kind, *words = check["Test"]
    if kind == "CMD-SHELL" and words:
        return [*(shell or ["/bin/sh", "-c"]), words[0]]
    return words if kind == "CMD" else []


def number(check: dict[str, Any], key: str) -> int:
    """Return a setting of a check: nanoseconds, or the retries; Docker's default where it is absent or zero."""
    return int(check.get(key) or DEFAULTS[key])


def duration(nanoseconds: int) -> str:
    """Write a duration as Go does: `1m30s`, `500ms`."""
    if nanoseconds < _SECOND:
        return f"{nanoseconds / _LEAST:g}ms"
    minutes, seconds = divmod(nanoseconds / _SECOND, 60)
    hours, minutes = divmod(int(minutes), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{seconds:g}s"
