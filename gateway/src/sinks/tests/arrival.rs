//! What arrives, whatever becomes of the receiver: everything, in order, at least once.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_fails_hangs_breaks_off_and_restarts_gets_every_record_in_order() {
    let (place, pki) = (Place::new(), Pki::new());
    let (arrived, asked) = (Arrived::default(), Arc::new(AtomicUsize::new(0)));
    let script: Script = Arc::new({
        let (arrived, asked) = (arrived.clone(), asked.clone());
        move |seen: &Seen| match asked.fetch_add(1, SeqCst) {
            0 => Does::status(500),
            2 => Does::Hangs,
            3 => Does::Breaks,
            5 => Does::Answers(503, vec![("retry-after", "1".into())], "later".into()),
            6 => Does::Answers(302, vec![("location", "https://localhost:1/".into())], String::new()),
            _ => {
                keep(&arrived, &seen.body);
                Does::status(200)
            }
        }
    });
    let log = place.open();
    notes(&log, 0..20).await;
    let first = https(&pki, 0, script.clone()).await;
    let settings = "batch_records = 5\ndeadline_ms = 300";
    let sinks = place.start(&log, &sink("hook", settings, &webhook(&pki, first.port, "")));
    until("a few arrived", || arrived.lock().unwrap().len() >= 10).await;
    // Gone while more comes, and back on the same port.
    let port = first.stop().await;
    notes(&log, 20..40).await;
    until("it was missed", || sinks.standing()[0].error.as_deref().is_some_and(|e| e.contains("cannot reach"))).await;
    let _again = https(&pki, port, script).await;
    until("all arrived", || arrived.lock().unwrap().len() >= 40).await;
    log.shutdown().await.unwrap();
    sinks.finish(Duration::from_secs(10)).await;
    assert_eq!(*arrived.lock().unwrap(), place.lines(), "each once, in order, as exported");
    let standing = &sinks.standing()[0];
    assert!(standing.failures >= 6 && standing.lag_records == 0 && standing.state == "ok", "{standing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_goes_on_at_its_cursor_after_a_restart() {
    let (place, pki) = (Place::new(), Pki::new());
    let arrived = Arrived::default();
    let server = https(&pki, 0, taking(&arrived)).await;
    let settings = sink("hook", "batch_records = 3", &webhook(&pki, server.port, ""));
    for round in 0..3 {
        let log = place.open();
        let sinks = place.start(&log, &settings);
        notes(&log, round * 10..round * 10 + 10).await;
        log.shutdown().await.unwrap();
        sinks.finish(Duration::from_secs(30)).await;
    }
    assert_eq!(*arrived.lock().unwrap(), place.lines(), "each once");
    let cursor = Cursor::load(&place.log_dir(), "hook").unwrap().unwrap();
    assert_eq!((cursor.next, cursor.needs()), (30, 29));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrived_without_its_cursor_being_moved_arrives_again_and_nothing_is_left_out() {
    let (place, pki) = (Place::new(), Pki::new());
    let arrived = Arrived::default();
    let server = https(&pki, 0, taking(&arrived)).await;
    let settings = sink("hook", "batch_records = 4", &webhook(&pki, server.port, ""));
    let log = place.open();
    notes(&log, 0..10).await;
    // As if the node had been killed after batches had arrived, before its cursor said so.
    for put_back_to in [0, 4, 7] {
        let sinks = place.start(&log, &settings);
        until("all arrived", || sinks.standing()[0].next >= 10).await;
        sinks.finish(Duration::from_secs(30)).await;
        Cursor::at(log.origin(), put_back_to, None).store(&place.log_dir(), "hook").unwrap();
    }
    let sinks = place.start(&log, &settings);
    until("all are acknowledged", || sinks.standing()[0].next >= 10).await;
    let (lines, arrived) = (place.lines(), arrived.lock().unwrap());
    let first_seen: Vec<&String> = lines.iter().filter(|line| arrived.contains(line)).collect();
    assert_eq!((first_seen.len(), arrived.len()), (10, 10 + 10 + 6 + 3));
    let mut known = 0;
    for line in arrived.iter() {
        let index = lines.iter().position(|known| known == line).unwrap();
        assert!(index <= known, "record {index} came before record {known}");
        known = known.max(index + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_sink_holds_up_neither_the_log_nor_another_sink() {
    let (place, pki) = (Place::new(), Pki::new());
    let hangs: Script = Arc::new(|_: &Seen| Does::Hangs);
    let server = https(&pki, 0, hangs).await;
    let log = place.open();
    let hung =
        sink("hung", "deadline_ms = 600000\nmax_lag_records = 100\non_lag = \"stop\"", &webhook(&pki, server.port, ""));
    let fine = sink("fine", "", "file]\npath = \"fine.jsonl\"\n");
    let sinks = place.start(&log, &(hung + &fine));
    notes(&log, 0..500).await;
    until("the other has all", || sinks.standing()[1].next >= 500).await;
    until("it asks for its step", || sinks.step() == Some(OnLag::Stop)).await;
    let standing = &sinks.standing()[0];
    assert!(standing.behind && standing.next == 0 && standing.lag_records >= 500, "{standing:?}");
    assert!(!sinks.admits(Level::Standard) && !sinks.admits(Level::Relaxed));
    assert_eq!(sinks.lowest_needed(), Some(0));
    until("it is recorded", || place.events("sink_behind").len() == 1).await;

    // Somebody looks after it: it is let off what it does not get.
    let to = log.records();
    sinks.reset("hung", to).await.unwrap();
    until("it is behind no more", || sinks.step().is_none() && place.events("sink_caught_up").len() == 1).await;
    assert!(sinks.admits(Level::Relaxed) && sinks.lowest_needed() >= Some(to - 1));
    let written = || std::fs::read_to_string(place.dir.path().join("fine.jsonl")).unwrap();
    until("the file has the events, too", || written().contains("sink_caught_up")).await;
    log.shutdown().await.unwrap();
    sinks.finish(Duration::from_millis(200)).await;
    let lines = place.lines();
    assert!(written().lines().eq(lines.iter().take(written().lines().count())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_is_put_back_or_forward_when_asked_and_that_is_recorded() {
    let (place, pki) = (Place::new(), Pki::new());
    let arrived = Arrived::default();
    let server = https(&pki, 0, taking(&arrived)).await;
    let log = place.open();
    notes(&log, 0..6).await;
    let only = "kinds = [\"event\"]\nbatch_records = 2";
    let sinks = place.start(&log, &sink("hook", only, &webhook(&pki, server.port, "")));
    until("all arrived", || sinks.standing()[0].next == 6).await;
    sinks.reset("hook", 2).await.unwrap();
    until("some arrived again", || arrived.lock().unwrap().len() >= 11).await;
    let lines = place.lines();
    let expected: Vec<&String> = lines[..6].iter().chain(&lines[2..7]).collect();
    assert_eq!(arrived.lock().unwrap().iter().collect::<Vec<_>>(), expected);
    assert!(lines[6].contains("sink=hook from=6 to=2 reason=asked"), "{}", lines[6]);
    assert!(matches!(sinks.reset("hook", 8).await, Err(SinkError::Beyond { to: 8, records: 7 })));
    assert!(matches!(sinks.reset("hok", 1).await, Err(SinkError::Unknown { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_of_another_log_begins_anew_and_that_is_recorded() {
    let (place, pki) = (Place::new(), Pki::new());
    let arrived = Arrived::default();
    let server = https(&pki, 0, taking(&arrived)).await;
    let settings = sink("hook", "", &webhook(&pki, server.port, ""));
    let log = place.open();
    notes(&log, 0..5).await;
    let sinks = place.start(&log, &settings);
    until("all arrived", || sinks.standing()[0].next == 5).await;
    log.shutdown().await.unwrap();
    sinks.finish(Duration::from_secs(10)).await;
    let cursor = Cursor::load(&place.log_dir(), "hook").unwrap().unwrap();
    drop((sinks, log));

    // A log of the same name and length, but another one.
    std::fs::remove_dir_all(place.log_dir()).unwrap();
    let log = place.open();
    notes(&log, 5..10).await;
    cursor.store(&place.log_dir(), "hook").unwrap();
    arrived.lock().unwrap().clear();
    let sinks = place.start(&log, &settings);
    until("all of it arrived", || arrived.lock().unwrap().len() >= 6).await;
    assert_eq!(*arrived.lock().unwrap(), place.lines());
    let told = place.events("sink_cursor_reset");
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("from=5 to=0 reason=the log has another record in its place"), "{told:?}");
    drop(sinks);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_was_down_and_up_again_is_in_the_log_and_does_not_feed_itself() {
    let (place, pki) = (Place::new(), Pki::new());
    let (arrived, failing) = (Arrived::default(), Arc::new(AtomicUsize::new(1)));
    let script: Script = Arc::new({
        let (arrived, failing) = (arrived.clone(), failing.clone());
        move |seen: &Seen| {
            if failing.load(SeqCst) == 1 {
                return Does::Answers(500, vec![], "<b>words of theirs</b>".into());
            }
            keep(&arrived, &seen.body);
            Does::status(200)
        }
    });
    let server = https(&pki, 0, script).await;
    let log = place.open();
    notes(&log, 0..1).await;
    let sinks = place.start(&log, &sink("hook", "", &webhook(&pki, server.port, "")));
    until("it is known to be down", || place.events("sink_down").len() == 1).await;
    failing.store(0, SeqCst);
    until("it is known to be up", || place.events("sink_up").len() == 1).await;
    until("that arrived as well", || arrived.lock().unwrap().len() == 3).await;
    assert_eq!(*arrived.lock().unwrap(), place.lines());
    let down = &place.events("sink_down")[0];
    assert!(down.contains("sink=hook next=0") && down.contains("answered 500"), "{down}");
    assert!(!down.contains("words of theirs"), "what a server says does not get into the log");
    drop(sinks);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_gets_what_its_filter_takes_from_where_it_was_to_begin() {
    let (place, pki) = (Place::new(), Pki::new());
    let arrived = Arrived::default();
    let server = https(&pki, 0, taking(&arrived)).await;
    let log = place.open();
    notes(&log, 0..5).await;
    let to = webhook(&pki, server.port, "");
    let settings = [
        sink("late", "from = \"now\"\nkinds = [\"event\", \"stop\"]", &to),
        sink("never", "tenants = [\"t_0123456789abcdef\"]", &to),
    ];
    let sinks = place.start(&log, &settings.concat());
    log.note(Note::Start { version: "1".into(), detail: "not asked for".into() }).await.unwrap();
    notes(&log, 5..7).await;
    log.note(Note::Stop { reason: "over".into() }).await.unwrap();
    log.shutdown().await.unwrap();
    sinks.finish(Duration::from_secs(10)).await;
    let lines = place.lines();
    assert_eq!(*arrived.lock().unwrap(), [&lines[6..8], &lines[8..9]].concat());
    for name in ["late", "never"] {
        assert_eq!(Cursor::load(&place.log_dir(), name).unwrap().unwrap().next, 9, "{name}");
    }
}
