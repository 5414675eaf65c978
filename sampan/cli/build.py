"""sampan build: build an image from a Dockerfile."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import FLAG, LIST, Command, Option
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
        Option("provenance", help="Accepted when it is false: there are no attestations"),
        Option("sbom", help="Accepted when it is false: there are no attestations"),
        Option("network", help="Network of RUN", choices=("default", "none", "host"), default="default"),
        Option("pull", "", FLAG, "Pull the base images even where they are here"),
        Option("push", "", FLAG, "Push the image under its names when it is built"),
        Option("output", "o", LIST, refuse=_LATER, hint="use sampan save, or sampan create and sampan export"),
        Option("secret", "", LIST, refuse=_LATER),
        Option("ssh", "", LIST, refuse=_LATER),
        Option("build-context", "", LIST, refuse=_LATER),
        Option("cache-from", "", LIST, refuse=_LATER, hint="the local cache is always used"),
        Option("cache-to", "", LIST, refuse=_LATER, hint="the local cache is always filled"),
        Option("no-cache-filter", "", LIST, refuse=_LATER, hint="use --no-cache"),
        Option("add-host", "", LIST, refuse=_LATER),
        Option("allow", "", LIST, refuse="no step gets more rights than the others"),
        Option("attest", "", LIST, refuse="there are no attestations"),
        Option("annotation", "", LIST, refuse=_LATER, hint="use --label"),
        Option("builder", refuse="there is one builder, and it needs no name"),
        Option("call", refuse=_LATER),
        Option("check", "", FLAG, refuse=_LATER),
        Option("cgroup-parent", refuse=_LATER),
        Option("metadata-file", refuse=_LATER, hint="use --iidfile"),
        Option("shm-size", refuse=_LATER),
        Option("ulimit", "", LIST, refuse=_LATER),
        Option("memory", "m", refuse=_LATER),
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
    if values.quiet:
        output.line(image_id)
    return 0


def _check(values: Values) -> None:
    for name in ("provenance", "sbom"):
        if getattr(values, name) not in ("", "false"):
            raise NotSupported(f"option --{name} of build: there are no attestations", f"use --{name}=false")
    if values.push and not values.tag:
        raise InvalidArgument("cannot push the image: it gets no name", "name it with --tag")
    place = values.args[0]
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
        on_event=show,
    )


def _write_id(path: str, image_id: str) -> None:
    from sampan.cli.files import write_text

    write_text(path, image_id, "the image's id")
