"""The part of a plan that run and exec share: terminal, limits, identity, rights, program.

Pure.  Each operation must still be permitted by those before it, so the order is fixed here: the filter goes in early
unless new privileges are forbidden (without that the kernel wants CAP_SYS_ADMIN), capabilities are bounded before the
identity changes and set after it.
"""

from __future__ import annotations

from sampan.errors import InvalidArgument
from sampan.runtime import plan as p
from sampan.runtime.plan import Plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.runtime.compile import Facts

_RLIMITS = (
    *("CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING"),
    *("MSGQUEUE", "NICE", "RTPRIO", "RTTIME"),
)
_NAME_MAX = 255  # bytes of a file's name, and no character has less than one
_PLACES = 4096


def process(plan: Plan, spec: dict[str, Any], facts: Facts, tty: bool) -> None:
    """Add terminal, identity, rights and the program: the same for run and exec."""
    config = spec["process"]
    if tty:
        rows, columns = facts.size
        plan.add(p.TTY, rows, columns, flags=1, label="open a pseudo-terminal")
    plan.add(p.DETACH, label="make it the root, and take the host's file systems away (pivot_root)")
    if spec["root"].get("readonly"):
        plan.add(p.ROOT_RO, label="make the root file system read-only")
    identity(plan, spec, facts, tty)
    program(plan, config, joinable=facts.rootless)


def identity(plan: Plan, spec: dict[str, Any], facts: Facts, tty: bool, *, make_cwd: bool = True) -> None:
    """Add limits, user, capabilities and filter in the order that each still permits the next."""
    config = spec["process"]
    if not tty:
        plan.add(p.NULL, label="take the container's own null device for streams that are the host's")
    for limit in config.get("rlimits") or ():
        name = limit["type"].removeprefix("RLIMIT_")
        hard, soft = limit["hard"], limit["soft"]
        plan.add(
            p.RLIMIT,
            _RLIMITS.index(name),
            soft % (1 << 64),
            hard % (1 << 64),
            label=f"limit {name} to {soft} (at most {hard})",
        )
    # Also where none was asked for: the caller's own is not the container's.
    score = config.get("oomScoreAdj")
    flags = p.OPTIONAL | p.OOM_UNASKED if score is None else 0
    plan.add(p.OOM, score or 0, flags=flags, label=f"set oom_score_adj {score or 0}")
    if not tty:
        plan.add(p.SESSION)
    plan.add(p.KEYRING, flags=p.OPTIONAL, label="join a new session keyring")
    if facts.accounts and facts.identity is None:
        plan.add(p.ACCOUNTS, label="look the user up in the image's /etc/passwd")
    plan.add(p.CWD, config.get("cwd") or "/", flags=int(make_cwd), label=f"enter directory {config.get('cwd') or '/'}")
    if not config.get("noNewPrivileges"):
        _filter(plan, facts)
    plan.add(p.CAPS, facts.caps, 0, 0, flags=1, label=f"bound capabilities to {', '.join(_names(config)) or 'none'}")
    single = 2 if facts.single_id else 0
    if facts.identity is not None:
        uid, gid, groups = facts.identity
        plan.add(p.USER, uid, gid, *groups, flags=1 | single, label=f"become user {uid}:{gid}")
    else:
        plan.add(p.USER, flags=single, label=f"become user {(config.get('user') or {}).get('username') or 'root'}")
    plan.add(p.CAPS, facts.caps, facts.caps, facts.ambient, flags=2 | 4, label="set the process's capabilities")
    if config.get("noNewPrivileges"):
        plan.add(p.NNP, label="forbid new privileges")
        _filter(plan, facts)
    plan.add(p.UMASK, flags=0o022)


def _filter(plan: Plan, facts: Facts) -> None:
    if facts.seccomp:
        label = f"load the system call filter ({len(facts.seccomp) // 8} instructions)"
        plan.add(p.SECCOMP, facts.seccomp, flags=facts.seccomp_flags, label=label)


def _names(config: dict[str, Any]) -> list[str]:
    return [name.removeprefix("CAP_") for name in (config.get("capabilities") or {}).get("bounding", [])]


def _places(name: str, path: str) -> list[str]:
    """Give where a program may be; an image can have a PATH of a hundred thousand directories."""
    places = list(dict.fromkeys(path.split(":")))
    if len(places) > _PLACES:
        raise InvalidArgument(
            f"cannot look for {name}: PATH has {len(places)} directories, at most {_PLACES} are looked at"
        )
    return [f"{place or '.'}/{name}" for place in places]


def program(plan: Plan, config: dict[str, Any], joinable: bool = False) -> None:
    """Add the environment and the program, with every place of PATH where it may be.

    `joinable`: an ordinary user must be able to enter the namespaces of PID 1, also where that is ours.
    """
    if config.get("sampan.init"):
        plan.add(p.INIT, flags=int(joinable), label="stay as PID 1, pass signals on and reap")
    if config.get("sampan.reap"):
        plan.add(p.REAP, label="stay as the program's parent and reap what it leaves")
    plan.add(p.ENV, *config["env"], label=f"set {len(config['env'])} environment variables")
    args = config["args"]
    name = args[0]
    candidates = [name]
    if "/" not in name:
        path = next((e[5:] for e in config["env"] if e.startswith("PATH=")), "")
        candidates = _places(name, path) if 0 < len(name) <= _NAME_MAX else [name]
    shown = args[0] if args[0] and " " not in args[0] else f"'{args[0]}'"
    plan.add(p.EXEC, *candidates, *args, flags=len(candidates), label=" ".join(("execute", shown, *args[1:])))
