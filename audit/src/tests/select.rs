//! A tenant's own records, a page at a time.

use cofferdam_model::{Level, UnixNanos};

use super::*;
use crate::select::{Wanted, select_in};

const MINE: &str = "t_000000000000000a";

fn wanted(tenant: Option<&str>) -> Wanted<'_> {
    Wanted { tenant, request: None, since: UnixNanos(0), until: UnixNanos(u64::MAX), from: None, records: 3 }
}

/// Twelve calls, of which every third is mine, each a minute after the one before.
fn twelve(place: &Place) -> Log {
    let (log, _) = place.open().unwrap();
    for number in 0..12 {
        let mut call = Call::new(number, Level::Standard);
        if number % 3 == 0 {
            call.facts.tenant = Some(MINE.to_owned());
        }
        run(log.enter(call).unwrap().close(Answer)).unwrap().into_value();
        place.clock.advance(std::time::Duration::from_secs(60));
    }
    log
}

fn indexes(lines: &[String]) -> Vec<u64> {
    let index = |line: &String| serde_json::from_str::<serde_json::Value>(line).unwrap()["index"].as_u64().unwrap();
    lines.iter().map(index).collect()
}

#[test]
fn a_page_has_the_records_of_one_tenant_and_no_others() {
    let place = Place::new();
    let log = twelve(&place);
    let first = log.select(&wanted(Some(MINE))).unwrap();
    assert_eq!(indexes(&first.lines), [0, 3, 6]);
    let rest = log.select(&Wanted { from: first.next, ..wanted(Some(MINE)) }).unwrap();
    assert_eq!((indexes(&rest.lines), rest.next), (vec![9], None));
    assert_eq!(log.select(&wanted(Some("t_000000000000000b"))).unwrap().lines, Vec::<String>::new());
    // The same from a copy of the files, where whoever holds them may ask for all.
    drop(log);
    let copy = place.copy();
    assert_eq!(select_in(&copy.dir(), &wanted(Some(MINE))).unwrap(), first);
    assert_eq!(indexes(&select_in(&copy.dir(), &wanted(None)).unwrap().lines), [0, 1, 2]);
}

#[test]
fn a_page_is_of_one_request_and_of_a_time() {
    let place = Place::new();
    let log = twelve(&place);
    let facts = facts_of(6);
    let request = Some(facts.request.as_str());
    let page = log.select(&Wanted { request, ..wanted(Some(MINE)) }).unwrap();
    assert_eq!((indexes(&page.lines), page.next), (vec![6], None));
    let minute = 60_000_000_000;
    let (since, until) = (UnixNanos(START.0 + 3 * minute), UnixNanos(START.0 + 9 * minute));
    assert_eq!(indexes(&log.select(&Wanted { since, until, ..wanted(Some(MINE)) }).unwrap().lines), [3, 6]);
}

#[test]
fn a_refusal_before_anything_was_routed_is_the_callers_tenants_and_an_attempt_on_another_is_that_ones() {
    let place = Place::new();
    let (log, _) = place.open().unwrap();
    for (tenant, home) in [(None, MINE), (Some("t_000000000000000b"), MINE)] {
        let mut facts = facts_of(1);
        facts.tenant = tenant.map(str::to_owned);
        facts.principal.as_mut().unwrap().tenant = Some(home.to_owned());
        run(log.refuse(facts, Answer)).unwrap().into_value();
    }
    assert_eq!(indexes(&log.select(&wanted(Some(MINE))).unwrap().lines), [0]);
    assert_eq!(indexes(&log.select(&wanted(Some("t_000000000000000b"))).unwrap().lines), [1]);
}
