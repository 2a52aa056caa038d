//! The regular expressions of a JSON Schema: how long a document can be that is compared with them. Owns that
//! limit; compiles expressions only to measure them.
//!
//! The time of an expression without look-around is linear in the text, but the factor can be as large as
//! the expression: a state of its automaton for each repetition, `(a{1,500}){1,20}` has 10,000. Most
//! expressions have a small deterministic automaton, and one step for each byte. Those without count.

use jsonschema_regex::to_rust_regex;
use regex_automata::{
    dfa::{dense, regex::Regex},
    nfa::thompson::{NFA, WhichCaptures},
    util::syntax,
};
use serde_json::Value;

/// Approximate maximum size of a compiled regular expression, and of its cache in each thread.
pub(crate) const MAX_REGEX_BYTES: usize = 1 << 20;
/// Memory of a deterministic automaton, and of its construction. Less than the cache that an expression has
/// when texts are compared with it.
const MAX_AUTOMATON_BYTES: usize = 256 << 10;
const MAX_CONSTRUCTION_BYTES: usize = 1 << 20;
/// Expressions without one that are tried; all further ones are counted without a try.
const MAX_TRIES: usize = 64;
/// Steps of automatons for one document: about half a second.
const MAX_STEPS: usize = 5_000_000;

/// Returns the length of the longest document, in bytes, that is compared with the expressions of a schema.
/// `None` if they do not limit it.
pub(crate) fn max_bytes(schema: &Value) -> Option<usize> {
    let (mut states, mut tries) = (0, 0);
    let mut pending = vec![schema];
    while let Some(value) = pending.pop() {
        match value {
            Value::Array(values) => pending.extend(values),
            Value::Object(table) => {
                pending.extend(table.values());
                let pattern = table.get("pattern").and_then(Value::as_str);
                let patterns = table.get("patternProperties").and_then(Value::as_object);
                let keys = patterns.into_iter().flat_map(|table| table.keys().map(String::as_str));
                for pattern in pattern.into_iter().chain(keys) {
                    if tries == MAX_TRIES || !has_small_automaton(pattern) {
                        tries = MAX_TRIES.min(tries + 1);
                        states += states_of(pattern);
                    }
                }
            }
            _ => {}
        }
    }
    (states > 0).then(|| MAX_STEPS / states)
}

/// Whether comparing a text takes one step for each byte, whatever the text.
fn has_small_automaton(pattern: &str) -> bool {
    let config = dense::Config::new()
        .dfa_size_limit(Some(MAX_AUTOMATON_BYTES))
        .determinize_size_limit(Some(MAX_CONSTRUCTION_BYTES));
    // both directions: a text can be searched from its end
    to_rust_regex(pattern).is_ok_and(|pattern| Regex::builder().dense(config).build(&pattern).is_ok())
}

/// Returns the number of states that can be looked at for each byte.
fn states_of(pattern: &str) -> usize {
    let config = NFA::config().which_captures(WhichCaptures::None).nfa_size_limit(Some(MAX_REGEX_BYTES));
    let compile = |pattern: &str| {
        NFA::compiler().configure(config.clone()).syntax(syntax::Config::new()).build(pattern).ok()
    };
    // one that this compiler refuses is no worse than the largest
    let nfa = to_rust_regex(pattern).ok().and_then(|pattern| compile(&pattern));
    nfa.map_or(MAX_REGEX_BYTES / 32, |nfa| nfa.states().len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_expressions_without_a_small_automaton_limit_documents() {
        for pattern in [
            "^[a-z]{1,64}(/[a-z]{1,64}){0,10}$",
            "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
            r"^\w+([.-]\w+)*@\w+([.-]\w+)*\.\w{2,4}$",
            r"^\d{1,3}(\.\d{1,3}){3}$",
            "^(a|aa)+$",
            "warn|error",
            "^.{1,100}$",
        ] {
            assert_eq!(max_bytes(&json!({"pattern": pattern})), None, "{pattern}");
        }
        for (pattern, expected) in [("^(a*)*(a{1,500}){1,20}$", 50..500), ("a[ab]{100}$", 10_000..100_000)] {
            let bytes = max_bytes(&json!({"items": {"pattern": pattern}})).unwrap();
            assert!(expected.contains(&bytes), "{pattern}: {bytes}");
            let keys = json!({"properties": {"a": {"patternProperties": {pattern: true}}}});
            assert_eq!(max_bytes(&keys), Some(bytes), "{pattern}");
        }
    }
}
