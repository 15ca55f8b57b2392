//! Syscall filters as data: a strict reader of the files in `sandbox/seccomp`, and their translation.
//!
//! Owns the grammar. Must never accept a line it does not wholly understand, or one without a reason.
//!
//! ```text
//! otherwise kill                        first line: what happens to a call no line matches (kill or allow)
//! allow mmap a2&0x4=0   # why           the call, if every condition holds; a second line is an alternative
//! deny=ENOSYS clone3    # why           fails with that error: for calls a library tries and can do without
//! kill memfd_create     # why           only under `otherwise allow`
//! ```
//!
//! A condition is `aN=V`, `aN!=V` (low 32 bits) or `aN&M=V`, numbers decimal or 0x; `self` is the process's number.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::error::JailError;
use crate::syscalls;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Action {
    Allow,
    Deny(u32),
    Kill,
}

struct Line {
    action: Action,
    number: i64,
    conditions: Vec<SeccompCondition>,
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// A filter as read.
pub(crate) struct Filter {
    otherwise: Action,
    lines: Vec<Line>,
}

impl Filter {
    /// Reads a filter; `own` is the number `self` stands for.
    pub(crate) fn parse(file: &'static str, text: &str, own: u64) -> Result<Self, JailError> {
        let wrong = |index: usize, problem: String| JailError::FilterData { file, line: index + 1, problem };
        let mut otherwise = None;
        let mut lines: Vec<Line> = Vec::new();
        for (index, raw) in text.lines().enumerate() {
            if raw.trim().is_empty() || raw.starts_with('#') {
                continue;
            }
            if otherwise.is_none() {
                otherwise = Some(first_line(raw).map_err(|problem| wrong(index, problem))?);
                continue;
            }
            let line = rule(raw, own).map_err(|problem| wrong(index, problem))?;
            let Some(line) = line else { continue };
            if (line.action == Action::Kill) != (otherwise == Some(Action::Allow)) {
                return Err(wrong(index, "an action this file's `otherwise` has no use for".into()));
            }
            let clash = lines.iter().any(|before| {
                before.number == line.number && (before.conditions.is_empty() || line.conditions.is_empty())
            });
            if clash {
                return Err(wrong(index, "a line without conditions must be the only one of its call".into()));
            }
            lines.push(line);
        }
        match otherwise {
            Some(otherwise) => Ok(Self { otherwise, lines }),
            None => Err(wrong(0, "no `otherwise` line".into())),
        }
    }

    /// The programs for the kernel, to be installed in this order. The kernel takes the strictest answer of all, so
    /// calls that shall fail softly pass the last program and are turned away by an earlier one.
    pub(crate) fn programs(&self) -> Result<Vec<BpfProgram>, JailError> {
        let mut programs = Vec::new();
        let mut actions: Vec<Action> = self.lines.iter().map(|line| line.action).collect();
        actions.sort_unstable();
        actions.dedup();
        for action in &actions {
            if let Action::Deny(errno) = action {
                let rules = self.rules(|line| line.action == *action)?;
                programs.push(program(rules, SeccompAction::Allow, SeccompAction::Errno(*errno))?);
            }
        }
        let all = self.rules(|_| true)?;
        programs.push(match self.otherwise {
            Action::Allow => program(all, SeccompAction::Allow, SeccompAction::KillProcess)?,
            Action::Deny(_) | Action::Kill => program(all, SeccompAction::KillProcess, SeccompAction::Allow)?,
        });
        Ok(programs)
    }

    fn rules(&self, which: impl Fn(&Line) -> bool) -> Result<Rules, JailError> {
        let mut rules = Rules::new();
        for line in self.lines.iter().filter(|line| which(line)) {
            let alternatives = rules.entry(line.number).or_default();
            if !line.conditions.is_empty() {
                alternatives.push(SeccompRule::new(line.conditions.clone()).map_err(JailError::FilterProgram)?);
            }
        }
        Ok(rules)
    }
}

fn program(rules: Rules, mismatch: SeccompAction, matched: SeccompAction) -> Result<BpfProgram, JailError> {
    let compile = || -> Result<BpfProgram, BackendError> {
        let arch = TargetArch::try_from(std::env::consts::ARCH)?;
        SeccompFilter::new(rules, mismatch, matched, arch)?.try_into()
    };
    compile().map_err(JailError::FilterProgram)
}

fn first_line(raw: &str) -> Result<Action, String> {
    match raw.trim() {
        "otherwise kill" => Ok(Action::Kill),
        "otherwise allow" => Ok(Action::Allow),
        other => Err(format!("expected `otherwise kill` or `otherwise allow`, found `{other}`")),
    }
}

/// One line; nothing where the architecture has no such call.
fn rule(raw: &str, own: u64) -> Result<Option<Line>, String> {
    let (rule, reason) = raw.split_once('#').ok_or("no reason given after `#`")?;
    if reason.trim().len() < 4 {
        return Err("the reason is too short to be one".into());
    }
    let mut words = rule.split_whitespace();
    let action = action(words.next().unwrap_or_default())?;
    let name = words.next().ok_or("no system call named")?;
    let number = syscalls::number(name).ok_or_else(|| format!("unknown system call `{name}`"))?;
    let conditions = words.map(|word| condition(word, own)).collect::<Result<Vec<_>, _>>()?;
    Ok(number.map(|number| Line { action, number, conditions }))
}

fn action(word: &str) -> Result<Action, String> {
    match word {
        "allow" => Ok(Action::Allow),
        "kill" => Ok(Action::Kill),
        "deny=ENOSYS" => Ok(Action::Deny(libc::ENOSYS.unsigned_abs())),
        "deny=EACCES" => Ok(Action::Deny(libc::EACCES.unsigned_abs())),
        "deny=EPERM" => Ok(Action::Deny(libc::EPERM.unsigned_abs())),
        "deny=ENOTTY" => Ok(Action::Deny(libc::ENOTTY.unsigned_abs())),
        other => Err(format!("unknown action `{other}`")),
    }
}

fn condition(word: &str, own: u64) -> Result<SeccompCondition, String> {
    let wrong = || format!("malformed condition `{word}`");
    let (left, right) = word.split_once('=').ok_or_else(wrong)?;
    let value = if right == "self" { own } else { integer(right).ok_or_else(wrong)? };
    // Where a call takes a 32-bit argument the kernel drops the upper half, so "is not" must not look at it: a set
    // upper bit would make a forbidden value differ. For "is", the longer comparison is the stricter one.
    let (argument, operator, length) = match (left.strip_suffix('!'), left.split_once('&')) {
        (Some(argument), None) => (argument, SeccompCmpOp::Ne, SeccompCmpArgLen::Dword),
        (None, Some((argument, mask))) => {
            (argument, SeccompCmpOp::MaskedEq(integer(mask).ok_or_else(wrong)?), SeccompCmpArgLen::Qword)
        }
        (None, None) => (left, SeccompCmpOp::Eq, SeccompCmpArgLen::Qword),
        (Some(_), Some(_)) => return Err(wrong()),
    };
    let index = argument.strip_prefix('a').and_then(|digit| digit.parse().ok()).filter(|index| *index < 6);
    SeccompCondition::new(index.ok_or_else(wrong)?, length, operator, value).map_err(|_| wrong())
}

fn integer(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        match Filter::parse("test", text, 1) {
            Ok(_) => "none".into(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_line_without_a_reason_is_refused() {
        assert!(problem("otherwise kill\nallow read\n").contains("no reason"));
        assert!(problem("otherwise kill\nallow read # io\n").contains("too short"));
        assert_eq!(problem("otherwise kill\nallow read # the channel\n"), "none");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for line in [
            "alow read",
            "allow reed",
            "allow read a6=1",
            "allow read a0",
            "allow read a0=x",
            "allow read a0!&1=1",
            "allow read b0=1",
            "deny=EWHAT read",
            "deny read",
            "kill read",
            "allow",
        ] {
            assert_ne!(problem(&format!("otherwise kill\n{line} # a good reason\n")), "none", "{line}");
        }
        assert_ne!(problem("allow read # a good reason\n"), "none");
        assert_ne!(problem(""), "none");
        assert_ne!(problem("otherwise allow\nallow read # a good reason\n"), "none");
    }

    #[test]
    fn an_unconditional_line_cannot_hide_a_conditional_one() {
        let text = "otherwise kill\nallow read # a good reason\nallow read a0=1 # a good reason\n";
        assert!(problem(text).contains("the only one"));
    }

    #[test]
    fn soft_refusals_come_before_the_killing_program() {
        let text = "otherwise kill\nallow read # a good reason\ndeny=ENOSYS clone3 # a good reason\n";
        assert_eq!(Filter::parse("test", text, 1).unwrap().programs().unwrap().len(), 2);
    }
}
