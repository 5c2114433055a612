//! Passwords: of standard phones' accounts and of users. Read, asked for without echo, or (a phone's) made.

use crate::app::Failure;
use crate::io::seed;
use std::io::{self, BufRead, IsTerminal, Write};
use std::process::{Command, Stdio};
use zeroize::Zeroizing;

/// The password, and whether it was made here and has to be shown.
pub fn choose(from_stdin: bool, user: &str) -> Result<(String, bool), Failure> {
    if from_stdin {
        let password = first_line()?;
        return match password.is_empty() {
            true => Err(Failure::said("standard input holds no password", "put it on its first line")),
            false => Ok((password, false)),
        };
    }
    if io::stdin().is_terminal() {
        eprint!("Password for {user} (empty: make one): ");
        let _ = io::stderr().flush();
        let echo = Echo::off();
        let password = first_line();
        drop(echo);
        eprintln!();
        let password = password?;
        if !password.is_empty() {
            return Ok((password, false));
        }
    }
    Ok((make()?, true))
}

/// A secret that somebody types: asked for without echo on a terminal, else the first line of standard input.
pub fn ask(prompt: &str) -> Result<String, Failure> {
    let terminal = io::stdin().is_terminal();
    if terminal {
        eprint!("{prompt}");
        let _ = io::stderr().flush();
    }
    let echo = terminal.then(Echo::off);
    let line = first_line();
    drop(echo);
    if terminal {
        eprintln!();
    }
    match line? {
        line if line.trim().is_empty() => {
            Err(Failure::said("nothing was typed", "type it, or put it on the first line of standard input"))
        }
        line => Ok(line),
    }
}

/// The same, twice on a terminal, where a typing error would be found too late.
pub fn ask_twice(prompt: &str) -> Result<String, Failure> {
    let first = ask(prompt)?;
    if io::stdin().is_terminal() && ask("Once more: ")? != first {
        return Err(Failure::said("the two differ", "try again"));
    }
    Ok(first)
}

/// The shortest password of a user: what is guessed online, 3,000 times a day at most, may be short, but not that short.
const SHORTEST: usize = 8;

/// A user's new password: asked for twice on a terminal.
pub fn new(from_stdin: bool, user: &str) -> Result<Zeroizing<String>, Failure> {
    let password = existing(from_stdin, &format!("New password for {user}: "))?;
    if password.chars().count() < SHORTEST {
        let what = format!("the password has fewer than {SHORTEST} characters");
        return Err(Failure::said(what, "take a longer one; several words are good"));
    }
    if !from_stdin && *existing(false, "The same again: ")? != *password {
        return Err(Failure::said("the two passwords differ", "try again"));
    }
    Ok(password)
}

/// A password that somebody has: the first line of standard input, or asked for without echo.
pub fn existing(from_stdin: bool, prompt: &str) -> Result<Zeroizing<String>, Failure> {
    if !from_stdin && !io::stdin().is_terminal() {
        return Err(Failure::said("nobody can be asked for a password here", "use --password-stdin"));
    }
    let password = if from_stdin {
        first_line()?
    } else {
        eprint!("{prompt}");
        let _ = io::stderr().flush();
        let echo = Echo::off();
        let password = first_line();
        drop(echo);
        eprintln!();
        password?
    };
    match password.is_empty() {
        true => Err(Failure::said("no password was given", "type it, or put it on the first line of standard input")),
        false => Ok(Zeroizing::new(password)),
    }
}

/// Something that is asked for on the terminal and may be seen.
///
/// # Errors
/// There is no terminal.
pub fn asked(prompt: &str) -> Result<String, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::said("nobody can be asked for a code here", "name it: chordial join CODE"));
    }
    eprint!("{prompt}");
    let _ = io::stderr().flush();
    first_line()
}

/// 20 letters and digits that are told apart on a phone's small screen: 96 bits and more.
fn make() -> Result<String, Failure> {
    const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut rng = seed::rng().map_err(|source| Failure::System { what: "cannot make a password", source })?;
    Ok((0..20).map(|_| char::from(LETTERS[rng.below(LETTERS.len() as u64) as usize])).collect())
}

fn first_line() -> Result<String, Failure> {
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    read.map_err(|source| Failure::System { what: "cannot read a password from standard input", source })?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// The terminal's echo, off while this lives. `stty` does it, so that no code here is unsafe; where
/// it is missing the password shows, which the user sees at the first letter.
struct Echo {
    was_on: bool,
}

impl Echo {
    fn off() -> Echo {
        Echo { was_on: stty("-echo") }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        if self.was_on {
            stty("echo");
        }
    }
}

fn stty(arg: &str) -> bool {
    let run = Command::new("stty").arg(arg).stdin(Stdio::inherit()).stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    #[test]
    fn made_passwords_differ_and_are_long() {
        let (a, b) = (super::make().unwrap(), super::make().unwrap());
        assert_ne!(a, b);
        assert_eq!(a.len(), 20);
        assert!(a.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()), "{a}");
    }
}
