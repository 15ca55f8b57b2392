//! Advice about the host: what makes every jail on it weaker or stronger, without being part of one.
//!
//! Owns reading it from the process and system file systems. Must never change anything, and never fail: what
//! cannot be read is said to be unknown.

use std::fs::read_to_string;

use crate::report::HostCheck;

/// One file, what it should say, and what to do if it does not.
struct Setting {
    name: &'static str,
    file: &'static str,
    good: fn(&str) -> bool,
    remedy: &'static str,
}

const SETTINGS: &[Setting] = &[
    Setting {
        name: "swap",
        file: "/proc/swaps",
        good: |text| text.lines().count() <= 1,
        remedy: "swapoff -a, or encrypt swap: a tenant's memory can reach the disk",
    },
    Setting {
        name: "same_page_merging",
        file: "/sys/kernel/mm/ksm/run",
        good: |text| text == "0",
        remedy: "echo 0 > /sys/kernel/mm/ksm/run: merged pages let tenants tell each other's memory by timing",
    },
    Setting {
        name: "simultaneous_multithreading",
        file: "/sys/devices/system/cpu/smt/active",
        good: |text| text == "0",
        remedy: "boot with nosmt: tenants on one core can watch each other through its caches",
    },
    Setting {
        name: "core_pattern",
        file: "/proc/sys/kernel/core_pattern",
        good: |text| !text.starts_with('|'),
        remedy: "sysctl kernel.core_pattern=core: a piped handler ignores core size limits",
    },
    Setting {
        name: "ptrace_scope",
        file: "/proc/sys/kernel/yama/ptrace_scope",
        good: |text| text != "0",
        remedy: "sysctl kernel.yama.ptrace_scope=1",
    },
    Setting {
        name: "unprivileged_bpf",
        file: "/proc/sys/kernel/unprivileged_bpf_disabled",
        good: |text| text != "0",
        remedy: "sysctl kernel.unprivileged_bpf_disabled=1",
    },
    Setting {
        name: "overcommit",
        file: "/proc/sys/vm/overcommit_memory",
        good: |text| text != "2",
        remedy: "sysctl vm.overcommit_memory=0: cells reserve far more address space than they use",
    },
    Setting {
        name: "memory_maps",
        file: "/proc/sys/vm/max_map_count",
        good: |text| text.parse::<u64>().is_ok_and(|count| count >= 65_530),
        remedy: "sysctl vm.max_map_count=65530",
    },
];

pub(crate) fn checks() -> Vec<HostCheck> {
    let mut checks = vec![kernel()];
    checks.extend(SETTINGS.iter().map(check));
    checks
}

fn check(setting: &Setting) -> HostCheck {
    match read_to_string(setting.file) {
        Err(error) => HostCheck {
            name: setting.name,
            good: None,
            found: format!("cannot read `{}`: {error}", setting.file),
            remedy: None,
        },
        Ok(text) => {
            let text = text.trim();
            let good = (setting.good)(text);
            let found: String = text.lines().next_back().unwrap_or_default().chars().take(120).collect();
            HostCheck { name: setting.name, good: Some(good), found, remedy: (!good).then_some(setting.remedy) }
        }
    }
}

fn kernel() -> HostCheck {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let good = numbers.next().map(|major| (major, numbers.next().unwrap_or_default()) >= (5, 13));
    let remedy = (good == Some(false)).then_some("use Linux 5.13 or newer, better 6.12: Landlock, pidfd, cgroup.kill");
    HostCheck { name: "kernel", good, found: release, remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_unknown_not_bad() {
        let missing = Setting { name: "x", file: "/nonexistent/x", good: |_| true, remedy: "y" };
        assert_eq!(check(&missing).good, None);
    }

    #[test]
    fn a_bad_setting_comes_with_a_remedy() {
        let bad = Setting { name: "x", file: "/proc/sys/kernel/ostype", good: |text| text == "HURD", remedy: "y" };
        assert_eq!(check(&bad).remedy, Some("y"));
        assert_eq!(check(&bad).found, "Linux");
    }
}
