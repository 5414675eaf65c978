"""The words of --format: what Go's text/template prints for the templates that people paste, and located errors."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.cli import template
from sampan.errors import InvalidArgument

NULLS: dict[str, Any] = dict.fromkeys(("Entrypoint", "Cmd", "Volumes", "Data"))
DATA: dict[str, Any] = {
    "Id": "0123456789ab",
    "Name": "/web",
    "Created": 1700000000,
    "Ratio": 1.5,
    "Whole": 3.0,
    "Nothing": None,
    "Args": ["-c", "echo hi"],
    "State": {"Status": "running", "Running": True, "Pid": 42, "ExitCode": 0},
    "Config": {"Env": ["A=1", "B=2"], "Labels": {"com.example.x": "y", "tier": "front"}, "User": ""} | NULLS,
    "Mounts": [{"Type": "bind", "Source": "/a"}, {"Type": "volume", "Source": "/b"}],
    "NetworkSettings": {"Networks": {"host": {"IPAddress": "10.0.0.2"}}},
    "Empty": [],
    "Label": lambda key: {"tier": "front"}.get(key, ""),
}

ROWS = [
    ("plain text", "plain text"),
    ("{{.Id}}", "0123456789ab"),
    ("{{.ID}}", "0123456789ab"),
    ("{{ .Name }}", "/web"),
    ("{{.State.Status}}", "running"),
    ("{{.State.Running}}", "true"),
    ("{{.State.Pid}} {{.State.ExitCode}}", "42 0"),
    ("{{.Ratio}} {{.Whole}}", "1.5 3"),
    ("{{.Nothing}}", "<nil>"),
    ("{{.Config.Entrypoint}} {{.Config.Cmd}} {{.Config.Volumes}} {{.Config.Data}}", "[] [] map[] map[]"),
    ("{{.State.Health}} {{.Config.StopTimeout}} {{.Config.StopSignal}}|{{.Config.ExposedPorts}}", "<nil> <nil> |map[]"),
    ("{{.Config.Init}} {{.Config.Sysctls}} {{.Config.OnBuild}}", "<nil> map[] []"),
    ("{{$x := .Nothing}}{{$x}} {{json .Nothing}} {{len .Config.Cmd}}", "<nil> null 0"),
    ("{{if .Nothing}}a{{else}}b{{end}} {{print .Nothing}}", "b <nil>"),
    ("{{.Args}}", "[-c echo hi]"),
    ('{{printf "%q" .Args}}', '["-c" "echo hi"]'),
    ("{{range.NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "10.0.0.2"),
    ("{{if.Nothing}}a{{else if.State.Running}}b{{end}}{{with.State}}{{.Pid}}{{end}}", "b42"),
    (r'{{"\x41\u00e9\U0001f6f6\t|"}}', "A\u00e9\U0001f6f6\t|"),
    ("{{.Config.Labels}}", "map[com.example.x:y tier:front]"),
    ("{{.Config.Labels.tier}}", "front"),
    ("{{.Config.Labels.absent}}", "<no value>"),
    ('{{index .Config.Labels "com.example.x"}}', "y"),
    ('{{index .Config.Labels "absent"}}', ""),
    ("{{index .Args 1}}", "echo hi"),
    ("{{(index .Mounts 1).Source}}", "/b"),
    ('{{index .Mounts 0 "Type"}}', "bind"),
    ("{{json .State}}", '{"Status":"running","Running":true,"Pid":42,"ExitCode":0}'),
    ("{{.Config.Env | json}}", '["A=1","B=2"]'),
    ("{{json .Name}}", '"/web"'),
    ("{{json .State.Health}}", "null"),
    ("{{len .Args}}", "2"),
    ("{{.Name | len}}", "4"),
    ("{{range .Mounts}}{{.Source}};{{end}}", "/a;/b;"),
    ("{{range $i, $m := .Mounts}}{{$i}}={{$m.Type}} {{end}}", "0=bind 1=volume "),
    ("{{range $k, $v := .Config.Labels}}{{$k}}:{{$v}},{{end}}", "com.example.x:y,tier:front,"),
    ("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "10.0.0.2"),
    ("{{range $n, $c := .NetworkSettings.Networks}}{{$n}} {{$.Name}}{{end}}", "host /web"),
    ("{{range .Empty}}x{{else}}none{{end}}", "none"),
    ("{{range .Config.ExposedPorts}}x{{else}}none{{end}}", "none"),
    ("{{range $m := .Mounts}}{{if eq $m.Type `volume`}}{{break}}{{end}}{{.Source}}{{end}}", "/a"),
    ('{{range .Mounts}}{{if eq .Type "bind"}}{{continue}}{{end}}{{.Source}}{{end}}', "/b"),
    ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
    ("{{if .Config.User}}u{{else}}root{{end}}", "root"),
    ("{{if .State.Health}}{{.State.Health.Status}}{{else}}no check{{end}}", "no check"),
    ('{{if eq .State.Status "exited"}}1{{else if eq .State.Status "running"}}2{{else}}3{{end}}', "2"),
    ('{{if eq .State.Status "a"}}1{{else if eq .State.Status "b"}}2{{else}}3{{end}}!', "3!"),
    ('{{if eq .State.Status "a" "running"}}yes{{end}}', "yes"),
    ('{{if ne .State.Status "running"}}no{{end}}', ""),
    ("{{if and .State.Running (gt .State.Pid 1)}}ok{{end}}", "ok"),
    ("{{and 0 1}} {{and 1 2}} {{or 0 3}} {{or 0 0}}", "0 2 3 0"),
    ("{{if not .State.Running}}no{{else}}yes{{end}}", "yes"),
    ("{{lt 1 2}} {{le 2 2}} {{gt 1 2}} {{ge 2.5 2}}", "true true false true"),
    ("{{with .Config.Env}}{{len .}}{{end}}", "2"),
    ("{{with .Empty}}x{{else}}nothing{{end}}", "nothing"),
    ("{{with $x := .State}}{{$x.Pid}}{{.Pid}}{{end}}", "4242"),
    ('{{join .Args " "}}', "-c echo hi"),
    ('{{.Args | join ","}}', "-c,echo hi"),
    ("{{upper .State.Status}} {{lower `ABC`}} {{title `two words`}}", "RUNNING abc Two Words"),
    ('{{split "a,b,c" ","}}', "[a b c]"),
    ('{{index (split .Name "/") 1}}', "web"),
    ("{{truncate .Id 4}}|{{truncate .Id 99}}", "0123|0123456789ab"),
    ("{{pad .Name 1 2}}|", " /web  |"),
    ("{{slice .Id 2 5}}", "234"),
    ('{{printf "%s has %d" .Name .State.Pid}}', "/web has 42"),
    (
        '{{printf "%-8s|%5.1f|%05d|%q|%x|%v|%t%%" "ab" 1.26 7 "q" 255 .Args true}}',
        'ab      |  1.3|00007|"q"|ff|[-c echo hi]|true%',
    ),
    ('{{.Name | printf "%s=%s" "name"}}', "name=/web"),
    ('{{println "a" 1}}', "a 1\n"),
    ('{{print "a" "b" 1 2}}', "ab1 2"),
    ("a  {{- .Name -}}  b", "a/webb"),
    ("{{.Name}} {{- /* note */ -}} !", "/web!"),
    ("x{{/* only a note */}}y", "xy"),
    ("{{$a := 1}}{{$a}}{{$a = 2}}{{$a}}", "12"),
    ("{{$n := 0}}{{range .Args}}{{$n = len .}}{{end}}{{$n}}", "7"),
    ("{{if true}}{{$x := 1}}{{$x}}{{end}}", "1"),
    (r'{{"tab\t\"q\""}}', 'tab\t"q"'),
    ("{{`raw \\n`}}", "raw \\n"),
    ("{{0x10}} {{-3}} {{1.5}}", "16 -3 1.5"),
    ("{{nil | json}}", "null"),
    ('{{.Label "tier"}}', "front"),
    ('{{if .Label "tier"}}has{{end}}', "has"),
    ("{{.}}|{{$.Name}}"[5:], "|/web"[1:].join(["|", ""])),
    ("{{eq .Created 1700000000}}", "true"),
    ("{{range $i, $v := .Args}}{{if $i}}, {{end}}{{$v}}{{end}}", "-c, echo hi"),
    ('{{(index .Config.Env 0) | printf "%s!"}}', "A=1!"),
    ('{{ .Config.Labels | json | printf "%s" }}', '{"com.example.x":"y","tier":"front"}'),
    ("\n{{-\n.Name\n-}}\n", "/web"),
    ('{{define "a"}}<{{.}}>{{end}}{{template "a" .Name}}{{template "a" .Created}}', "</web><1700000000>"),
    ('{{template "later" .}}{{define "later"}}{{.Name}}{{end}}', "/web"),
    ('{{range .Args}}{{block "arg" .}}[{{.}}]{{end}}{{end}}{{template "arg" "x"}}', "[-c][echo hi][x]"),
    ('{{define "a"}}{{$}}{{end}}{{$x := 1}}{{template "a" $x}}{{$x}}', "11"),
    ('{{template "a"}}{{define "a"}}{{.}} {{.Name}}{{end}}', "<no value> <no value>"),
    ('{{html `<"`}} {{html `&` `>` "\'"}} {{urlquery `a b/c&`}}', "&lt;&#34; &amp;&gt;&#39; a+b%2Fc%26"),
    ('{{define "a"}}none{{end}}{{with .Nothing}}{{.}}{{else}}{{template "a"}}{{end}}', "none"),
    ('{{define "a"}}{{end}}{{define "a"}}b{{end}}{{define "a"}}{{end}}{{template "a"}}', "b"),
    ('{{define "a"}}{{if .}}{{slice . 1}}{{template "a" (slice . 1)}}{{end}}{{end}}{{template "a" .Name}}', "webebb"),
    ("{{with .Nothing}}a{{else with .Name}}{{.}}{{else}}c{{end}}", "/web"),
    ("{{with .Nothing}}a{{else with .Empty}}b{{else}}c{{end}}!", "c!"),
    ('{{range .Args}}{{if eq . "-c"}}{{continue}}{{end}}{{.}}{{end}}', "echo hi"),
    ("{{range $i, $a := .Args}}{{if $i}}{{break}}{{end}}{{$a}}{{end}}", "-c"),
]


@pytest.mark.parametrize(("text", "expected"), ROWS, ids=[row[0] for row in ROWS])
def test_template_prints_what_go_prints(text: str, expected: str) -> None:
    assert template.parse(text).render(DATA) == expected


ERRORS = [
    ("{{.Nmae}}", "column 3: there is no field .Nmae", ".Name"),
    ("{{json .Stat}}", "no field .Stat", ".State"),
    ("{{.Name", "column 1: this {{ has no }}", ""),
    ("{{}}", "nothing between", ""),
    ("ok\n  {{nope .}}", "line 2 column 5: no function 'nope'", ""),
    ("{{jsn .}}", "no function 'jsn'", "json"),
    ("{{if .Name}}x", "{{if}} has no {{end}}", ""),
    ("x{{end}}", "column 4: {{end}} closes nothing", ""),
    ("{{else}}", "{{else}} without", ""),
    ("{{if 1}}{{else}}{{else}}{{end}}", "{{else}} without", ""),
    ("{{range .Name}}{{end}}", "range cannot walk over a text", ""),
    ("{{.Name.First}}", "there is no .First in a text", ""),
    ("{{.Nothing.X}}", "nothing", ""),
    ("{{.Name 1}}", "only a function takes arguments", ""),
    ("{{index .Args 9}}", "index 9 is out of range", ""),
    ('{{index .Args "a"}}', "indexed by a number", ""),
    ("{{len 3}}", "3 has no length", ""),
    ('{{lt 1 "a"}}', "no order", ""),
    ('{{eq 1 "a"}}', "different kinds", ""),
    ('{{printf "%d" "x"}}', "does not fit x", ""),
    ('{{printf "%99999d" 1}}', "too wide", ""),
    ('{{printf "%s"}}', "no value for %s", ""),
    ('{{"open}}', "never closed", ""),
    ("{{(.Name}}", "a ) is missing", ""),
    ("{{.Name | }}", "a value is missing", ""),
    ("{{1..2}}", "not a number", ""),
    ("{{break}}", "outside of {{range}}", ""),
    ('{{template "x"}}', "column 3: no template 'x' is defined", ""),
    ("{{template x}}", "needs a name in quotes", ""),
    ('{{define "a"}}', "{{define}} has no {{end}}", ""),
    ('{{define "a" .}}{{end}}', "more than expected", ""),
    ('{{define "a"}}{{else}}{{end}}', "{{else}} without", ""),
    ('{{if 1}}{{define "a"}}{{end}}{{end}}', "stands in no other block", ""),
    ('{{block "a"}}{{end}}', "a value is missing", ""),
    ('{{define "a"}}x{{end}}{{define "a"}}y{{end}}', "column 25: a template 'a' is defined twice", ""),
    ('{{range .Args}}{{block "a" .}}{{break}}{{end}}{{end}}', "outside of {{range}}", ""),
    ('{{$x := 1}}{{define "a"}}{{$x}}{{end}}', "no variable $x", ""),
    ("{{if 1}}{{$x := 1}}{{end}}{{$x}}", "no variable $x", ""),
    ("{{if 0}}{{nope}}{{end}}", "no function 'nope'", ""),
    ('{{define "a"}}{{template "a"}}{{end}}{{template "a"}}', "nested too deeply", ""),
    ("{{if 1}}{{else with .Name}}{{end}}", "{{else}} takes nothing", ""),
    ("{{$x}}", "no variable $x", ""),
    ("{{$x = 1}}", "no variable $x", ""),
    ("{{/* open }}", "no */}}", ""),
    ("{{.Name ! }}", "'!' is not expected", ""),
    ("{{upper 1}}", "takes a text", ""),
    ("{{truncate .Id}}", "wrong number or kind", ""),
    ("{{end extra}}", "more than expected", ""),
]


@pytest.mark.parametrize(("text", "why", "hint"), ERRORS, ids=[row[0] for row in ERRORS])
def test_template_error_says_where_and_what(text: str, why: str, hint: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        template.parse(text).render(DATA)
    assert "line " in caught.value.message or "deeply" in why
    assert why in caught.value.message
    assert hint in caught.value.hint


def test_heading_names_the_columns() -> None:
    parsed = template.parse('{{.ID}}\t{{upper .Names}}\t{{.Label "com.example.cpu"}}\t{{truncate .Image 3}}')
    names = {"ID": "CONTAINER ID", "Names": "NAMES", "Image": "IMAGE", "Label": lambda key: key.rpartition(".")[2]}
    assert parsed.header(names) == "CONTAINER ID\tNAMES\tcpu\tIMAGE"


def test_heading_is_printed_by_go_s_own_functions_as_any_text() -> None:
    names = {"ID": "CONTAINER ID", "CPUPerc": "CPU %"}
    assert template.parse('{{printf "%.9s|" .ID}}\t{{print .ID}}').header(names) == "CONTAINER|\tCONTAINER ID"
    assert template.parse('{{printf "%6d" .CPUPerc}}').header(names) == "CPU %"


STRUCTURES = {
    "Mounts": [
        {"Type": "bind", "Source": "/a", "Destination": "/b", "Mode": "ro", "RW": False, "Propagation": "rprivate"},
        {"Type": "volume", "Name": "v", "Source": "/s", "Destination": "/c", "Driver": "local", "Mode": "", "RW": True},
    ],
    "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
    "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
    "Labels": {"Name": "x"},
    "Ports": {"80/tcp": {}, "53/udp": {}},
    "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/n", "CgroupPermissions": "rw"}],
    "Healthcheck": {"Interval": 90 * 10**9, "Timeout": 0},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{.Mounts}}", "[{bind  /a /b  ro false rprivate} {volume v /s /c local  true }]"),
        ("{{range .Mounts}}{{.}};{{end}}", "{bind  /a /b  ro false rprivate};{volume v /s /c local  true };"),
        ("{{.RestartPolicy}} {{.LogConfig}}", "{on-failure 3} {json-file map[max-size:1m]}"),
        ("{{.Labels}}", "map[Name:x]"),
        ("{{.Ports}} {{.Devices}}", "map[53/udp:{} 80/tcp:{}] [{/dev/null /dev/n rw}]"),
        ("{{.Healthcheck.Interval}} {{.Healthcheck.Timeout}}", "1m30s 0s"),
        ("{{json .Healthcheck.Interval}}", "90000000000"),
    ],
)
def test_structures_and_durations_are_printed_as_go_prints_them(text: str, expected: str) -> None:
    assert template.parse(text).render(STRUCTURES) == expected


def test_a_row_s_methods_are_never_printed() -> None:
    assert template.parse("{{.}}").render({"ID": "a", "Label": lambda key: key}) == "map[ID:a]"


def test_title_begins_a_word_after_each_separator() -> None:
    assert template.parse("{{title .N}}").render({"N": "/web-one a_b élan"}) == "/Web-One A_b Élan"


def test_data_is_never_read_as_a_template() -> None:
    assert template.parse("{{.Name}}").render({"Name": "{{.Secret}}", "Secret": "s"}) == "{{.Secret}}"


def test_deep_nesting_is_an_error_of_ours() -> None:
    with pytest.raises(InvalidArgument, match="nested too deeply"):
        template.parse("{{" + "(" * 3000 + "1" + ")" * 3000 + "}}").render({})
