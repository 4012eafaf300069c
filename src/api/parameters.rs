//! Refuses query parameters that an endpoint does not know.
//!
//! A publisher that writes `?topics=ops` means one topic. If its parameter were ignored, the event
//! would reach everybody. So a POST or DELETE with a parameter that its endpoint does not know is
//! refused. The URL of a GET may carry parameters that are for others (`?utm_source=…`, a number
//! against caches). They are ignored, but for names that look like one of ours: a client that asks for
//! `?channel=ops` would wait for events that never come.

use super::Problem;
use super::routes::CLIENT;
use crate::http::Request;

/// The credential of a stream, known to every endpoint.
const TOKEN: &str = "token";

/// Names that other servers have for ours.
const ALIASES: [(&str, &str); 1] = [("channel", "topic")];

/// Refuses a request whose parameters are not those of its endpoint.
///
/// # Errors
///
/// 400: a parameter is unknown and has an effect that is not the intended one, is there twice, or has
/// a broken percent-encoding. The encoding of a parameter that is not ours is not checked.
pub(super) fn check(known: &[&'static str], request: &Request) -> Result<(), Problem> {
    let is_strict = matches!(request.method(), "POST" | "DELETE");
    if known.is_empty() && !is_strict {
        return Ok(());
    }
    for parameter in request.parameters() {
        let name = parameter.name;
        // A token that is not looked at, or not found under its name, is answered 401 where one is
        // needed. A cursor is opaque: the stream reports a cursor that cannot be read as unknown.
        let is_token = name == TOKEN;
        if is_token && parameter.fault.is_none() || !is_strict && is_cursor(name) {
            continue;
        }
        if !is_token && !known.contains(&name) {
            let meant = meant(name, known);
            if is_strict || meant.is_some() {
                return Err(unknown(request, name, known, meant));
            }
            continue;
        }
        if let Some(fault) = parameter.fault {
            return Err(Problem::new(400, format!("the parameter {name}: {fault}")));
        }
        // The topics of the query are counted with the one in the path, by `publish::one_topic`.
        if is_strict && name != "topic" && request.queries(name).nth(1).is_some() {
            let what = format!("the parameter {name} is there more than once");
            return Err(Problem::new(400, what));
        }
    }
    Ok(())
}

/// Whether a parameter is the cursor: `last_event_id`, as this server and its clients write it, and
/// as others do: `lastEventId` (`event-source-polyfill`), `Last-Event-ID`.
pub(super) fn is_cursor(name: &str) -> bool {
    bare(name) == "lasteventid"
}

/// The parameter of the endpoint that this name is a misspelling of.
fn meant(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let bare_name = bare(name);
    let own = ALIASES.iter().find(|(alias, _)| *alias == bare_name);
    let bare_name = own.map_or(&*bare_name, |(_, own)| own);
    known.iter().find(|known| bare(known) == bare_name).copied()
}

/// A name without what is easily taken for another: its case, `_` and `-`, a plural's `s`, and the
/// brackets that some libraries write after the names of lists.
fn bare(name: &str) -> String {
    let stem = name.split('[').next().unwrap_or_default();
    let letters = stem.chars().filter(char::is_ascii_alphanumeric);
    let mut bare: String = letters.map(|letter| letter.to_ascii_lowercase()).collect();
    if bare.ends_with('s') {
        bare.pop();
    }
    bare
}

fn unknown(request: &Request, name: &str, known: &[&str], meant: Option<&str>) -> Problem {
    // LIMIT: what is quoted.
    let name: String = name.chars().take(80).collect();
    let hint = match meant {
        Some(meant) => format!("; use {meant}"),
        None if name == "id" && request.path().starts_with(CLIENT) => {
            "; an event for one client is not kept, so it cannot have an id to resume from".into()
        }
        None => String::new(),
    };
    let list = match known {
        [] => "no parameters".to_owned(),
        known => format!("only {}", known.join(", ")),
    };
    let method = request.method();
    let what = format!("the parameter {name:?} is not known: {method} has {list} here{hint}");
    Problem::new(400, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_looks_like_one_of_ours_is_found() {
        let known = ["topic", "last_event_id", "client_id", "heartbeat"];
        for (name, expected) in [
            ("topics", Some("topic")),
            ("Topic", Some("topic")),
            ("TOPICS", Some("topic")),
            ("topic[]", Some("topic")),
            ("topics[0]", Some("topic")),
            ("topic ", Some("topic")),
            ("channel", Some("topic")),
            ("Channels[]", Some("topic")),
            ("clientId", Some("client_id")),
            ("client-id", Some("client_id")),
            ("heart_beat", Some("heartbeat")),
            ("lastEventId", Some("last_event_id")),
            ("", None),
            ("[]", None),
            ("s", None),
            ("utm_source", None),
            ("topical", None),
            ("my_topic", None),
            ("_", None),
            ("клиент", None),
        ] {
            assert_eq!(meant(name, &known), expected, "{name:?}");
        }
    }
}
