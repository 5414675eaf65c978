"""sampan doctor: what this host can and cannot do, and the command that mends it."""

from __future__ import annotations

from sampan.cli import output
from sampan.cli.options import FLAG, Command, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.options import Values
    from sampan.engine.engine import Engine

OPTIONS = Command(
    "doctor",
    "Say what this host can and cannot do for containers, what follows, and the command that mends it. "
    "The exit code is 1 when something is missing.",
    "",
    (
        Option("format", "f", help="Print with a Go template per finding, or `json`"),
        Option("json", "", FLAG, "Print as JSON: the same as --format json"),
    ),
)


def run(engine: Engine, values: Values) -> int:
    """Examine the host and print the findings."""
    from sampan.engine import doctor

    findings = doctor.report_for(engine)
    if values.json or values.format == "json":
        output.line(output.json_text(doctor.report_json(findings)))
    elif values.format:
        from sampan.cli import template

        form = template.parse(values.format)
        for finding in doctor.report_json(findings):
            output.line(form.render(finding))
    else:
        output.write(doctor.report_text(findings))
    return 1 if doctor.worst(findings) == doctor.MISSING else 0
