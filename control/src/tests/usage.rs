//! Sums of what was used: always those of the log, whatever happened in between.

use std::collections::BTreeMap;

use cofferdam_model::reading::hour_of;
use cofferdam_model::{CallFacts, DecisionFacts, Level, Subject, UsageRange};

use super::*;
use crate::Meter;

/// A call of a function, as the data plane records it.
struct Call(CallFacts, Level);

impl Subject for Call {
    fn facts(&self) -> CallFacts {
        self.0.clone()
    }

    fn level(&self) -> Level {
        self.1
    }
}

struct Ended(Ending, u64);

impl Reply for Ended {
    fn outcome(&self) -> OutcomeFacts {
        let n = self.1;
        let usage = Usage {
            cpu_us: n,
            wall_us: n * 2,
            memory_bytes: n * 3,
            bytes_in: n * 4,
            bytes_out: n * 5,
            log_bytes: n * 6,
            memory_kib_ms: n * 7,
            egress_calls: n * 8,
            egress_bytes_out: n * 9,
            egress_bytes_in: n * 10,
        };
        OutcomeFacts { ending: self.0, usage, ..Done.outcome() }
    }
}

impl World {
    fn call(&self, function: &FunctionRef, level: Level) -> Call {
        let mut facts = CallFacts::of(&circumstances(&*self.clock, &*self.random));
        facts.tenant = Some(function.id.tenant().to_string());
        facts.action = Some("Invoke".into());
        facts.resource = Some(function.id.to_string());
        Call(facts, level)
    }

    fn answer(&self, function: &FunctionRef, ending: Ending, n: u64) {
        let entry = self.log.enter(self.call(function, Level::Standard)).unwrap();
        let _ = self.runtime.block_on(entry.close(Ended(ending, n))).unwrap();
    }

    fn stream(&self, function: &FunctionRef, n: u64) {
        self.runtime.block_on(async {
            let entry = self.log.enter(self.call(function, Level::Strict)).unwrap();
            // What the head tells is not the end, and must not be counted.
            let (_, closing) = entry.begin(Ended(Ending::Answered, 1_000_000)).await.unwrap();
            closing.finish(Ended(Ending::WallExceeded, n).outcome());
            self.log.note(cofferdam_audit::Note::Stop { reason: "only to wait for it".into() }).await.unwrap();
        });
    }

    fn sums(&self, control: &Control, tenant: &TenantId) -> Value {
        let range = UsageRange { function: None, hours: 0..u64::MAX, after: None };
        crate::usage::read(control, tenant, &range).unwrap()["rows"].clone()
    }

    /// What a meter that starts with nothing makes of the whole log.
    fn anew(&self, tenant: &TenantId) -> Value {
        let dir = tempfile::tempdir().unwrap();
        let (config, random) = (ControlConfig::in_dir(&dir.path().join("data")), SeededRandom::new(99));
        Control::init(&config, &*self.clock, &random).unwrap();
        let fresh = Control::open(config, self.authorizer.clone(), self.clock.clone(), self.random.clone()).unwrap();
        let fresh = Arc::new(fresh);
        assert_eq!(Meter::new(fresh.clone(), self.log.clone()).catch_up(1000).unwrap(), 0);
        nameless(self.sums(&fresh, tenant))
    }
}

/// Rows without the names, which a store that never saw the functions cannot know.
fn nameless(mut rows: Value) -> Value {
    for row in rows.as_array_mut().unwrap() {
        row["function"] = Value::Null;
    }
    rows
}

#[test]
fn usage_is_summed_by_function_and_hour_and_each_call_counts_once() {
    let world = World::new();
    let (tenant, key) = world.tenant("acme");
    let one = world.function(&tenant, &key, "one", FunctionSettings::default());
    let two = world.function(&tenant, &key, "two", FunctionSettings::default());
    let control = Arc::new(world.reopen());
    let meter = Meter::new(control.clone(), world.log.clone());
    world.answer(&one, Ending::Answered, 1);
    world.answer(&one, Ending::Overloaded, 0);
    world.stream(&one, 10);
    assert_eq!(meter.catch_up(10).unwrap(), 0);
    world.answer(&two, Ending::Trapped, 100);
    world.clock.advance(Duration::from_secs(3600));
    world.answer(&one, Ending::Answered, 1000);
    assert_eq!(meter.catch_up(10).unwrap(), 0);
    assert_eq!(meter.catch_up(10).unwrap(), 0);

    let rows = world.sums(&control, &tenant);
    let rows: BTreeMap<_, _> =
        rows.as_array().unwrap().iter().map(|row| (row["usage"]["cpu_us"].as_u64(), row)).collect();
    let told = |cpu_us: u64| {
        let row = rows[&Some(cpu_us)];
        let numbers = ["calls", "answered", "failed", "refused"].map(|name| row[name].as_u64().unwrap());
        (row["function"].as_str().unwrap(), row["hour"].as_str().unwrap(), numbers)
    };
    assert_eq!(rows.len(), 3);
    assert_eq!(told(11), ("one", "2026-11-20T10:00:00.000000Z", [3, 1, 1, 1]));
    assert_eq!(told(100), ("two", "2026-11-20T10:00:00.000000Z", [1, 0, 1, 0]));
    assert_eq!(told(1000), ("one", "2026-11-20T11:00:00.000000Z", [1, 1, 0, 0]));
    let expected = serde_json::to_value(Ended(Ending::Answered, 11).outcome().usage).unwrap();
    assert_eq!(rows[&Some(11)]["usage"], expected);
    assert_eq!(hour_of(NOW) % 24, 10);
}

#[test]
fn usage_goes_on_exactly_where_a_crash_left_it_also_between_a_calls_two_records() {
    let world = World::new();
    let (tenant, key) = world.tenant("acme");
    let function = world.function(&tenant, &key, "one", FunctionSettings::default());
    world.answer(&function, Ending::Answered, 1);
    let mut entry = world.log.enter(world.call(&function, Level::Strict)).unwrap();
    let _ = world.runtime.block_on(entry.intent()).unwrap();
    let control = Arc::new(world.reopen());
    assert_eq!(Meter::new(control.clone(), world.log.clone()).catch_up(10).unwrap(), 0);
    // The next meter knows of the open call by the store alone.
    let _ = world.runtime.block_on(entry.close(Ended(Ending::Answered, 20))).unwrap();
    world.answer(&function, Ending::Answered, 300);
    let meter = Meter::new(Arc::new(world.reopen()), world.log.clone());
    assert_eq!(meter.catch_up(10).unwrap(), 0);
    let rows = world.sums(&control, &tenant);
    assert_eq!((&rows[0]["calls"], &rows[0]["usage"]["cpu_us"]), (&3.into(), &321.into()));
    assert_eq!(nameless(rows), world.anew(&tenant));
}

#[test]
fn what_policies_refused_is_no_call_and_what_a_limit_refused_is() {
    let world = World::new();
    let (tenant, key) = world.tenant("acme");
    let function = world.function(&tenant, &key, "one", FunctionSettings::default());
    for outcome in ["allow", "implicit_deny", "explicit_deny"] {
        let mut facts = world.call(&function, Level::Standard).facts();
        let (tier, policies, policy_set) = ("tenant".into(), vec![], Digest([0; 32]));
        let outcome = outcome.into();
        facts.decision = Some(DecisionFacts { outcome, tier, policies, policy_set, sets: vec![], given: None });
        let _ = world.runtime.block_on(world.log.refuse(facts, Ended(Ending::Refused, 0))).unwrap();
    }
    Meter::new(Arc::new(world.reopen()), world.log.clone()).catch_up(10).unwrap();
    let rows = world.sums(&world.control, &tenant);
    assert_eq!((&rows[0]["calls"], &rows[0]["refused"]), (&1.into(), &1.into()));
}

#[test]
fn a_clock_that_was_ahead_for_one_record_does_not_make_all_sums_look_old() {
    let world = World::new();
    let (tenant, key) = world.tenant("acme");
    let function = world.function(&tenant, &key, "one", FunctionSettings::default());
    world.answer(&function, Ending::Answered, 1);
    world.clock.advance(Duration::from_secs(500 * 24 * 3600));
    world.answer(&function, Ending::Answered, 20);
    let hours = |control: &Control| {
        let sums = world.sums(control, &tenant);
        sums.as_array().unwrap().iter().map(|row| row["usage"]["cpu_us"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    // By a clock that is right, the later record is of a time to come.
    let (config, right) = (ControlConfig::in_dir(&world.data()), Arc::new(ManualClock::at(NOW)));
    let control = Control::open(config, world.authorizer.clone(), right, world.random.clone()).unwrap();
    let control = Arc::new(control);
    Meter::new(control.clone(), world.log.clone()).catch_up(10).unwrap();
    assert_eq!(hours(&control), [1, 20]);
    // Once that time has come, what is older than 400 days goes.
    let control = Arc::new(world.reopen());
    world.answer(&function, Ending::Answered, 300);
    Meter::new(control.clone(), world.log.clone()).catch_up(10).unwrap();
    assert_eq!(hours(&control), [320]);
}

#[test]
fn a_step_that_fails_is_done_again_and_counts_once() {
    let world = World::new();
    let (tenant, key) = world.tenant("acme");
    let function = world.function(&tenant, &key, "one", FunctionSettings::default());
    let meter = Meter::new(Arc::new(world.reopen()), world.log.clone());
    world.answer(&function, Ending::Answered, 1);
    meter.catch_up(10).unwrap();
    let other = rusqlite::Connection::open(world.data().join("state.sqlite")).unwrap();
    // The mark is written last: everything else of the step has been by then.
    let fail = "CREATE TRIGGER full BEFORE INSERT ON usage_mark BEGIN SELECT RAISE(ABORT, 'no room'); END";
    other.execute_batch(fail).unwrap();
    world.answer(&function, Ending::Answered, 2);
    assert!(meter.catch_up(10).is_err() && meter.catch_up(10).is_err());
    assert_eq!(world.sums(&world.control, &tenant)[0]["calls"], 1);
    other.execute_batch("DROP TRIGGER full").unwrap();
    assert_eq!(meter.catch_up(10).unwrap(), 0);
    let rows = world.sums(&world.control, &tenant);
    assert_eq!((&rows[0]["calls"], &rows[0]["usage"]["cpu_us"]), (&2.into(), &3.into()));
}

#[test]
fn another_log_is_counted_on_top_and_another_state_of_the_same_log_in_its_place() {
    for (origin, expected) in [("cofferdam.test/another", 51), ("cofferdam.test/control", 50)] {
        let world = World::new();
        let (tenant, key) = world.tenant("acme");
        let function = world.function(&tenant, &key, "one", FunctionSettings::default());
        world.answer(&function, Ending::Answered, 1);
        Meter::new(Arc::new(world.reopen()), world.log.clone()).catch_up(10).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let log = {
            let _context = world.runtime.enter();
            open_log(elsewhere.path(), origin, &world.clock, &Arc::new(SeededRandom::new(77)))
        };
        for _ in 0..50 {
            let entry = log.enter(world.call(&function, Level::Standard)).unwrap();
            let _ = world.runtime.block_on(entry.close(Ended(Ending::Answered, 1))).unwrap();
        }
        assert_eq!(Meter::new(Arc::new(world.reopen()), log).catch_up(10).unwrap(), 0);
        assert_eq!(world.sums(&world.control, &tenant)[0]["calls"], expected, "{origin}");
    }
}
