//! Every refusal is told and recorded as what it is.

use super::*;
use cofferdam_model::random::SeededRandom;

#[test]
fn a_failed_ending_keeps_its_name_through_the_refusal() {
    for ending in Ending::ALL.iter().copied() {
        let refusal = Refusal::of_ending(ending, None);
        match refusal {
            Refusal::Internal => assert_eq!(refusal.ending(), Ending::PlatformFailed),
            _ => assert_eq!(refusal.ending(), ending),
        }
        assert!(refusal.status().is_client_error() || refusal.status().is_server_error());
    }
}

#[test]
fn a_problem_document_names_code_request_and_source() {
    let request = RequestId::mint(&SeededRandom::new(1));
    let refusal = Refusal::FunctionTrapped;
    let document: serde_json::Value = serde_json::from_slice(&refusal.problem(&request)).unwrap();
    assert_eq!(document["type"], "urn:cofferdam:problem:function_trapped");
    assert_eq!(document["status"], 502);
    assert_eq!(document["source"], "function");
    assert_eq!(document["request_id"], request.as_str());
    assert_eq!(refusal.headers()[header::CONTENT_TYPE], "application/problem+json");
}

#[test]
fn retry_after_is_never_zero_and_rounds_up() {
    let after = |wait| Refusal::RateLimited { retry_after: wait }.headers()[header::RETRY_AFTER].clone();
    assert_eq!(after(Duration::ZERO), "1");
    assert_eq!(after(Duration::from_millis(1_001)), "2");
}
