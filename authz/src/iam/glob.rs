//! Patterns with `*` and `?`, as IAM has them.
//!
//! Owns their matching against what is known, and what is left of one once a known beginning was matched. Must never
//! treat a `?` as anything but one character.

/// Whether all of a text matches.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let places = after(&pattern, &text);
    places.iter().any(|place| pattern.get(*place..).is_some_and(|rest| rest.iter().all(|c| *c == '*')))
}

/// Patterns of which one must match whatever follows `beginning`, for the whole to match `pattern`.
pub(super) fn rests(pattern: &str, beginning: &str) -> Vec<String> {
    let (pattern, beginning): (Vec<char>, Vec<char>) = (pattern.chars().collect(), beginning.chars().collect());
    let mut rests: Vec<String> = after(&pattern, &beginning)
        .into_iter()
        .filter_map(|place| Some(pattern.get(place..)?.iter().collect()))
        .collect();
    rests.sort_unstable();
    rests.dedup();
    rests
}

/// Every place in the pattern that can be reached by a text; a place at a star goes on matching.
fn after(pattern: &[char], text: &[char]) -> Vec<usize> {
    let mut places = vec![0];
    for c in text {
        let mut next = Vec::new();
        for place in skipped(pattern, &places) {
            match pattern.get(place) {
                Some('*') => next.push(place),
                Some('?') => next.push(place + 1),
                Some(literal) if literal == c => next.push(place + 1),
                _ => {}
            }
        }
        next.sort_unstable();
        next.dedup();
        places = next;
    }
    places
}

/// The places with those behind stars, which may match nothing.
fn skipped(pattern: &[char], places: &[usize]) -> Vec<usize> {
    let mut all = Vec::new();
    for place in places {
        let mut place = *place;
        all.push(place);
        while pattern.get(place) == Some(&'*') {
            place += 1;
            all.push(place);
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// Whether a pattern is just a text.
pub(super) fn is_plain(pattern: &str) -> bool {
    !pattern.contains(['*', '?'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_match_anything_and_question_marks_one_character() {
        for (pattern, text, wanted) in [
            ("", "", true),
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*b*", "abc", true),
            ("a**", "a", true),
            ("abc", "ab", false),
            ("ab", "abc", false),
            ("*?", "", false),
        ] {
            assert_eq!(matches(pattern, text), wanted, "{pattern} {text}");
        }
    }

    #[test]
    fn what_is_left_of_a_pattern_matches_what_is_left_of_the_text() {
        assert_eq!(rests("function:or*", "function:"), ["or*"]);
        assert_eq!(rests("*", "function:"), ["*"]);
        assert_eq!(rests("func*:x", "function:"), ["*:x", "x"]);
        assert!(rests("layer:*", "function:").is_empty());
    }
}
