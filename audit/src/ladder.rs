//! How much a node still does when its log runs out of room, or its disk out of breath.
//!
//! Owns the steps, what each is taken for, and how long things must be better before one is taken back. Must never
//! look at a disk or a clock itself.

use std::time::Duration;

/// What a node still does, from all to nearly nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Step {
    /// Everything.
    #[default]
    Normal,
    /// Everything, and says that it will not be so for long.
    Warn,
    /// Calls of relaxed routes are refused.
    Shed,
    /// Only what changes nothing: calls with safe methods.
    ReadOnly,
    /// Nothing but to say how it is.
    Deny,
}

impl Step {
    /// All of them, in order.
    pub const ALL: &[Self] = &[Self::Normal, Self::Warn, Self::Shed, Self::ReadOnly, Self::Deny];

    /// Its name in records, metrics and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Warn => "warn",
            Self::Shed => "shed",
            Self::ReadOnly => "read_only",
            Self::Deny => "deny",
        }
    }

    fn down(self) -> Self {
        match self {
            Self::Normal | Self::Warn => Self::Normal,
            Self::Shed => Self::Warn,
            Self::ReadOnly => Self::Shed,
            Self::Deny => Self::ReadOnly,
        }
    }
}

/// What each step is taken for: less free space than this, or a sync that takes longer. In the order of the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// Free bytes of the log's file system.
    pub free_bytes: [u64; 4],
    /// Time of a sync, one under way included.
    pub sync: [Duration; 4],
}

impl Thresholds {
    /// None is ever reached.
    pub const NEVER: Self = Self { free_bytes: [0; 4], sync: [Duration::MAX; 4] };

    /// Whether each step asks for more than the one before it.
    pub fn are_ordered(&self) -> bool {
        self.free_bytes.is_sorted_by(|one, next| one >= next) && self.sync.is_sorted()
    }

    fn step(&self, demanded: impl Fn(u64, Duration) -> bool) -> Step {
        let each = self.free_bytes.into_iter().zip(self.sync).zip(Step::ALL.iter().copied().skip(1));
        each.filter(|((free, sync), _)| demanded(*free, *sync)).map(|(_, step)| step).max().unwrap_or_default()
    }
}

/// Looks in a row at which things must be better before a step is taken back.
const CALM: u32 = 10;

/// Where a node is on the ladder.
#[derive(Debug, Default)]
pub(crate) struct Ladder {
    step: Step,
    calm: u32,
}

impl Ladder {
    /// The disk took no more: nothing is done until it was better for a while.
    pub(crate) fn fill(&mut self) -> Option<(Step, Step)> {
        let before = std::mem::replace(&mut self.step, Step::Deny);
        self.calm = 0;
        (before != Step::Deny).then_some((before, Step::Deny))
    }

    /// Takes one look into account, and gives the step before and the one now where that changed it. Up at once and as
    /// far as it takes; down one by one, once it was better by a good part for a while.
    pub(crate) fn observe(&mut self, thresholds: &Thresholds, free: u64, sync: Duration) -> Option<(Step, Step)> {
        let before = self.step;
        let demanded = thresholds.step(|least, longest| free < least || sync > longest);
        let held = thresholds.step(|least, longest| free < least.saturating_add(least / 4) || sync > longest / 2);
        if demanded > before {
            (self.step, self.calm) = (demanded, 0);
        } else if held >= before {
            self.calm = 0;
        } else {
            self.calm += 1;
            if self.calm >= CALM {
                (self.step, self.calm) = (before.down(), 0);
            }
        }
        (self.step != before).then_some((before, self.step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const THRESHOLDS: Thresholds = Thresholds {
        free_bytes: [1_000, 800, 400, 100],
        sync: [MS, Duration::from_millis(10), Duration::MAX, Duration::MAX],
    };

    fn at(step: Step) -> Ladder {
        Ladder { step, calm: 0 }
    }

    #[test]
    fn steps_are_taken_at_once_and_as_far_as_it_takes() {
        for (free, sync, step) in [
            (1_000, MS, Step::Normal),
            (999, MS, Step::Warn),
            (1_000, MS * 2, Step::Warn),
            (799, MS, Step::Shed),
            (5_000, MS * 11, Step::Shed),
            (399, MS, Step::ReadOnly),
            (99, Duration::MAX, Step::Deny),
        ] {
            let mut ladder = Ladder::default();
            let change = ladder.observe(&THRESHOLDS, free, sync);
            assert_eq!(change, (step != Step::Normal).then_some((Step::Normal, step)), "{free} {sync:?}");
        }
    }

    #[test]
    fn steps_are_taken_back_one_by_one_after_a_while_of_better_by_a_good_part() {
        let mut ladder = at(Step::Deny);
        // Just above the threshold is not better; nor is nine times better with one relapse.
        (0..100).for_each(|_| assert_eq!(ladder.observe(&THRESHOLDS, 110, Duration::ZERO), None));
        (0..9).for_each(|_| assert_eq!(ladder.observe(&THRESHOLDS, 5_000, Duration::ZERO), None));
        assert_eq!(ladder.observe(&THRESHOLDS, 110, Duration::ZERO), None);
        let mut taken = Vec::new();
        for look in 1..=60 {
            taken.extend(ladder.observe(&THRESHOLDS, 5_000, Duration::ZERO).map(|(_, to)| (look, to)));
        }
        assert_eq!(taken, [(10, Step::ReadOnly), (20, Step::Shed), (30, Step::Warn), (40, Step::Normal)]);
    }

    #[test]
    fn thresholds_that_are_out_of_order_are_known() {
        assert!(THRESHOLDS.are_ordered() && Thresholds::NEVER.are_ordered());
        assert!(!Thresholds { free_bytes: [1, 2, 0, 0], ..THRESHOLDS }.are_ordered());
        assert!(!Thresholds { sync: [MS * 2, MS, MS, MS], ..THRESHOLDS }.are_ordered());
    }
}
