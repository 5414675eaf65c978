"""The options that run and create share, and their translation to the engine's RunOptions.

Every option of `docker run` is known: what sampan cannot do yet is refused by name, never ignored, because a setting
that is silently dropped would make a container weaker than asked.
"""

from __future__ import annotations

import os

from sampan import rights
from sampan.cli.options import BYTES, DURATION, FLAG, INT, LIST, MAP, NUMBER, Option
from sampan.errors import InvalidArgument, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.cli.options import Values
    from sampan.engine.engine import Engine
    from sampan.oci.options import RunOptions

_BRIDGE = "it needs a bridge network, which is not available yet"
_HOST = "use --network host"
_LATER = "it is not there yet"
_WINDOWS = "it exists on Windows only"

OPTIONS = (
    Option("add-host", "", LIST, "Add a line to /etc/hosts: NAME:ADDRESS"),
    Option("annotation", "", MAP, "Keep a note with the container: NAME=VALUE"),
    Option("attach", "a", LIST, "Attach only these of stdin, stdout and stderr"),
    Option("blkio-weight", "", INT, "Weight of block IO (10 to 1000)"),
    Option("blkio-weight-device", "", LIST, "Weight of block IO on one device: /dev/NAME:WEIGHT"),
    Option("cap-add", "", LIST, "Add a capability"),
    Option("cap-drop", "", LIST, "Drop a capability, or ALL"),
    Option("cgroupns", help="Control group namespace", choices=("private", "host")),
    Option("cidfile", help="Write the container's id to this file"),
    Option("cpu-period", "", INT, "Period of the CPU quota, in microseconds"),
    Option("cpu-quota", "", INT, "CPU time in each period, in microseconds; -1 for no limit"),
    Option("cpu-rt-period", "", INT, "Period of real-time CPU time, in microseconds (cgroup v1)"),
    Option("cpu-rt-runtime", "", INT, "Real-time CPU time in each period, in microseconds (cgroup v1)"),
    Option("cpu-shares", "c", INT, "Weight of CPU time (1024 is usual)"),
    Option("cpus", "", NUMBER, "Number of CPUs, as 1.5"),
    Option("cpuset-cpus", help="CPUs to run on: 0-2,5"),
    Option("cpuset-mems", help="Memory nodes to use: 0-3"),
    Option("device", "", LIST, "Give a device of the host: HOST[:CONTAINER[:rwm]]"),
    Option("device-cgroup-rule", "", LIST, "Allow devices: 'c 10:200 rwm'"),
    Option("device-read-bps", "", LIST, "Limit of reading from a device: /dev/NAME:1mb (a second)"),
    Option("device-read-iops", "", LIST, "Limit of reads from a device: /dev/NAME:100 (a second)"),
    Option("device-write-bps", "", LIST, "Limit of writing to a device: /dev/NAME:1mb (a second)"),
    Option("device-write-iops", "", LIST, "Limit of writes to a device: /dev/NAME:100 (a second)"),
    Option("disable-content-trust", "", FLAG, "There is no content trust: digests are always verified", default=True),
    Option("dns", "", LIST, "Name server to ask"),
    Option("dns-option", "", LIST, "Option of the resolver", aliases=("dns-opt",)),
    Option("dns-search", "", LIST, "Domain to search names in"),
    Option("domainname", help="Domain name in the container"),
    Option("entrypoint", help="Program to run instead of the image's entry point"),
    Option("env", "e", LIST, "Set a variable: NAME=VALUE, or NAME to pass the caller's"),
    Option("env-file", "", LIST, "Read variables from a file"),
    Option("expose", "", LIST, "Note that it listens on a port: PORT[-PORT][/udp]"),
    Option("group-add", "", LIST, "Add a supplementary group"),
    Option("health-cmd", help="Command that checks its health, run by the image's shell"),
    Option("health-interval", "", DURATION, "Time between two checks (30s)"),
    Option("health-retries", "", INT, "Failures in a row that make it unhealthy (3)"),
    Option("health-start-interval", "", DURATION, "Time between two checks during the start period (5s)"),
    Option("health-start-period", "", DURATION, "Time in which failures do not count, while it starts"),
    Option("health-timeout", "", DURATION, "Time that one check may take (30s)"),
    Option("hostname", "h", help="Host name in the container"),
    Option("init", "", FLAG, "Run a small init as first process: it passes signals on and reaps"),
    Option("interactive", "i", FLAG, "Pass standard input to it"),
    Option("ipc", help="IPC namespace", choices=("private", "shareable", "none", "host")),
    Option("isolation", help="Isolation; others exist on Windows only", choices=("default",)),
    Option("label", "l", LIST, "Set a label"),
    Option("label-file", "", LIST, "Read labels from a file"),
    Option("memory", "m", BYTES, "Limit of memory, as 64m"),
    Option("memory-reservation", "", BYTES, "Memory that is left to it when the host has too little"),
    Option("memory-swap", "", BYTES, "Limit of memory and swap together; -1 for no limit of swap"),
    Option("memory-swappiness", "", INT, "Preference for swapping (0 to 100; cgroup v1)"),
    Option("mount", "", LIST, "Mount: type=bind|volume|tmpfs,source=…,target=…[,readonly]"),
    Option("name", help="Name of the container"),
    Option("network", help="Network: none, host or container:NAME", aliases=("net",)),
    Option("no-healthcheck", "", FLAG, "Do without the image's health check"),
    Option("oom-kill-disable", "", FLAG, "Let it wait, not be killed, when its memory is used up (cgroup v1)"),
    Option("oom-score-adj", "", INT, "Preference of the kernel's out-of-memory killer (-1000 to 1000)"),
    Option("pid", help="Process namespace: private, host or container:NAME"),
    Option("pids-limit", "", INT, "Limit of processes; -1 for none"),
    Option("platform", help="Platform that the image must be for"),
    Option("privileged", "", FLAG, "Give every right that the caller has"),
    Option("pull", help="Get the image from a registry", choices=("missing", "never", "always"), default="missing"),
    Option("quiet", "q", FLAG, "Do not show how a pull goes on"),
    Option("read-only", "", FLAG, "Make the root file system read-only"),
    Option("restart", help="When to start it again: no, on-failure[:most], always, unless-stopped"),
    Option("rm", "", FLAG, "Remove the container when it has ended"),
    Option("security-opt", "", LIST, "Security: no-new-privileges, seccomp=…, apparmor=…, systempaths=…"),
    Option("shm-size", "", BYTES, "Size of /dev/shm"),
    Option("stop-signal", help="Signal that stops it"),
    Option("stop-timeout", "", INT, "Seconds before a stop kills"),
    Option("sysctl", "", MAP, "Set a kernel parameter of its namespaces: NAME=VALUE"),
    Option("tmpfs", "", LIST, "Mount a tmpfs: DESTINATION[:OPTIONS]"),
    Option("tty", "t", FLAG, "Give it a terminal"),
    Option("ulimit", "", LIST, "Set a limit of processes: TYPE=SOFT[:HARD]"),
    Option("user", "u", help="User and group, by name or number: USER[:GROUP]"),
    Option("userns", help="User namespace", choices=("private", "host")),
    Option("uts", help="Host name namespace", choices=("private", "host")),
    Option("volume", "v", LIST, "Mount a directory or volume: [SOURCE:]DESTINATION[:ro]"),
    Option("volume-driver", help="Driver of volumes", choices=("local",)),
    Option("volumes-from", "", LIST, "Mount what another container mounts: CONTAINER[:ro]"),
    Option("workdir", "w", help="Directory to start in"),
    Option("publish", "p", LIST, refuse="publishing ports: " + _BRIDGE, hint=_HOST),
    Option("publish-all", "P", FLAG, refuse="publishing ports: " + _BRIDGE, hint=_HOST),
    Option("ip", refuse=_BRIDGE, hint=_HOST),
    Option("ip6", refuse=_BRIDGE, hint=_HOST),
    Option("link", "", LIST, refuse=_BRIDGE, hint="use --network container:NAME"),
    Option("link-local-ip", "", LIST, refuse=_BRIDGE),
    Option("mac-address", refuse=_BRIDGE),
    Option("network-alias", "", LIST, refuse=_BRIDGE, aliases=("net-alias",)),
    Option("cgroup-parent", refuse=_LATER, hint="limit each container: --memory, --cpus, --pids-limit"),
    Option("cpu-count", refuse=_WINDOWS, hint="use --cpus"),
    Option("cpu-percent", refuse=_WINDOWS, hint="use --cpus"),
    Option("io-maxbandwidth", refuse=_WINDOWS, hint="use --device-read-bps and --device-write-bps"),
    Option("io-maxiops", refuse=_WINDOWS, hint="use --device-read-iops and --device-write-iops"),
    Option("runtime", refuse="there is one runtime, and it needs no name", hint="leave it out"),
    Option("use-api-socket", "", FLAG, refuse="there is no daemon, and so no socket of it"),
    Option("gpus", refuse=_LATER, hint="use --device"),
    Option("kernel-memory", refuse="kernels do not have this limit any more", hint="use --memory"),
    Option("log-driver", help="How the log is kept: json-file (the default) or none"),
    Option("log-opt", "", MAP, "Limit the log: max-size=10m, max-file=3 (these are the defaults)"),
    Option("storage-opt", "", LIST, refuse=_LATER, hint="a --tmpfs has a size: /data:size=1g"),
)

# Where a field of RunOptions is not named as its option.
_NAMES = {
    "cpuset_cpus": "cpuset",
    "annotation": "annotations",
    "device": "devices",
    "log_opt": "log_opts",
    "device_cgroup_rule": "device_cgroup_rules",
    "sysctl": "sysctls",
    "ulimit": "ulimits",
}
_SAME = frozenset(
    ("user", "workdir", "group_add", "hostname", "network", "pid", "ipc", "uts", "userns", "tmpfs", "shm_size")
    + ("read_only", "memory", "memory_swap", "memory_reservation", "cpus", "cpu_shares", "pids_limit")
    + ("oom_score_adj", "cap_add", "cap_drop", "security_opt", "privileged", "init", "tty", "interactive")
    + ("stop_signal", "stop_timeout", "cpu_period", "cpu_quota", "cpu_rt_period", "cpu_rt_runtime", "cpuset_mems")
    + ("blkio_weight", "blkio_weight_device", "memory_swappiness", "oom_kill_disable")
    + ("add_host", "cgroupns", "dns", "dns_option", "dns_search", "domainname", "expose", "volumes_from")
    + ("device_read_bps", "device_read_iops", "device_write_bps", "device_write_iops")
    + ("restart", "health_cmd", "health_interval", "health_timeout", "health_start_period", "health_start_interval")
    + ("health_retries", "no_healthcheck", "log_driver")
)


def run_options(values: Values) -> RunOptions:
    """Translate the command line; raises InvalidArgument and NotSupported."""
    from sampan.oci.options import RunOptions

    given = values.given
    options = RunOptions(command=values.args[1:])
    for name in given:
        field = _NAMES.get(name, name)
        if field in _SAME or name in _NAMES:
            setattr(options, field, getattr(values, name))
    if "entrypoint" in given:
        options.entrypoint = [values.entrypoint] if values.entrypoint else []
    if given & {"env", "env_file", "label", "label_file"}:
        from sampan.cli import variables

        options.env = variables.environment(values.env_file, values.env)
        options.labels = variables.labels(values.label_file, values.label)
    if "expose" in given:
        _check_ports(values.expose)
    if given & {"volume", "mount"}:
        from sampan.cli import mounts

        options.mounts = [mounts.volume(word) for word in values.volume] + [mounts.mount(w) for w in values.mount]
    if given & {"log_driver", "log_opt"}:
        from sampan.oci import logopts

        logopts.settings({"log_driver": options.log_driver, "log_opts": options.log_opts})
    _check(values)
    return options


def _check_ports(words: list[str]) -> None:
    from sampan.engine import matching

    for word in words:
        try:
            matching.ports(word)
        except ValueError as exc:
            raise InvalidArgument(f"option --expose: {exc}") from None


def _check(values: Values) -> None:
    if values.cgroupns == "host" and rights.rootless():
        raise NotSupported("option --cgroupns host: an ordinary user's container has its own", "leave it out")
    if values.userns == "host" and rights.rootless():
        raise NotSupported("option --userns host: an ordinary user needs a user namespace", "leave it out")
    if values.userns == "private" and not rights.rootless():
        raise NotSupported("option --userns private: containers of root have no user namespace yet", "run as a user")


def obtain(engine: Engine, image: str, values: Values) -> None:
    """Pull the image where --pull asks for it, and raise NotFound unless it is for the platform of --platform."""
    if values.pull != "missing" or values.platform or not engine.images.has(image):
        from sampan.cli import transfers

        with transfers.display("quiet" if values.quiet else "auto") as show:
            engine.images.obtain(image, values.pull, values.platform, show)
    if values.platform:
        _check_platform(engine, image, values.platform)


def _check_platform(engine: Engine, image: str, wanted: str) -> None:
    from sampan.errors import NotFound
    from sampan.oci import platform

    config = engine.images.inspect(image)
    found = platform.Platform(config["Os"], config["Architecture"], config["Variant"])
    if not platform.matches(found, platform.parse(wanted)):
        raise NotFound(f"image {image} is for {found}, not for {wanted}", exit_code=125)


def cidfile(path: str) -> Callable[[str], None] | None:
    """Make the file of --cidfile, which must not exist, and return the function that writes the id into it."""
    if not path:
        return None
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        hint = "remove it when no container goes by it any more"
        raise InvalidArgument(f"cannot write the container's id to {path}: the file exists", hint) from None
    except OSError as exc:
        raise InvalidArgument(f"cannot write the container's id to {path}: {exc.strerror}") from exc
    os.close(fd)
    return lambda container_id: _write_id(path, container_id)


def _write_id(path: str, container_id: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)  # there may be a link now
    except OSError as exc:
        raise InvalidArgument(f"cannot write the container's id to {path}: {exc.strerror}") from exc
    with open(fd, "w", encoding="ascii") as file:
        file.write(container_id)


def drop_cidfile(path: str) -> None:
    """Remove a --cidfile that is still empty, because no container was created."""
    if path and os.path.getsize(path) == 0:
        os.unlink(path)
