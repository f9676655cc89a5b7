//! `s4 completions`: a script for a shell. It completes options and subcommands from their definition, and asks the
//! cluster for names and job ids.

use crate::cli::{Cli, Shell};
use clap::CommandFactory;
use clap_complete::generate;
use s4::error::{Error, ExitStatus, Result};
use std::io::Write;

/// Bash splits words at colons, so `s4://b/k` is three words to it. The script removes the part of each candidate up to
/// the last colon. It also quotes candidates, since bash inserts them unchanged; the other shells quote by themselves.
const BASH: &str = r#"
_s4_names() {
    local line=${COMP_LINE:0:COMP_POINT}
    local raw=${line##*[[:space:]]} word= names
    while [[ $raw == *\\* ]]; do
        word+=${raw%%\\*} raw=${raw#*\\}
        word+=${raw:0:1} raw=${raw:1}
    done
    word+=$raw
    case $word in -*) ;; *) mapfile -t names < <(s4 --deadline 1 complete -- "${COMP_WORDS[1]}" "$word" 2>/dev/null) ;; esac
    if ((${#names[@]} == 0)); then
        _s4 "$@"
        return
    fi
    case $word in *:*) [[ $COMP_WORDBREAKS == *:* ]] && names=("${names[@]#"${word%"${word##*:}"}"}") ;; esac
    mapfile -t COMPREPLY < <(printf '%q\n' "${names[@]}")
    [[ ${#names[@]} -gt 1 || ${names[0]} != */ ]] || compopt -o nospace
}
complete -F _s4_names -o nosort -o bashdefault -o default s4
"#;

const ZSH: &str = r#"
_s4_names() {
    local -a names
    [[ $PREFIX == -* || $CURRENT -lt 3 ]] || names=(${(f)"$(s4 --deadline 1 complete -- ${words[2]} "${(Q)PREFIX}" 2>/dev/null)"})
    if (( $#names )); then
        compadd -S '' -- $names
    else
        _s4 "$@"
    fi
}
compdef _s4_names s4
"#;

const FISH: &str = r#"
function __s4_names
    set -l words (commandline -opc)
    test (count $words) -ge 2; and s4 --deadline 1 complete -- $words[2] (commandline -ct) 2>/dev/null
end
complete -c s4 -f -n 'string match -q "s4://*" -- (commandline -ct); or __fish_seen_subcommand_from wait logs cancel' -a '(__s4_names)'
"#;

pub fn run(shell: Shell) -> Result<ExitStatus> {
    let mut command = Cli::command();
    let mut script = Vec::new();
    let (shell, names) = match shell {
        Shell::Bash => (clap_complete::Shell::Bash, BASH),
        Shell::Zsh => (clap_complete::Shell::Zsh, ZSH),
        Shell::Fish => (clap_complete::Shell::Fish, FISH),
    };
    generate(shell, &mut command, "s4", &mut script);
    script.extend_from_slice(names.as_bytes());
    std::io::stdout().write_all(&script).map_err(|e| Error::io("stdout", &e))?;
    Ok(ExitStatus::Done)
}
