"""The completion script of bash (4 or later; bash-completion is not needed)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.completion_tables import Line

_TEMPLATE = r"""# bash completion for sampan, made by `sampan completion bash`
_sampan_table() {
    options='' values='' arguments='' repeats='' stops=''
    case $1 in
@TABLE@
    esac
}

_sampan_group() {
    case $1 in
@GROUPS@
    esac
}

_sampan_alias() {
    case $1 in
@ALIASES@
    *) command=$1 ;;
    esac
}

# Completes one value of a kind.
_sampan_value() {
    local kind=$1 word=$2
    case $kind in
    none | flag) ;;
    file) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
    dir) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$word") ;;
    command) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
    words:*) mapfile -t COMPREPLY < <(compgen -W "${kind#words:}" -- "$word") ;;
    keys:*) compopt -o nospace 2>/dev/null; mapfile -t COMPREPLY < <(compgen -W "${kind#keys:}" -- "$word") ;;
    mount | place)
        case $word in
        /* | .* | *:*) _sampan_value file "$word" ;;
        *)
            local names=volumes
            [[ $kind == mount ]] || names=containers
            compopt -o nospace 2>/dev/null
            _sampan_value $names "$word"
            COMPREPLY=("${COMPREPLY[@]/%/:}")
            if [[ $kind == place ]]; then
                local found
                mapfile -t found < <(compgen -f -- "$word")
                COMPREPLY+=("${found[@]}")
            fi
            ;;
        esac
        ;;
    *)
        local names
        names=$("${program[@]}" completion --names "$kind" 2>/dev/null)
        mapfile -t COMPREPLY < <(compgen -W "$names" -- "$word")
        ;;
    esac
}

_sampan() {
    # Words as typed: bash splits them at = and : too, here they are put together again.
    local line=${COMP_LINE:0:COMP_POINT} rest words=() word index
    rest=$line
    for ((index = 0; index <= COMP_CWORD; index++)); do
        word=${COMP_WORDS[index]}
        local trimmed=${rest#"${rest%%[![:space:]]*}"}
        if ((index == COMP_CWORD)) && [[ $trimmed != "$word"* ]]; then word=$trimmed; fi
        if ((index == 0)) || [[ $trimmed != "$rest" ]]; then words+=("$word"); else words[${#words[@]} - 1]+=$word; fi
        rest=${trimmed#"$word"}
    done
    local current=${words[${#words[@]} - 1]} count=${#words[@]}
    COMPREPLY=()

    local program=("${words[0]}") at=1
    while ((at < count - 1)); do
        case ${words[at]} in
        --root) program+=(--root "${words[at + 1]}"); ((at += 2)) ;;
        --root=*) program+=("${words[at]}"); ((at++)) ;;
        -*) ((at++)) ;;
        *) break ;;
        esac
    done
    if ((at >= count - 1)); then
        if ((count > 1)) && [[ ${words[count - 2]} == --root ]]; then
            _sampan_value dir "$current"
        elif [[ $current == -* ]]; then
            _sampan_value 'words:--debug --help --root --version' "$current"
        else
            _sampan_value 'words:@FIRST@' "$current"
        fi
        _sampan_cut
        return
    fi

    local command=${words[at]} following options values arguments repeats stops
    following=$(_sampan_group "$command")
    if [[ $following ]] && { ((at + 1 == count - 1)) || [[ " $following " == *" ${words[at + 1]} "* ]]; }; then
        if ((at + 1 == count - 1)); then
            _sampan_table "$command"
            if [[ ! $options || $current != -* ]]; then
                _sampan_value "words:$following" "$current"
                return
            fi
        else
            ((at++))
            command+=" ${words[at]}"
        fi
    fi
    _sampan_alias "$command"
    _sampan_table "$command"

    local place=0 expected='' pair
    for ((at++; at < count - 1; at++)); do
        word=${words[at]}
        if [[ $expected ]]; then expected=''; continue; fi
        case $word in
        --) ((place > 0)) || place=0 ;;
        -*=*) ;;
        -?*)
            for pair in $values; do
                if [[ ${pair%%:*} == "$word" ]]; then expected=${pair#*:}; fi
            done
            ;;
        *)
            ((place++))
            if [[ $stops ]]; then
                compopt -o default 2>/dev/null
                if ((place == 1 && at + 1 == count - 1)); then return; fi
                return
            fi
            ;;
        esac
    done
    if [[ $expected ]]; then
        _sampan_value "${expected//,/ }" "$current"
    elif [[ $current == --*=* ]]; then
        for pair in $values; do
            if [[ ${pair%%:*} == "${current%%=*}" ]]; then
                expected=${pair#*:}
                _sampan_value "${expected//,/ }" "${current#*=}"
                COMPREPLY=("${COMPREPLY[@]/#/${current%%=*}=}")
            fi
        done
    elif [[ $current == -* ]]; then
        _sampan_value "words:$options --help" "$current"
    elif [[ $arguments ]]; then
        local kinds=($arguments)
        if ((place < ${#kinds[@]})); then
            expected=${kinds[place]}
        elif [[ $repeats ]]; then
            expected=${kinds[${#kinds[@]} - 1]}
        fi
        if [[ $expected ]]; then _sampan_value "${expected//,/ }" "$current"; fi
    fi
    _sampan_cut
}

# Leaves out what stands before the last : or = of the word: bash replaces only what follows it.
_sampan_cut() {
    local before=${current%"${current##*[:=]}"} index
    [[ $before ]] || return 0
    for index in "${!COMPREPLY[@]}"; do
        COMPREPLY[index]=${COMPREPLY[index]#"$before"}
    done
}

complete -F _sampan sampan
"""


def script(lines: list[Line], aliases: dict[str, str], groups: dict[str, list[str]]) -> str:
    """Return the script."""
    table = [_row(line) for line in lines]
    follow = [f"    {group}) echo '{' '.join(words)}' ;;" for group, words in groups.items()]
    other = [f"    '{alias}') command='{full}' ;;" for alias, full in aliases.items()]
    first = " ".join(sorted({line.words.split()[0] for line in lines} | set(groups) | {"help"}))
    found = _TEMPLATE.replace("@TABLE@", "\n".join(table)).replace("@GROUPS@", "\n".join(follow))
    return found.replace("@ALIASES@", "\n".join(other)).replace("@FIRST@", first)


def _row(line: Line) -> str:
    """Return one branch of the table; blanks within a kind are written as commas, so that kinds are words."""
    forms = [form for row in line.rows for form in row.forms()]
    values = [f"{form}:{_packed(row.kind)}" for row in line.rows if row.kind != "flag" for form in row.forms()]
    parts = [f"options='{' '.join(forms)}'", f"values='{' '.join(values)}'"]
    if line.arguments:
        parts.append(f"arguments='{' '.join(_packed(kind) for kind in line.arguments)}'")
    parts += (["repeats=1"] if line.repeats else []) + (["stops=1"] if line.stops else [])
    return f"    '{line.words}') {' '.join(parts)} ;;"


def _packed(kind: str) -> str:
    return kind.replace(",", "").replace(" ", ",")
