//! Refuses query parameters that an endpoint does not know, so that a misspelled one has
//! no surprising effect.
//!
//! A publisher that sends `?topics=ops` means the topic `ops`. If the server ignored the
//! parameter, the event would reach every client. So a POST or DELETE with any unknown
//! parameter is refused. The URL of a GET may have parameters for other programs
//! (`?utm_source=…`, a number against caches). These are ignored, except names that look
//! like a parameter of the endpoint: a client that asks for `?channel=ops` would wait for
//! events that never come.
//!
//! | request | answer |
//! |---|---|
//! | `POST /events?topics=ops` | 400, use topic |
//! | `POST /events?x=1` | 400 |
//! | `GET /events?topics[]=ops` | 400, use topic |
//! | `GET /events?utm_source=x` | 200, the parameter is ignored |
//!
//! The values are checked by the function of the endpoint.

use super::Problem;
use super::routes::CLIENT;
use crate::http::Request;

/// The parameter that carries the token of a stream. Every endpoint knows it.
const TOKEN: &str = "token";

/// Names that other servers use for a parameter, in the form of [`normalized`], and the
/// name that this server uses.
const ALIASES: [(&str, &str); 1] = [("channel", "topic")];

/// Checks the names and the encoding of the parameters of a request. `known` are the
/// parameters of its endpoint.
///
/// # Errors
///
/// 400: a parameter is unknown and not ignored, a POST or DELETE has a parameter twice,
/// or the percent-encoding of a known parameter is malformed.
pub(super) fn check(known: &[&'static str], request: &Request) -> Result<(), Problem> {
    let is_strict = matches!(request.method(), "POST" | "DELETE");
    if known.is_empty() && !is_strict {
        return Ok(());
    }
    for parameter in request.parameters() {
        let name = parameter.name;
        // A token here needs no check: where a token is needed and none is found, the
        // answer is 401. A cursor is opaque: if it is malformed, the stream reports that
        // it is unknown.
        let is_token = name == TOKEN;
        if is_token && parameter.fault.is_none() || !is_strict && is_cursor(name) {
            continue;
        }
        if !is_token && !known.contains(&name) {
            let similar = similar(name, known);
            if is_strict || similar.is_some() {
                return Err(unknown(request, name, known, similar));
            }
            continue;
        }
        if let Some(fault) = parameter.fault {
            return Err(Problem::new(400, format!("the parameter {name}: {fault}")));
        }
        // `publish::one_topic` counts the topics of the query together with the topic in
        // the path.
        if is_strict && name != "topic" && request.queries(name).nth(1).is_some() {
            let what = format!("the parameter {name} is there more than once");
            return Err(Problem::new(400, what));
        }
    }
    Ok(())
}

/// Whether a parameter is the cursor: `last_event_id`, as this server and its clients
/// write it, or another spelling, such as `lastEventId` (`event-source-polyfill`) or
/// `Last-Event-ID`.
pub(super) fn is_cursor(name: &str) -> bool {
    normalized(name) == "lasteventid"
}

/// Returns the known parameter that this name is probably a misspelling of.
fn similar(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let name = normalized(name);
    let own = ALIASES.iter().find(|(alias, _)| *alias == name);
    let name = own.map_or(&*name, |(_, own)| own);
    known
        .iter()
        .find(|known| normalized(known) == name)
        .copied()
}

/// Returns a name in the form in which misspellings are equal: in lower case, without `_`
/// and `-`, without the `s` of a plural, and without the brackets that some libraries
/// write after the names of lists. `Client-IDs[]` becomes `clientid`.
fn normalized(name: &str) -> String {
    let stem = name.split('[').next().unwrap_or_default();
    let letters = stem.chars().filter(char::is_ascii_alphanumeric);
    let mut name: String = letters.map(|letter| letter.to_ascii_lowercase()).collect();
    if name.ends_with('s') {
        name.pop();
    }
    name
}

/// 400 for an unknown parameter. Names the parameters of the endpoint, and the one that
/// was probably meant.
fn unknown(request: &Request, name: &str, known: &[&str], similar: Option<&str>) -> Problem {
    // LIMIT: the length of the quoted name.
    let name: String = name.chars().take(80).collect();
    let hint = match similar {
        Some(similar) => format!("; use {similar}"),
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
    fn a_misspelled_parameter_is_recognized() {
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
            assert_eq!(similar(name, &known), expected, "{name:?}");
        }
    }
}
