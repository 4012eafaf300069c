//! Turns the body of a `POST` into events, and ends the stream of a client.
//!
//! | request | body | the event |
//! |---|---|---|
//! | `POST /events?event=tick` | `{"n":1}` | `event: tick`, `data: {"n":1}`: the body is never parsed |
//! | the same, as NDJSON | `1`, line break, `2` | two events `tick`, with the data `1` and `2` |
//! | `POST /broadcast` | `{"event":"tick","n":1}` | `event: tick`, `data: {"event":"tick","n":1}` |
//! | `POST /send` | `{"_event":"tick","n":1}` | `event: tick`, `data: {"n":1}` |
//! | `POST /clients/ID` | `psst` | `data: psst`, for this client only |
//!
//! `mod.rs` has checked the right to publish, the parameters and the type of the body
//! before these functions are called. Each of them publishes all of its events or none,
//! and answers when they are published: with a journal, when they are on the disk.
//!
//! A body of some bytes can become many more bytes of events: 10,000 lines of one digit
//! each, with a long name. So the events are counted before they are built, per request
//! and for all requests together: [`Api::reserve_events`].

use std::fmt::Write;
use std::time::Duration;

#[cfg(feature = "access")]
use super::user_in_path;
use super::{Answer, Api, Problem, client_id_in_path, topics};
use crate::config::{EVENT_OVERHEAD, EVENTS_PER_REQUEST, ID_BYTES};
use crate::http::{NO_ROOM, Request, Response, Share};
use crate::hub::{ClientId, Published, SendError};
#[cfg(feature = "access")]
use crate::wire::Quoted;
use crate::wire::json::{self, Document};
use crate::wire::{Event, Topic};

impl Api {
    /// `POST /events`: the body is the data of one event. If it is NDJSON, each line is
    /// the data of an event.
    pub(super) fn publish(&self, request: &Request, topic: Option<Topic>) -> Answer {
        let body = text(request)?;
        let template = named_by_query(request)?.with_topic(topic);
        if is_ndjson(content_type(request)?.0) {
            return self.publish_lines(request, body, &template);
        }
        let mut event = template.with_data(body);
        if let Some(id) = request.query("id") {
            event = event.with_id(id)?;
        }
        self.publish_one(event)
    }

    /// Publishes one event. Blocks as [`Hub::publish`](crate::Hub::publish) does.
    fn publish_one(&self, event: Event) -> Answer {
        let _share = self.reserve_events(size(&event))?;
        let published = self.hub.publish(event)?;
        Ok(ok(&published))
    }

    /// Publishes each line of NDJSON as an event: a copy of `template` with the line as
    /// its data. Empty lines are skipped. All lines are checked before the first one is
    /// published, so an error publishes nothing.
    fn publish_lines(&self, request: &Request, body: &str, template: &Event) -> Answer {
        if request.query("id").is_some() {
            let what = "the parameter id cannot be used with NDJSON, because all events would have the same id";
            return Err(Problem::new(400, what));
        }
        // A body may be several files one after the other, and each file may begin with a
        // byte order mark.
        let lines = body
            .lines()
            .map(without_mark)
            .enumerate()
            .filter(|(_, line)| !line.trim_ascii().is_empty());
        // LIMIT: lines, and so events, of one request. Empty lines before the last event
        // count too.
        if let Some((number, _)) = lines.clone().last()
            && number >= EVENTS_PER_REQUEST
        {
            let what = format!(
                "the body has more than {EVENTS_PER_REQUEST} lines: send them in several requests; nothing was published"
            );
            return Err(Problem::new(413, what));
        }
        let of_each = size(template);
        let bytes = lines.clone().map(|(_, line)| of_each + line.len());
        let _share = self.reserve_events(bytes.sum())?;
        let events = lines.map(|(number, line)| {
            let document = Document::parse(line).map_err(|error| {
                let what = format!("line {}: {error}; nothing was published", number + 1);
                Problem::new(400, what)
            })?;
            Ok(template.clone().with_data(document.into_string()))
        });
        let events = events.collect::<Result<Vec<_>, Problem>>()?;
        // LIMIT: the list of ids may be larger than the request. ORDER: its memory is
        // reserved before anything is published, because afterwards the request could not
        // be refused any more.
        let bytes = (events.len() + 3) * ID_BYTES;
        let Some(share) = request.reserve_answer(bytes, Duration::ZERO) else {
            let what = format!("{NO_ROOM}; nothing was published");
            return Err(Problem::new(503, what));
        };
        let published = self.hub.publish_all(events)?;
        let Some(last) = published.last() else {
            return Err(Problem::new(
                400,
                "the body has no line that is not empty, so there is no event to publish",
            ));
        };
        let mut text = String::with_capacity(bytes);
        text.push_str(r#"{"status":"ok","ids":"#);
        for (index, published) in published.iter().enumerate() {
            let before = if index == 0 { '[' } else { ',' };
            write!(text, "{before}\"{}\"", published.id).expect(NO_ERROR);
        }
        write!(text, "],\"recipients\":{}}}", last.recipients).expect(NO_ERROR);
        Ok(Response::json(200, text).reserved(share))
    }

    /// Reserves memory for the events of one request, which are `bytes` as [`size`]
    /// counts them. Waits until other requests have published their events, if all
    /// together are over the limit.
    ///
    /// # Errors
    ///
    /// 413: the events are larger than one request may have.
    fn reserve_events(&self, bytes: usize) -> Result<Share, Problem> {
        let limit = self.config.most_event_bytes();
        if bytes > limit {
            let what = format!(
                "the events of this request are {bytes} bytes, each counted with its name, its topic and \
                 {EVENT_OVERHEAD} bytes more; the limit is {limit} bytes (four times --max-body, at least 64 KiB): \
                 send them in several requests; nothing was published"
            );
            return Err(Problem::new(413, what));
        }
        Ok(self.event_budget.wait_for(bytes))
    }

    /// `POST /broadcast`: the object is the data, and its member `event` is the name of
    /// the event, if it is a string.
    pub(super) fn broadcast(&self, request: &Request, topic: Option<Topic>) -> Answer {
        let object = object(request)?;
        // A number or an object there is ordinary data, not a name.
        let name = object.member("event").filter(|name| name.starts_with('"'));
        let event = named_by("event", name)?.with_topic(topic);
        self.publish_one(event.with_data(object.into_string()))
    }

    /// `POST /send`: the member `_event` is the name of the event, and the rest of the
    /// object is the data.
    pub(super) fn send(&self, request: &Request, topic: Option<Topic>) -> Answer {
        let object = object(request)?;
        let event = named_by("_event", object.member("_event"))?.with_topic(topic);
        self.publish_one(event.with_data(object.without("_event")))
    }

    /// `POST /clients/{client_id}`: sends an event to one client. The event is not in the
    /// history.
    pub(super) fn send_to_client(&self, request: &Request, _: Option<Topic>) -> Answer {
        let client_id = client_id(request)?;
        let event = named_by_query(request)?.with_data(text(request)?);
        let _share = self.reserve_events(size(&event))?;
        match self.hub.send_to(client_id.as_str(), &event) {
            Err(SendError::NoSuchClient) => Err(no_client(&client_id)),
            published => Ok(ok(&published?)),
        }
    }

    /// `DELETE /clients/{client_id}`: ends the stream of a client, which receives a close
    /// event first.
    pub(super) fn disconnect(&self, request: &Request, _: Option<Topic>) -> Answer {
        let client_id = client_id(request)?;
        match self.hub.disconnect(client_id.as_str()) {
            true => Ok(Response::json(200, r#"{"status":"ok"}"#)),
            false => Err(no_client(&client_id)),
        }
    }

    /// `DELETE /users/{user}`: ends all streams and waiting polls of a user. Each stream
    /// receives a close event first.
    #[cfg(feature = "access")]
    pub(super) fn disconnect_user(&self, request: &Request, _: Option<Topic>) -> Answer {
        let user = user_in_path(request);
        match self.hub.disconnect_user(user) {
            0 => {
                let what = format!("no client is connected as the user {:?}", Quoted(user));
                Err(Problem::new(404, what))
            }
            ended => {
                let text = format!(r#"{{"status":"ok","ended":{ended}}}"#);
                Ok(Response::json(200, text))
            }
        }
    }
}

/// The answer to a publisher: the id that the event has on the wire, and the number of
/// clients that get it now.
fn ok(published: &Published) -> Response {
    let mut text = String::with_capacity(96);
    text.push_str(r#"{"status":"ok","id":"#);
    match &published.own_id {
        Some(id) => json::quote(id, &mut text),
        None => write!(text, "\"{}\"", published.id).expect(NO_ERROR),
    }
    write!(text, ",\"recipients\":{}}}", published.recipients).expect(NO_ERROR);
    Response::json(200, text)
}

const NO_ERROR: &str = "BUG: a String refuses text";

/// 404 for a well-formed id that no client has.
fn no_client(client_id: &ClientId) -> Problem {
    let what = format!("no client has the id {:?}", client_id.as_str());
    Problem::new(404, what)
}

/// Returns the bytes that an event takes in memory and on the wire, without encoding it.
/// Each line of the data becomes a field `data: …`, so an event of many empty lines is
/// eight times as long as its data.
fn size(event: &Event) -> usize {
    let data = event.data().as_bytes();
    let breaks = data.iter().filter(|byte| matches!(byte, b'\n' | b'\r'));
    let fields = (breaks.count() + 1) * "data: \n".len();
    let name = event.name().map_or(0, str::len);
    let id = event.id().map_or(0, str::len);
    // The topic is not on the wire, but the journal writes it with each event.
    let topic = event.topic().map_or(0, |topic| topic.as_str().len());
    EVENT_OVERHEAD + name + id + topic + data.len() + fields
}

/// Returns the client id in the path. 404 if it is malformed, because then no client has
/// it.
fn client_id(request: &Request) -> Result<ClientId, Problem> {
    let client_id = client_id_in_path(request).parse();
    client_id.map_err(|error| Problem::new(404, error))
}

/// Returns the topic in the path or in the query. 400 if there are two, because an event
/// has at most one.
pub(super) fn one_topic(request: &Request) -> Result<Option<Topic>, Problem> {
    let mut topics = topics(request);
    let topic = topics.next().map(Topic::new).transpose()?;
    match topics.next() {
        Some(second) => {
            let what = format!("an event has one topic, and {second:?} is a second one");
            Err(Problem::new(400, what))
        }
        None => Ok(topic),
    }
}

/// An event without data, with the `event` and `retry` of the query.
fn named_by_query(request: &Request) -> Result<Event, Problem> {
    let mut event = Event::default();
    if let Some(name) = request.query("event") {
        event = event.with_name(name)?;
    }
    if let Some(retry) = request.query("retry") {
        event = event.with_retry_of(retry)?;
    }
    Ok(event)
}

/// An event without data. Its name is the value of a member of an object, which must be a
/// string. `None`: the object has no such member, and the event has no name.
fn named_by(member: &str, value: Option<&str>) -> Result<Event, Problem> {
    let Some(value) = value else {
        return Ok(Event::default());
    };
    let name = json::unquote(value).ok_or_else(|| {
        let what = format!("the member {member:?} must be a string of Unicode text");
        Problem::new(400, what)
    })?;
    Ok(Event::default().with_name(name)?)
}

/// Checks by the head of a request whether its body can be published.
///
/// # Errors
///
/// 415: the body is compressed, a multipart form, or not UTF-8. 400: one of the fields is
/// there more than once.
pub(super) fn check_type(request: &Request) -> Result<(), Problem> {
    let coding = request.field("content-encoding")?;
    let (media_type, charset) = content_type(request)?;
    let is_multipart = media_type
        .get(..10)
        .is_some_and(|start| start.eq_ignore_ascii_case("multipart/"));
    let what = if let Some(coding) = coding.filter(|coding| !is_any(coding, &["identity"])) {
        format!("Content-Encoding is {coding:?}, only \"identity\" is understood")
    } else if let Some(charset) = charset.filter(|charset| !is_any(charset, &UTF_8)) {
        let charset = charset.to_ascii_lowercase();
        format!("the charset is {charset:?}, only \"utf-8\" is understood")
    } else if is_multipart {
        // `application/x-www-form-urlencoded`, the type of the other forms, is accepted:
        // `curl -d` sends it for any data.
        format!(
            "the body is {}, and its boundaries would be published with its parts: send the \
             data itself as the body (curl --data-binary @FILE, or in a page fetch(url, {{ method: \
             'POST', body: text }}))",
            media_type.to_ascii_lowercase()
        )
    } else {
        return Ok(());
    };
    Err(Problem::new(415, what))
}

/// Returns the body as text, without a copy. 400 if it is not UTF-8.
fn text(request: &Request) -> Result<&str, Problem> {
    std::str::from_utf8(request.body()).map_err(|error| {
        let what = format!("the body is not UTF-8: byte {}", error.valid_up_to());
        Problem::new(400, what)
    })
}

/// The charsets that are accepted: UTF-8 under both of its names, and ASCII, which is a
/// part of UTF-8.
const UTF_8: [&str; 3] = ["utf-8", "utf8", "us-ascii"];

/// The names of newline-delimited JSON, without the `x-` that some libraries add. No name
/// is registered, so libraries differ: some use a suffix
/// (`application/vnd.elasticsearch+x-ndjson`), and Docker, Spring and line-delimited JSON
/// have older names. `application/json-seq` is another format.
const NDJSON: [&str; 7] = [
    "ndjson",
    "nd-json",
    "jsonl",
    "jsonlines",
    "json-lines",
    "json-stream",
    "ldjson",
];

/// Whether a media type is one of newline-delimited JSON, under `application` or `text`.
fn is_ndjson(media_type: &str) -> bool {
    let (kind, subtype) = media_type.split_once('/').unwrap_or_default();
    let suffix = subtype.rsplit('+').next().unwrap_or_default();
    let name = match suffix.split_at_checked(2) {
        Some(("x-" | "X-", name)) => name,
        _ => suffix,
    };
    is_any(kind, &["application", "text"])
        && (is_any(name, &NDJSON) || is_any(subtype, &["stream+json"]))
}

/// Whether a word is one of these. Case is ignored: media types, charsets and codings
/// have none.
fn is_any(word: &str, words: &[&str]) -> bool {
    words.iter().any(|own| own.eq_ignore_ascii_case(word))
}

/// Returns the media type of the body, or an empty text, and the charset if the field has
/// one.
///
/// SPEC: RFC 9110, 8.3.1: `media-type = type "/" subtype *( OWS ";" OWS parameter )`,
/// `parameter = name "=" ( token / quoted-string )`. A quoted charset with an escape in
/// it is not understood, and no charset has one.
fn content_type(request: &Request) -> Result<(&str, Option<&str>), Problem> {
    let value = request.field("content-type")?.unwrap_or_default();
    let mut parts = value.split(';').map(str::trim_ascii);
    let media_type = parts.next().unwrap_or_default();
    let charset = parts.find_map(|part| {
        let (name, charset) = part.split_once('=')?;
        is_any(name, &["charset"]).then(|| charset.trim_matches('"'))
    });
    Ok((media_type, charset))
}

/// Removes the byte order mark that editors and shells of Windows write at the beginning
/// of a text.
///
/// SPEC: RFC 8259, 8.1: a parser of JSON may ignore it.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Parses the body as a JSON object. 400 if it is malformed, or another value.
fn object(request: &Request) -> Result<Document, Problem> {
    let document = Document::parse(without_mark(text(request)?))?;
    match document.is_object() {
        true => Ok(document),
        false => Err(Problem::new(400, "the body is JSON, but not an object")),
    }
}
