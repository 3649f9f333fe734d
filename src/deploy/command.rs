//! Whether a command passes the signal on to the service.

/// Returns why the command keeps the signal to itself, if it does.
pub(super) fn swallows_signal(command: &str) -> Option<String> {
    let mut words = command.split_whitespace().peekable();
    // systemd's prefixes.
    let first = words.next()?.trim_start_matches(['-', '@', ':', '+', '!']);
    let program = name(first);
    let rest: Vec<_> = words.collect();
    match program {
        "sh" | "bash" | "ash" | "dash" | "zsh" => {
            let script = rest
                .iter()
                .position(|word| word.starts_with('-') && word.ends_with('c'));
            let script = rest[script? + 1..].join(" ");
            let script = script.trim().trim_matches(['"', '\'']).trim();
            let last = script
                .rsplit(['&', ';', '|'])
                .next()
                .unwrap_or_default()
                .trim();
            (!last.starts_with("exec "))
                .then(|| format!("`{program} -c` keeps the signal to itself"))
        }
        "npm" | "yarn" | "pnpm" | "cargo" | "make" => {
            Some(format!("`{program}` does not pass every signal on"))
        }
        _ => None,
    }
}

/// The name of a program, without its folder.
pub(super) fn name(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_without_exec_keeps_the_signal() {
        for command in [
            "sh -c /orders",
            "/bin/sh -c 'migrate && /orders'",
            "bash -ec '/orders'",
            "npm run start",
        ] {
            assert!(swallows_signal(command).is_some(), "{command}");
        }
    }

    #[test]
    fn a_program_and_a_shell_that_execs_pass_it_on() {
        for command in [
            "/orders --http=0.0.0.0:80",
            "sh -c 'exec /orders'",
            "sh -c 'migrate && exec /orders'",
            "sh /run.sh",
        ] {
            assert_eq!(swallows_signal(command), None, "{command}");
        }
    }
}
