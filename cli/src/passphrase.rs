//! Passphrases as people type them.
//!
//! Owns the prompt on a terminal, which shows nothing of what is typed. Must never take a passphrase from an argument
//! or from the environment, where others could see it, and never leave a terminal silent.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::os::fd::AsFd;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use crate::failure::Failure;

/// Bytes of a line that is read.
const LINE_BYTES: u64 = 1026;

/// Asks for a passphrase, twice where it is a new one. Where standard input is no terminal, its first line is taken.
pub(crate) fn ask(what: &str, twice: bool) -> Result<Zeroizing<String>, Failure> {
    if !std::io::stdin().is_terminal() {
        return line(&mut std::io::stdin().lock());
    }
    let terminal = || std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty");
    let mut terminal = terminal().map_err(|error| Failure::internal(format!("there is no terminal: {error}")))?;
    let first = typed(&mut terminal, what)?;
    if twice && typed(&mut terminal, "Once more")? != first {
        return Err(Failure::usage("the two are not the same"));
    }
    Ok(first)
}

/// Puts the terminal back as it was, also where reading fails.
struct Silent<'a>(&'a File, Termios);

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        // There is nothing more to try.
        let _ = tcsetattr(self.0.as_fd(), OptionalActions::Flush, &self.1);
    }
}

fn typed(terminal: &mut File, what: &str) -> Result<Zeroizing<String>, Failure> {
    let failed = |error: std::io::Error| Failure::internal(format!("cannot read from the terminal: {error}"));
    write!(terminal, "{what}: ").and_then(|()| terminal.flush()).map_err(failed)?;
    let text = {
        let terminal = &*terminal;
        let was = tcgetattr(terminal.as_fd()).map_err(|error| failed(error.into()))?;
        let mut silent = was.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal.as_fd(), OptionalActions::Flush, &silent).map_err(|error| failed(error.into()))?;
        let _back = Silent(terminal, was);
        line(&mut BufReader::with_capacity(64, terminal))?
    };
    writeln!(terminal).map_err(failed)?;
    Ok(text)
}

/// One line, without its end.
fn line(from: &mut impl BufRead) -> Result<Zeroizing<String>, Failure> {
    // Room for all of it from the start: growing would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(LINE_BYTES as usize));
    let read = from.take(LINE_BYTES).read_line(&mut text);
    read.map_err(|error| Failure::internal(format!("cannot read the passphrase: {error}")))?;
    let kept = text.trim_end_matches('\n').trim_end_matches('\r').len();
    text.truncate(kept);
    if text.is_empty() {
        return Err(Failure::usage("no passphrase was given").hint("type it, or pipe it in as one line"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passphrase_is_one_line_without_its_end() {
        let read = |text: &str| line(&mut text.as_bytes()).map(|text| text.to_string());
        assert_eq!(read("correct horse\nbattery").unwrap(), "correct horse");
        assert_eq!(read("correct horse \r\n").unwrap(), "correct horse ");
        assert_eq!(read("correct horse").unwrap(), "correct horse");
        assert!(read("\n").is_err() && read("").is_err());
    }
}
