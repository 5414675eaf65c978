"""The completion script of fish (3.1 or later)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.completion_tables import Line

_HEAD = r"""# fish completion for sampan, made by `sampan completion fish`
@VALUED@

# Prints the command that the line has so far, by its own words, and how many arguments follow it.
function __sampan_line
    set -l words (commandline -opc)
    set -l command ''
    set -l place 0
    set -l skip 0
    for word in $words[2..-1]
        if test $skip = 1
            set skip 0
            continue
        end
        switch $word
            case '--*=*'
            case '-*'
                if test -z "$command"
                    if test $word = --root
                        set skip 1
                    end
                else if contains -- "$command $word" $__sampan_valued
                    set skip 1
                end
            case '*'
                if test -z "$command"
                    set command $word
                else if test $place = 0; and contains -- "$command $word" $__sampan_two
                    set command "$command $word"
                else
                    set place (math $place + 1)
                end
        end
        if set -l at (contains -i -- "$command" $__sampan_alias)
            set command $__sampan_meant[$at]
        end
    end
    echo $command
    echo $place
end

# Tells whether the command is this one, and the argument at this place (@ for any, 3+ for the third and later).
function __sampan_at
    set -l found (__sampan_line)
    test "$found[1]" = "$argv[1]"; or return 1
    switch "$argv[2]"
        case ''
            not contains -- "$argv[1]" $__sampan_stops; or test $found[2] = 0
        case '*+'
            test $found[2] -ge (string trim -c + -- $argv[2])
        case '*'
            test $found[2] = $argv[2]
    end
end

function __sampan_names
    set -l program sampan
    set -l words (commandline -opc)
    for index in (seq 2 (count $words))
        switch $words[$index]
            case --root
                set program sampan --root $words[(math $index + 1)]
            case '--root=*'
                set program sampan $words[$index]
        end
    end
    command $program completion --names $argv[1] 2>/dev/null
end

# Prints names with the colon that stands between a name and a path.
function __sampan_before
    for name in (__sampan_names $argv[1])
        echo $name:
    end
end

complete -c sampan -f
complete -c sampan -n '__sampan_at ""' -s D -l debug -d 'Show where an error comes from'
complete -c sampan -n '__sampan_at ""' -l root -x -a '(__fish_complete_directories)' -d 'Where the store is'
complete -c sampan -n '__sampan_at ""' -s v -l version -d 'Show the version'
"""


def script(lines: list[Line], aliases: dict[str, str], groups: dict[str, list[str]]) -> str:
    """Return the script."""
    valued = [f"{line.words} {form}" for line in lines for r in line.rows if r.kind != "flag" for form in r.forms()]
    two = [f"{group} {word}" for group, words in groups.items() for word in words]
    lists = {"valued": valued, "two": two, "alias": list(aliases), "meant": list(aliases.values())}
    lists["stops"] = [line.words for line in lines if line.stops]
    head = "\n".join(f"set -g __sampan_{name} {' '.join(map(_quote, texts))}" for name, texts in lists.items())
    found = [_HEAD.replace("@VALUED@", head)]
    for line in lines:
        if " " not in line.words:
            found.append(f"complete -c sampan -n '__sampan_at \"\"' -a {line.words} -d {_quote(line.help)}\n")
    for group, words in groups.items():
        found.append(f"complete -c sampan -n '__sampan_at \"\"' -a {group} -d {_quote(f'Commands of {group}')}\n")
        condition = _quote(f'__sampan_at "{group}" 0')
        found.append(f"complete -c sampan -n {condition} -a {_quote(' '.join(words))}\n")
    for line in lines:
        found += _line(line)
    return "".join(found)


def _line(line: Line) -> list[str]:
    found = []
    at = _quote(f'__sampan_at "{line.words}"')
    for row in line.rows:
        short = f" -s {row.short[1:]}" if row.short else ""
        found.append(f"complete -c sampan -n {at}{short} -l {row.long[2:]}{_value(row.kind)} -d {_quote(row.help)}\n")
    for place, kind in enumerate(line.arguments):
        later = "+" if line.repeats and place == len(line.arguments) - 1 and not line.stops else ""
        if line.stops and place:
            break
        condition = _quote(f'__sampan_at "{line.words}" {place}{later}')
        found.append(f"complete -c sampan -n {condition}{_argument(kind)}\n")
    if line.stops:
        condition = _quote(f'__sampan_at "{line.words}" 1+')
        found.append(f"complete -c sampan -n {condition} -F\n")
    return found


def _value(kind: str) -> str:
    if kind == "flag":
        return ""
    if kind in ("file", "command", "place"):
        return " -r -F"
    return " -x" + ("" if kind == "none" else f" -a {_quote(_words(kind))}")


def _argument(kind: str) -> str:
    if kind in ("file", "command"):
        return " -F"
    if kind == "place":
        return f" -F -a {_quote('(__sampan_before containers)')}"
    return "" if kind == "none" else f" -a {_quote(_words(kind))}"


def _words(kind: str) -> str:
    if kind.startswith(("words:", "keys:")):
        return kind.partition(":")[2]
    if kind == "dir":
        return "(__fish_complete_directories)"
    if kind == "mount":
        return "(__sampan_before volumes; __fish_complete_directories)"
    return f"(__sampan_names {kind})"


def _quote(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
