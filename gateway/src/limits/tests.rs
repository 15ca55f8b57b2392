//! Evidence for the limiter: exactness, the bound under eviction, and the fields it writes.

use super::*;
use cofferdam_model::UnixNanos;
use cofferdam_model::clock::ManualClock;
use proptest::prelude::*;

const RATE: Rate = Rate { per_second: 10, burst: 20 };

fn ask(table: &Table, key: u64, now_ms: u64) -> Verdict {
    charge(table, Scope::Source, key, RATE, Duration::from_millis(now_ms))
}

#[test]
fn a_bucket_gives_its_burst_and_then_its_rate_exactly() {
    let table = Table::with_room_for(64);
    let at_once = (0..100).filter(|_| ask(&table, 7, 1_000).retry_after.is_none()).count();
    assert_eq!(at_once, 20);
    // Denials were not charged: one period later exactly one more passes.
    let denied = ask(&table, 7, 1_000);
    assert_eq!(denied.retry_after, Some(Duration::from_millis(100)));
    assert_eq!(denied.remaining, 0);
    assert!(ask(&table, 7, 1_099).retry_after.is_some());
    assert!(ask(&table, 7, 1_100).retry_after.is_none());
    assert!(ask(&table, 7, 1_100).retry_after.is_some());
    // And ten seconds later the whole burst is back, no more.
    let again = (0..100).filter(|_| ask(&table, 7, 11_100).retry_after.is_none()).count();
    assert_eq!(again, 20);
}

#[test]
fn remaining_and_reset_count_down_together() {
    let table = Table::with_room_for(64);
    let first = ask(&table, 1, 0);
    assert_eq!((first.remaining, first.reset), (19, Duration::from_millis(100)));
    let second = ask(&table, 1, 0);
    assert_eq!((second.remaining, second.reset), (18, Duration::from_millis(200)));
}

#[test]
fn keys_do_not_share_a_bucket_while_there_is_room() {
    let table = Table::with_room_for(8);
    for key in 1..=8 {
        assert_eq!((0..30).filter(|_| ask(&table, key, 0).retry_after.is_none()).count(), 20, "key {key}");
    }
}

#[test]
fn a_newcomer_to_a_full_set_does_not_start_fresh() {
    let table = Table::with_room_for(8);
    for key in 1..=8 {
        (0..20).for_each(|_| assert!(ask(&table, key, 0).retry_after.is_none()));
    }
    assert!(ask(&table, 99, 0).retry_after.is_some());
    // One period later the least used slot has one request to give, to whoever asks first.
    assert!(ask(&table, 99, 100).retry_after.is_none());
}

#[test]
fn a_looser_quota_is_not_held_to_the_debt_of_a_stricter_one() {
    let table = Table::with_room_for(8);
    let strict = Rate { per_second: 1, burst: 1000 };
    (0..1000).for_each(|_| assert!(charge(&table, Scope::Route, 5, strict, Duration::ZERO).retry_after.is_none()));
    let loose = Rate { per_second: 1000, burst: 10 };
    let wait = charge(&table, Scope::Route, 5, loose, Duration::ZERO).retry_after.unwrap();
    assert!(wait <= Duration::from_millis(10), "{wait:?}");
}

proptest! {
    #[test]
    fn no_mix_of_keys_gets_more_than_the_bound(
        asks in prop::collection::vec((1u64..40, 0u64..50), 1..2_000)
    ) {
        let table = Table::with_room_for(8);
        let (mut now, mut passed) = (0, 0u64);
        for (key, step) in asks {
            now += step;
            passed += u64::from(ask(&table, key, now).retry_after.is_none());
        }
        let bound = 8 * (20 + 10 * now.div_ceil(1_000));
        prop_assert!(passed <= bound, "{passed} passed, the bound is {bound}");
    }

    #[test]
    fn a_single_key_never_gets_more_than_its_quota_whoever_else_asks(
        asks in prop::collection::vec((1u64..8, 0u64..200), 1..1_000)
    ) {
        let table = Table::with_room_for(8);
        let (mut now, mut passed) = (0, 0u64);
        for (key, step) in asks {
            now += step;
            let ok = ask(&table, key, now).retry_after.is_none();
            passed += u64::from(ok && key == 3);
        }
        prop_assert!(passed <= 20 + now / 100 + 1);
    }
}

#[test]
fn a_network_of_ipv6_addresses_is_one_source() {
    let key = |text: &str| source_key(text.parse().unwrap());
    assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
    assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
    assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
    assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    assert_ne!(key("0.0.0.0"), key("::"));
}

#[test]
fn the_fields_are_structured_lists_of_the_draft() {
    let limiter = Limiter::new(&Limits::default(), Arc::new(ManualClock::at(UnixNanos(0))));
    let mut standing = Standing::default();
    standing.take(limiter.source("192.0.2.1".parse().unwrap())).unwrap();
    standing.take(limiter.principal("t_1|iss|alice")).unwrap();
    let mut headers = HeaderMap::new();
    standing.write(&mut headers);
    assert_eq!(headers["ratelimit-policy"], "\"source\";q=1000;w=2, \"principal\";q=1000;w=2");
    assert_eq!(headers["ratelimit"], "\"source\";r=999;t=1, \"principal\";r=999;t=1");
    for value in headers.values() {
        let parsed: sfv::List = sfv::Parser::new(value.as_bytes()).parse().unwrap();
        assert_eq!(parsed.len(), 2);
    }
}

#[test]
fn a_denial_becomes_a_refusal_that_says_when_to_come_back() {
    let limits = Limits { per_source: Rate { per_second: 1, burst: 1 }, ..Limits::default() };
    let clock = Arc::new(ManualClock::at(UnixNanos(0)));
    let limiter = Limiter::new(&limits, clock.clone());
    let address: IpAddr = "192.0.2.1".parse().unwrap();
    let mut standing = Standing::default();
    standing.take(limiter.source(address)).unwrap();
    let refused = standing.take(limiter.source(address));
    assert_eq!(refused, Err(Refusal::RateLimited { retry_after: Duration::from_secs(1) }));
    clock.advance(Duration::from_secs(1));
    standing.take(limiter.source(address)).unwrap();
}

#[test]
fn no_more_calls_are_admitted_than_allowed() {
    let limits = Limits { calls: 2, ..Limits::default() };
    let limiter = Limiter::new(&limits, Arc::new(ManualClock::at(UnixNanos(0))));
    let first = limiter.admit().unwrap();
    let _second = limiter.admit().unwrap();
    assert!(matches!(limiter.admit(), Err(Refusal::Overloaded { .. })));
    drop(first);
    assert!(limiter.admit().is_ok());
}
