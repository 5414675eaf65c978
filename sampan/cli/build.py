"""sampan build: build an image from a Dockerfile."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import BYTES, FLAG, INT, LIST, Command, Option
from sampan.errors import InvalidArgument, NotSupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

_LATER = "it is not there yet"
OPTIONS = Command(
    "build",
    "Build an image from a Dockerfile and the files beside it.",
    "PATH",
    (
        Option("build-arg", "", LIST, "Set a build argument: NAME=VALUE, or NAME to pass the caller's variable"),
        Option("file", "f", help="Dockerfile to read (PATH/Dockerfile when not given; - for standard input)"),
        Option("iidfile", help="Write the image's id to this file"),
        Option("label", "", LIST, "Set a label on the image"),
        Option("no-cache", "", FLAG, "Execute every step again"),
        Option("platform", help="Platform to build for"),
        Option(
            "progress",
            help="How to show what happens",
            default="auto",
            choices=("auto", "plain", "tty", "rawjson", "json", "quiet", "none"),
        ),
        Option("quiet", "q", FLAG, "Print the image's id only"),
        Option("tag", "t", LIST, "Name the image (may be given several times)"),
        Option("target", help="Stop at this stage"),
        Option("load", "", FLAG, "Keep the image in the store (it always is)"),
        Option("rm", "", FLAG, "Remove intermediate containers (they always are)", default=True),
        Option("force-rm", "", FLAG, "Remove intermediate containers of failed builds (they always are)"),
        Option("compress", "", FLAG, "Accepted: the context is read where it lies"),
        Option("disable-content-trust", "", FLAG, "Accepted: there is no content trust", default=True),
        Option("isolation", help="Accepted: Linux has one kind", choices=("default",)),
        Option("provenance", "", FLAG, "Accepted when it is false: there are no attestations"),
        Option("sbom", "", FLAG, "Accepted when it is false: there are no attestations"),
        Option("cpu-period", "", INT, "Period of the CPU limit of RUN, in microseconds"),
        Option("cpu-quota", "", INT, "CPU time of RUN in a period, in microseconds"),
        Option("cpu-shares", "c", INT, "Weight of RUN's CPU time against others (2 to 262144)"),
        Option("cpuset-cpus", help="CPUs that RUN uses: 0-2,5"),
        Option("cpuset-mems", help="Memory nodes that RUN uses: 0-3"),
        Option("memory", "m", BYTES, "Limit of RUN's memory, as 64m"),
        Option("memory-swap", "", BYTES, "Limit of RUN's memory and swap together; -1 for no limit of swap"),
        Option("shm-size", "", BYTES, "Size of /dev/shm in RUN"),
        Option("ulimit", "", LIST, "Set a limit of RUN's processes: TYPE=SOFT[:HARD]"),
        Option("metadata-file", help="Write the image's id, digest and names to this file, as JSON"),
        Option("no-cache-filter", "", LIST, "Execute every step of this stage again (may be given several times)"),
        Option("network", help="Network of RUN", choices=("default", "none", "host"), default="default"),
        Option("pid", help="Process namespace of RUN (private)", choices=("private", "host")),
        Option("pull", "", FLAG, "Pull the base images even where they are here"),
        Option("push", "", FLAG, "Push the image under its names when it is built"),
        Option("output", "o", LIST, refuse=_LATER, hint="use sampan save, or sampan create and sampan export"),
        Option("secret", "", LIST, refuse=_LATER),
        Option("ssh", "", LIST, refuse=_LATER),
        Option("build-context", "", LIST, refuse=_LATER),
        Option("cache-from", "", LIST, refuse=_LATER, hint="the local cache is always used"),
        Option("cache-to", "", LIST, refuse=_LATER, hint="the local cache is always filled"),
        Option("add-host", "", LIST, refuse=_LATER),
        Option("allow", "", LIST, refuse="no step gets more rights than the others"),
        Option("attest", "", LIST, refuse="there are no attestations"),
        Option("annotation", "", LIST, refuse=_LATER, hint="use --label"),
        Option("builder", refuse="there is one builder, and it needs no name"),
        Option("call", refuse=_LATER),
        Option("check", "", FLAG, refuse=_LATER),
        Option("cgroup-parent", refuse=_LATER),
        Option(
            "debug",
            "D",
            FLAG,
            refuse="there is no debugger of builds",
            hint="details of a failure: sampan --debug build",
        ),
        Option("policy", "", LIST, refuse=_LATER),
        Option("security-opt", "", LIST, refuse="every step has the rights of a container, no more and no less"),
        Option("stream", "", FLAG, refuse="no context is sent anywhere"),
        Option("squash", "", FLAG, refuse=_LATER, hint="use a stage that copies the result"),
    ),
    examples=("sampan build -t app .", "sampan build -f deploy/Dockerfile --build-arg VERSION=2 --target test ."),
)


def run(engine: Engine, values: Values) -> int:
    """Build it; the id goes to standard output with --quiet, all else to standard error."""
    from sampan.cli import progress

    _check(values)
    show = progress.renderer("quiet" if values.quiet else values.progress)
    done = False
    try:
        image_id = _build(engine, values, show)
        done = True
    finally:
        show.close(failed=not done)
    if values.push:
        from sampan.cli import transfers

        with transfers.display("quiet" if values.quiet else values.progress, words=transfers.PUSH_WORDS) as shown:
            pushed = [one for name in values.tag for one in engine.images.push(name, listen=shown)]
        for one in pushed if not values.quiet else ():
            output.line(f"{one.reference.tag}: digest: {one.digest} size: {one.size}")
    if values.iidfile:
        _write_id(values.iidfile, image_id)
    if values.metadata_file:
        _write_metadata(values.metadata_file, engine, image_id, values.tag)
    if values.quiet:
        output.line(image_id)
    return 0


def _check(values: Values) -> None:
    for name in ("provenance", "sbom"):
        if getattr(values, name):
            raise NotSupported(f"option --{name} of build: there are no attestations", f"use --{name}=false")
    if values.push and not values.tag:
        raise InvalidArgument("cannot push the image: it gets no name", "name it with --tag")
    place = values.args[0]
    if "-" in (place, values.file):
        from sampan.cli.files import standard_input

        standard_input("the Dockerfile")
    if place.startswith(("http://", "https://", "git://", "ssh://", "git@", "github.com/")):
        raise NotSupported(f"cannot build from {place}: remote contexts are not there yet", "clone it first")


def _build(engine: Engine, values: Values, show: Callable[..., None]) -> str:
    from sampan.cli import variables

    return engine.build(
        values.args[0],
        tags=values.tag,
        dockerfile=values.file,
        build_args=variables.build_arguments(values.build_arg),
        target=values.target,
        no_cache=values.no_cache,
        labels=variables.labels([], values.label),
        platform=values.platform,
        network="" if values.network == "default" else values.network,
        pull=values.pull,
        no_cache_stages=[name for text in values.no_cache_filter for name in text.split(",")],
        limits={name: given for option, name in _LIMITS.items() if (given := getattr(values, option))},
        on_event=show,
    )


# The field of RunOptions that an option sets for the steps.
_LIMITS = {
    **{name: name for name in ("cpu_period", "cpu_quota", "cpu_shares", "cpuset_mems", "memory", "memory_swap")},
    **{"shm_size": "shm_size", "cpuset_cpus": "cpuset", "ulimit": "ulimits", "pid": "pid"},
}


def _write_metadata(path: str, engine: Engine, image_id: str, tags: list[str]) -> None:
    """Write what `docker buildx build --metadata-file` writes of an image that stays here."""
    from sampan.cli.files import write_text
    from sampan.oci import reference

    data = {
        "containerimage.config.digest": image_id,
        "containerimage.digest": engine.images.resolve(image_id).manifest_digest,
        "image.name": ",".join(str(reference.parse(name)) for name in tags),
    }
    write_text(path, output.json_pretty({key: value for key, value in data.items() if value}) + "\n", "the metadata")


def _write_id(path: str, image_id: str) -> None:
    from sampan.cli.files import write_text

    write_text(path, image_id, "the image's id")
