/**
 * Completion scripts, made from what oclif knows of the commands. Both shells get the same four questions as shell
 * functions (which words follow, which options there are, what an option takes, what an argument is); only the part
 * that asks the shell differs. Mounts are read from mountinfo; what lies in a mount is asked with a time limit, since
 * a key press must not hang.
 */
import type { Config } from '@oclif/core';

export interface CommandSurface {
  readonly words: readonly string[];
  readonly args: readonly { readonly name: string; readonly options?: readonly string[]; readonly multiple: boolean }[];
  /** `takes`: name of the value; absent for a switch. */
  readonly flags: readonly { readonly name: string; readonly takes?: string; readonly options?: readonly string[] }[];
}

/** The commands of the program itself, without those of oclif's plug-ins. */
export function surfaceOf(config: Config): CommandSurface[] {
  return config.commands
    .filter((command) => command.pluginName === config.name && !command.hidden)
    .map((command) => ({
      words: command.id.split(':'),
      args: Object.values(command.args).map(({ name, options, multiple }) => ({
        name,
        multiple: multiple === true,
        ...(options === undefined ? {} : { options }),
      })),
      flags: Object.values(command.flags).map((flag) => ({
        name: flag.name,
        ...(flag.type === 'option' ? { takes: String(flag.helpValue ?? 'VALUE') } : {}),
        ...(flag.type === 'option' && flag.options !== undefined ? { options: flag.options } : {}),
      })),
    }))
    .sort((a, b) => (a.words.join(' ') < b.words.join(' ') ? -1 : 1));
}

/** What stands for a value: a kind that the script knows how to list, or `=` and the words themselves. */
function kindOf(words: readonly string[], name: string, isFlag: boolean, options?: readonly string[]): string {
  if (options !== undefined) return `=${options.join(' ')}`;
  if (isFlag && name === 'mount') return 'mount';
  if (isFlag && (name === 'state' || name === 'map')) return 'folder';
  if (isFlag && name === 'site') return 'site';
  if (isFlag) return name === 'table' || name === 'config' ? 'file' : '';
  switch (name) {
    case 'DIR':
      return words[0] === 'mount' ? 'folder' : 'mount';
    case 'FOLDER':
      return 'folder';
    case 'FILE':
      return 'file';
    case 'NR':
      return words.at(-1) === 'add' ? '' : 'site';
    case 'DEVICE':
      return 'device';
    case 'NAME':
      return words[0] === 'device' && !['create', 'add'].includes(words.at(-1)!) ? 'device' : '';
    case 'TARGET':
      return 'target';
    default:
      return '';
  }
}

export function completionScript(shell: 'bash' | 'zsh', commands: readonly CommandSurface[]): string {
  const head =
    shell === 'bash'
      ? '# bash completion for reptool: source <(reptool completion bash)\n'
      : '#compdef reptool\n# zsh completion for reptool: source <(reptool completion zsh), behind compinit\n';
  return `${head}${questions(commands)}${LISTS}${shell === 'bash' ? BASH : ZSH}`;
}

function questions(commands: readonly CommandSurface[]): string {
  const next = new Map<string, Set<string>>();
  for (const { words } of commands) {
    words.forEach((word, i) => {
      const before = words.slice(0, i).join(' ');
      next.set(before, (next.get(before) ?? new Set()).add(word));
    });
  }
  const flags = commands.map(({ words, flags: own }) => {
    const names = [...own.map((flag) => `--${flag.name}`), '--json', '--help'];
    return [words.join(' '), [...new Set(names)].sort().join(' ')] as const;
  });
  const values = commands.flatMap(({ words, flags: own }) =>
    own
      .filter((flag) => flag.takes !== undefined)
      .map(
        (flag) => [`${words.join(' ')} --${flag.name}`, `${kindOf(words, flag.name, true, flag.options)}:`] as const,
      ),
  );
  const args = commands.flatMap(({ words, args: own }) =>
    own.map(
      (arg, i) =>
        [`${words.join(' ')} ${arg.multiple ? '*' : i}`, kindOf(words, arg.name, false, arg.options)] as const,
    ),
  );
  const follow = [...next].map(([before, words]) => [before, [...words].sort().join(' ')] as const);
  return [
    caseOf('_reptool_next', 'words that follow the command words $1', follow),
    caseOf('_reptool_flags', 'options of command $1', flags),
    caseOf('_reptool_value', 'what option "$1" (command and option) takes, and a colon; nothing for a switch', values),
    caseOf(
      '_reptool_arg',
      'what argument "$1" (command and its place) is',
      args.filter(([, kind]) => kind !== ''),
    ),
  ].join('');
}

function caseOf(name: string, what: string, lines: readonly (readonly [string, string])[]): string {
  const body = lines.map(([key, value]) => `    ${quoted(key)}) echo ${quoted(value)} ;;\n`).join('');
  return `# ${what}\n${name}() {\n  case $1 in\n${body}  esac\n}\n`;
}

function quoted(text: string): string {
  return `'${text.replace(/'/g, "'\\''")}'`;
}

/** What is mounted, and what lies in it; `$_reptool_dir` is what --mount says. */
const LISTS = `# all mount points of reptool (those with blanks are left out)
_reptool_mounts() {
  awk '{ for (i = 7; i < NF; i++) if ($i == "-") { if ($(i + 2) ~ /^reptool:/ && $5 !~ /\\\\/) print $5; next } }' \\
    /proc/self/mountinfo 2>/dev/null
}
# the mount that is meant
_reptool_mount() {
  if [ -n "$_reptool_dir" ]; then echo "$_reptool_dir"
  elif [ -n "$REPTOOL_MOUNT" ]; then echo "$REPTOOL_MOUNT"
  else _reptool_mounts | head -n 1
  fi
}
# the lines of a list: mount, site, device, target, or = and the words themselves
_reptool_list() {
  case $1 in
    mount) _reptool_mounts ;;
    site) timeout 1 sed -n 's/^ *"peer-node-id": \\([0-9]*\\).*/\\1/p' "$(_reptool_mount)/.ctl/status.json" 2>/dev/null ;;
    device) timeout 1 ls "$(_reptool_mount)" 2>/dev/null ;;
    target)
      _reptool_list device
      _reptool_list site | sed 's/^/site/'
      timeout 1 sed -n 's/^  "name": "\\(.*\\)",$/\\1/p' "$(_reptool_mount)/.ctl/status.json" 2>/dev/null
      ;;
    =*) echo "$1" | sed 's/^=//' | tr ' ' '\\n' ;;
  esac
}
# Sets _reptool_kind (next, flags, or what a value is) and _reptool_cmd from the words before the cursor.
_reptool_parse() {
  _reptool_cmd='' _reptool_dir='' _reptool_kind=''
  local word flag='' place=0
  for word in "$@"; do
    if [ -n "$flag" ]; then
      [ "$word" = '=' ] && continue
      [ "$flag" = '--mount' ] && _reptool_dir=$word
      flag=''
      continue
    fi
    case $word in
      --*=*) case $word in --mount=*) _reptool_dir=\${word#--mount=} ;; esac ;;
      --*) [ -n "$(_reptool_value "$_reptool_cmd $word")" ] && flag=$word ;;
      -*) ;;
      *)
        case " $(_reptool_next "$_reptool_cmd") " in
          *" $word "*) _reptool_cmd="\${_reptool_cmd:+$_reptool_cmd }$word" ;;
          *)
            place=$((place + 1))
            [ "$place" = 1 ] && case $(_reptool_arg "$_reptool_cmd 0") in mount) _reptool_dir=$word ;; esac
            ;;
        esac
        ;;
    esac
  done
  if [ -n "$flag" ]; then
    _reptool_kind=$(_reptool_value "$_reptool_cmd $flag")
    _reptool_kind=\${_reptool_kind%:}
  elif [ -n "$(_reptool_next "$_reptool_cmd")" ]; then _reptool_kind=next
  else
    _reptool_kind=$(_reptool_arg "$_reptool_cmd $place")
    [ -n "$_reptool_kind" ] || _reptool_kind=$(_reptool_arg "$_reptool_cmd *")
  fi
}
`;

const BASH = `_reptool() {
  local cur=\${COMP_WORDS[COMP_CWORD]} words='' _reptool_cmd _reptool_dir _reptool_kind
  [ "$cur" = '=' ] && cur=''
  _reptool_parse "\${COMP_WORDS[@]:1:COMP_CWORD-1}"
  COMPREPLY=()
  case $cur in -*) words=$(_reptool_flags "$_reptool_cmd") _reptool_kind='' ;; esac
  case $_reptool_kind in
    next) words=$(_reptool_next "$_reptool_cmd") ;;
    folder) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$cur"); return ;;
    file) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return ;;
    '') ;;
    *) words=$(_reptool_list "$_reptool_kind") ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
}
complete -F _reptool reptool
`;

const ZSH = `_reptool() {
  emulate -L zsh
  local -a list
  local _reptool_cmd _reptool_dir _reptool_kind
  _reptool_parse "\${(@)words[2,CURRENT-1]}"
  case \${words[CURRENT]} in -*) list=(\${(s: :)"$(_reptool_flags "$_reptool_cmd")"}) _reptool_kind='' ;; esac
  case $_reptool_kind in
    next) list=(\${(s: :)"$(_reptool_next "$_reptool_cmd")"}) ;;
    folder) _files -/; return ;;
    file) _files; return ;;
    '') ;;
    *) list=(\${(f)"$(_reptool_list "$_reptool_kind")"}) ;;
  esac
  compadd -- $list
}
compdef _reptool reptool
`;
