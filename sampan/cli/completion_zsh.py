"""The completion script of zsh (5.0 or later)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.completion_tables import Line

_TEMPLATE = r"""#compdef sampan
# zsh completion for sampan, made by `sampan completion zsh`

_sampan_table() {
    options=() values=() arguments=() repeats='' stops=''
    case $1 in
@TABLE@
    esac
}

# Completes one value of a kind.
_sampan_value() {
    local kind=$1
    local -a names
    case $kind in
        none|flag) ;;
        file|command) _files ;;
        dir) _files -/ ;;
        words:*) names=(${=kind#words:}); compadd -a names ;;
        keys:*) names=(${=kind#keys:}); compadd -S '' -a names ;;
        mount|place)
            if [[ $PREFIX == *:* ]]; then
                compset -P '*:'
                _files
            else
                local wanted=volumes
                [[ $kind == place ]] && wanted=containers
                names=(${(f)"$($program completion --names $wanted 2>/dev/null)"})
                compadd -S ':' -a names
                _files
            fi ;;
        *)
            names=(${(f)"$($program completion --names $kind 2>/dev/null)"})
            compadd -a names ;;
    esac
}

_sampan() {
    local -a program options values arguments following
    local -A alias group
    local repeats stops command word expected pair
    local -i at=2 place=0
    program=($words[1])
    while (( at < CURRENT )); do
        case $words[at] in
            --root) program+=(--root $words[at+1]); (( at += 2 )) ;;
            --root=*) program+=($words[at]); (( at++ )) ;;
            -*) (( at++ )) ;;
            *) break ;;
        esac
    done
    if (( at >= CURRENT )); then
        if [[ $words[CURRENT-1] == --root ]]; then
            _files -/
        elif [[ $words[CURRENT] == -* ]]; then
            options=('--debug:Show where an error comes from' '--help:Show help')
            options+=('--root:Where the store is' '--version:Show the version')
            _describe -o option options
        else
            following=(
@FIRST@
            )
            _describe command following
        fi
        return
    fi

    alias=(
@ALIASES@
    )
    group=(
@GROUPS@
    )
    command=$words[at]
    if [[ -n ${group[$command]} ]]; then
        following=(${=group[$command]})
        if (( at + 1 == CURRENT )) && [[ $words[CURRENT] != -* ]]; then
            compadd -a following
            return
        elif (( at + 1 < CURRENT )) && (( ${following[(Ie)$words[at+1]]} )); then
            (( at++ ))
            command="$command $words[at]"
        fi
    fi
    [[ -n ${alias[$command]} ]] && command=${alias[$command]}
    _sampan_table $command

    for (( at++; at < CURRENT; at++ )); do
        word=$words[at]
        if [[ -n $expected ]]; then expected=''; continue; fi
        case $word in
            -*=*) ;;
            -?*)
                for pair in $values; do
                    [[ ${pair%%:*} == $word ]] && expected=${pair#*:}
                done ;;
            *)
                (( place++ ))
                if [[ -n $stops ]]; then _files; return; fi ;;
        esac
    done
    word=$words[CURRENT]
    if [[ -n $expected ]]; then
        _sampan_value $expected
    elif [[ $word == --*=* ]]; then
        for pair in $values; do
            if [[ ${pair%%:*} == ${word%%=*} ]]; then
                compset -P '*='
                _sampan_value ${pair#*:}
            fi
        done
    elif [[ $word == -* ]]; then
        options+=('--help:Show help')
        _describe -o option options
    else
        if (( place < $#arguments )); then
            expected=$arguments[place+1]
        elif [[ -n $repeats ]]; then
            expected=$arguments[-1]
        fi
        [[ -n $expected ]] && _sampan_value $expected
    fi
}

if [[ $funcstack[1] == _sampan ]]; then _sampan "$@"; else compdef _sampan sampan; fi
"""


def script(lines: list[Line], aliases: dict[str, str], groups: dict[str, list[str]]) -> str:
    """Return the script."""
    pad = " " * 8
    first = [f"{pad}{_quote(f'{line.words}:{line.help}')}" for line in lines if " " not in line.words]
    first += [f"{pad}{_quote(f'{group}:Commands of {group}')}" for group in groups]
    other = [f"{pad}{_quote(alias)} {_quote(full)}" for alias, full in aliases.items()]
    follow = [f"{pad}{group} {_quote(' '.join(words))}" for group, words in groups.items()]
    found = _TEMPLATE.replace("@TABLE@", "\n".join(_row(line) for line in lines)).replace("@FIRST@", "\n".join(first))
    return found.replace("@ALIASES@", "\n".join(other)).replace("@GROUPS@", "\n".join(follow))


def _row(line: Line) -> str:
    options = [_quote(f"{form}:{row.help}") for row in line.rows for form in row.forms()]
    values = [_quote(f"{form}:{row.kind}") for row in line.rows if row.kind != "flag" for form in row.forms()]
    text = f"        {_quote(line.words)}) options=({' '.join(options)}) values=({' '.join(values)})"
    text += f" arguments=({' '.join(map(_quote, line.arguments))})"
    return text + (" repeats=1" if line.repeats else "") + (" stops=1" if line.stops else "") + " ;;"


def _quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
