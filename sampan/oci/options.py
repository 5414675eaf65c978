"""What may be asked of a new container (the flags of `docker run`), and Docker's defaults for what was not asked.

Plain values only: a RunOptions is stored with its container as JSON (`options_dict`).
"""

from __future__ import annotations

from sampan.errors import InvalidArgument

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHM = 64 << 20

DEFAULTS: dict[str, Any] = {
    "command": list,  # replaces the image's Cmd
    "entrypoint": None,  # None: the image's; [] or [""]: none; a list replaces it
    "env": list,  # NAME=value
    "workdir": "",
    "user": "",  # name or number, with an optional :group
    "group_add": list,
    "hostname": "",
    "network": "none",  # none, host
    "pid": "",  # "" is a namespace of its own, host is the host's; so for the next three
    "ipc": "",
    "uts": "",
    "userns": "",
    "mounts": list,  # (type bind|volume|tmpfs, source, destination, options list)
    "tmpfs": list,  # destination[:options]
    "shm_size": 0,
    "read_only": False,
    "memory": 0,  # bytes
    "memory_swap": 0,  # bytes of memory and swap together; -1 is unlimited
    "memory_reservation": 0,
    "cpus": 0.0,
    "cpu_shares": 0,
    "cpuset": "",
    "cpuset_mems": "",
    "cpu_period": 0,  # microseconds, as the next; -1 is no quota
    "cpu_quota": 0,
    "cpu_rt_period": 0,
    "cpu_rt_runtime": 0,
    "memory_swappiness": None,  # 0 to 100
    "oom_kill_disable": False,
    "blkio_weight": 0,
    "blkio_weight_device": list,  # /dev/NAME:weight
    "device_read_bps": list,  # /dev/NAME:rate, as the next three
    "device_write_bps": list,
    "device_read_iops": list,
    "device_write_iops": list,
    "device_cgroup_rules": list,  # "c 10:200 rwm"
    "pids_limit": 0,
    "ulimits": list,  # name=soft[:hard]
    "oom_score_adj": 0,
    "cap_add": list,
    "cap_drop": list,
    "security_opt": list,
    "privileged": False,
    "devices": list,  # host[:container[:rwm]]
    "sysctls": dict,
    "labels": dict,
    "init": False,
    "tty": False,
    "interactive": False,
    "stop_signal": "",
    "stop_timeout": None,  # seconds
    "log_driver": "",  # json-file (also when empty), none
    "log_opts": dict,  # oci/logopts.py
    "restart": "",  # no, on-failure[:most], always, unless-stopped
    "health_cmd": "",
    "health_interval": 0.0,  # seconds, as the next three
    "health_timeout": 0.0,
    "health_start_period": 0.0,
    "health_start_interval": 0.0,
    "health_retries": 0,
    "no_healthcheck": False,
    "expose": list,  # port[-port][/protocol]
    "domainname": "",
    "add_host": list,  # name:address
    "dns": list,
    "dns_search": list,
    "dns_option": list,
    "volumes_from": list,  # container[:ro|rw]
    "cgroupns": "",  # private, host
    "annotations": dict,
}


class RunOptions:
    """What is asked of a container; every field has Docker's default until it is set.

    `None` as entrypoint means the image's own; sizes are in bytes, `stop_timeout` in seconds.
    """

    __slots__ = tuple(DEFAULTS)

    if TYPE_CHECKING:
        command: list[str]
        entrypoint: list[str] | None
        env: list[str]
        workdir: str
        user: str
        group_add: list[str]
        hostname: str
        network: str
        pid: str
        ipc: str
        uts: str
        userns: str
        mounts: list[tuple[str, str, str, list[str]]]
        tmpfs: list[str]
        shm_size: int
        read_only: bool
        memory: int
        memory_swap: int
        memory_reservation: int
        cpus: float
        cpu_shares: int
        cpuset: str
        cpuset_mems: str
        cpu_period: int
        cpu_quota: int
        cpu_rt_period: int
        cpu_rt_runtime: int
        memory_swappiness: int | None
        oom_kill_disable: bool
        blkio_weight: int
        blkio_weight_device: list[str]
        device_read_bps: list[str]
        device_write_bps: list[str]
        device_read_iops: list[str]
        device_write_iops: list[str]
        device_cgroup_rules: list[str]
        pids_limit: int
        ulimits: list[str]
        oom_score_adj: int
        cap_add: list[str]
        cap_drop: list[str]
        security_opt: list[str]
        privileged: bool
        devices: list[str]
        sysctls: dict[str, str]
        labels: dict[str, str]
        init: bool
        tty: bool
        interactive: bool
        stop_signal: str
        stop_timeout: float | None
        log_driver: str
        log_opts: dict[str, str]
        restart: str
        health_cmd: str
        health_interval: float
        health_timeout: float
        health_start_period: float
        health_start_interval: float
        health_retries: int
        no_healthcheck: bool
        expose: list[str]
        domainname: str
        add_host: list[str]
        dns: list[str]
        dns_search: list[str]
        dns_option: list[str]
        volumes_from: list[str]
        cgroupns: str
        annotations: dict[str, str]

    def __init__(self, **fields: Any) -> None:
        for name, default in DEFAULTS.items():
            setattr(self, name, default() if callable(default) else default)
        for name, value in fields.items():
            if name not in DEFAULTS:
                raise InvalidArgument(f"unknown run option {name!r}")
            setattr(self, name, value)


def options_dict(options: RunOptions) -> dict[str, Any]:
    """Return the options that differ from the defaults, as JSON values."""
    found = {}
    for name, default in DEFAULTS.items():
        value = getattr(options, name)
        if value != (default() if callable(default) else default):
            found[name] = value
    return found


MASKED_PATHS = (
    ("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats")
    + ("/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats")
    + ("/sys/devices/virtual/powercap", "/sys/firmware")
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_DEVICES = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, None))


ALLOW_ALL: list[dict[str, Any]] = [{"allow": True, "access": "rwm"}]  # of a privileged container


def device_rules() -> list[dict[str, Any]]:
    """Return Docker's rules for the device cgroup: any node may be made, few opened."""
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    rules += [{"allow": True, "type": kind, "access": "m"} for kind in ("c", "b")]
    for major, minor in _DEVICES:
        rule = {"allow": True, "type": "c", "major": major, "access": "rwm"}
        rules.append(rule if minor is None else {**rule, "minor": minor})
    return rules


def default_mounts(shm_size: int) -> list[dict[str, Any]]:
    """Return the file systems that every container gets."""
    locked = ["nosuid", "noexec", "nodev"]
    return [
        {"type": "proc", "source": "proc", "destination": "/proc", "options": locked},
        {
            "type": "tmpfs",
            "source": "tmpfs",
            "destination": "/dev",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "type": "devpts",
            "source": "devpts",
            "destination": "/dev/pts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {"type": "sysfs", "source": "sysfs", "destination": "/sys", "options": [*locked, "ro"]},
        {"type": "cgroup", "source": "cgroup", "destination": "/sys/fs/cgroup", "options": ["ro", *locked]},
        {"type": "mqueue", "source": "mqueue", "destination": "/dev/mqueue", "options": locked},
        {
            "type": "tmpfs",
            "source": "shm",
            "destination": "/dev/shm",
            "options": [*locked, "mode=1777", f"size={shm_size or DEFAULT_SHM}"],
        },
    ]
