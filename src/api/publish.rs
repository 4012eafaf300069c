//! Everything that becomes an event: plain text, JSON whose member names it, lines of NDJSON, and
//! a word to one client.

use std::fmt::Write;
use std::time::Duration;

use super::{Answer, Api, Problem, name_in_path, topics};
use crate::config::{EVENT_OVERHEAD, EVENTS_PER_REQUEST, ID_BYTES};
use crate::http::{NO_ROOM, Request, Response, Share};
use crate::hub::{ClientId, Published, SendError};
use crate::wire::json::{self, Document};
use crate::wire::{Event, Topic};

impl Api {
    /// `POST /events`: the body is the data, or with NDJSON each line of it.
    pub(super) fn publish(&self, request: &Request, topic: Option<Topic>) -> Answer {
        let body = text(request)?;
        let model = named_by_query(request)?.with_topic(topic);
        if is_ndjson(content_type(request)?.0) {
            return self.publish_lines(request, body, &model);
        }
        let mut event = model.with_data(body);
        if let Some(id) = request.query("id") {
            event = event.with_id(id)?;
        }
        self.publish_one(event)
    }

    fn publish_one(&self, event: Event) -> Answer {
        let _permit = self.permit_events(size(&event))?;
        let published = self.hub.publish(event)?;
        Ok(ok(&published))
    }

    /// All lines or none: each is checked before the first is published. Each event is `model` with its line
    /// as the data.
    fn publish_lines(&self, request: &Request, body: &str, model: &Event) -> Answer {
        if request.query("id").is_some() {
            let what = "id cannot be the same for several events";
            return Err(Problem::new(400, what));
        }
        // If several files were joined, each may begin with a byte order mark.
        let lines = body
            .lines()
            .map(without_mark)
            .enumerate()
            .filter(|(_, line)| !line.trim_ascii().is_empty());
        // LIMIT: lines, and so events, of one request.
        if let Some((number, _)) = lines.clone().last()
            && number >= EVENTS_PER_REQUEST
        {
            let what = format!(
                "the body has more than {EVENTS_PER_REQUEST} lines: send them in several requests; nothing was published"
            );
            return Err(Problem::new(413, what));
        }
        let of_each = size(model);
        let bytes = lines.clone().map(|(_, line)| of_each + line.len());
        let _permit = self.permit_events(bytes.sum())?;
        let events = lines.map(|(number, line)| {
            let document = Document::parse(line).map_err(|error| {
                let what = format!("line {}: {error}; nothing was published", number + 1);
                Problem::new(400, what)
            })?;
            Ok(model.clone().with_data(document.into_string()))
        });
        let events = events.collect::<Result<Vec<_>, Problem>>()?;
        // LIMIT: the answer is larger than the request. ORDER: reserved before anything is published: then it
        // would be too late to refuse.
        let bytes = (events.len() + 3) * ID_BYTES;
        let Some(share) = request.reserve_answer(bytes, Duration::ZERO) else {
            let what = format!("{NO_ROOM}; nothing was published");
            return Err(Problem::new(503, what));
        };
        let published = self.hub.publish_all(events)?;
        let Some(last) = published.last() else {
            return Err(Problem::new(400, "the body has no line, and so no event"));
        };
        let mut text = String::with_capacity(bytes);
        text.push_str(r#"{"status":"ok","ids":"#);
        for (place, published) in published.iter().enumerate() {
            let before = if place == 0 { '[' } else { ',' };
            write!(text, "{before}\"{}\"", published.id).expect(NO_ERROR);
        }
        write!(text, "],\"recipients\":{}}}", last.recipients).expect(NO_ERROR);
        Ok(Response::json(200, text).reserved(share))
    }

    /// Waits until events of so many bytes may be made.
    ///
    /// # Errors
    ///
    /// 413: they are more than one request may have.
    fn permit_events(&self, bytes: usize) -> Result<Share, Problem> {
        let limit = self.config.most_event_bytes();
        if bytes > limit {
            let what = format!(
                "the events of this request come to {bytes} bytes, with their names, topics and \
                 {EVENT_OVERHEAD} bytes each; more than {limit} (four times --max-body) are not taken at \
                 once; nothing was published"
            );
            return Err(Problem::new(413, what));
        }
        Ok(self.events_in_making.wait_for(bytes))
    }

    /// `POST /broadcast`: the object, with its `event` naming the event, is the data.
    pub(super) fn broadcast(&self, request: &Request, topic: Option<Topic>) -> Answer {
        let object = object(request)?;
        // Another kind of value names nothing.
        let name = object.member("event").filter(|name| name.starts_with('"'));
        let event = named_by("event", name)?.with_topic(topic);
        self.publish_one(event.with_data(object.into_string()))
    }

    /// `POST /send`: the object without its `_event`, which names the event, is the data.
    pub(super) fn send(&self, request: &Request, topic: Option<Topic>) -> Answer {
        let object = object(request)?;
        let event = named_by("_event", object.member("_event"))?.with_topic(topic);
        self.publish_one(event.with_data(object.without("_event")))
    }

    /// `POST /clients/{client_id}`: an event for that client alone.
    pub(super) fn send_to_client(&self, request: &Request, _: Option<Topic>) -> Answer {
        let client_id = known_client(request)?;
        let event = named_by_query(request)?.with_data(text(request)?);
        let _permit = self.permit_events(size(&event))?;
        match self.hub.send_to(client_id.as_str(), &event) {
            Err(SendError::NoSuchClient) => Err(no_client(&client_id)),
            published => Ok(ok(&published?)),
        }
    }

    /// `DELETE /clients/{client_id}`: the end of its stream.
    pub(super) fn disconnect(&self, request: &Request, _: Option<Topic>) -> Answer {
        let client_id = known_client(request)?;
        match self.hub.disconnect(client_id.as_str()) {
            true => Ok(Response::json(200, r#"{"status":"ok"}"#)),
            false => Err(no_client(&client_id)),
        }
    }
}

/// The answer to a publisher: the id that went out on the wire, and the number of recipients.
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

fn no_client(client_id: &ClientId) -> Problem {
    let what = format!("no client has the id {:?}", client_id.as_str());
    Problem::new(404, what)
}

/// The cost of an event, computed without encoding it. Each line of its data is a field.
fn size(event: &Event) -> usize {
    let data = event.data().as_bytes();
    let breaks = data.iter().filter(|byte| matches!(byte, b'\n' | b'\r'));
    let fields = (breaks.count() + 1) * "data: \n".len();
    let name = event.name().map_or(0, str::len);
    let id = event.id().map_or(0, str::len);
    // The topic is not on the wire, but a journal writes it down with each event.
    let topic = event.topic().map_or(0, |topic| topic.as_str().len());
    EVENT_OVERHEAD + name + id + topic + data.len() + fields
}

/// The client in the path. What cannot be a client's id is the id of no client.
fn known_client(request: &Request) -> Result<ClientId, Problem> {
    let client_id = name_in_path(request).parse();
    client_id.map_err(|error| Problem::new(404, error))
}

/// The topic, from the path or from the query, but not two: an event has one.
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

/// An event without data, named by a member of an object, which must be a string.
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

/// Whether the body, as its fields describe it, is one that can be published: known by the head alone.
///
/// # Errors
///
/// 415: it is compressed, a form, or not UTF-8; 400: the fields contradict each other.
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
        // `application/x-www-form-urlencoded` is accepted, because `curl -d` sends this type for any data.
        format!(
            "the body is {}, whose parts and boundaries would be published as they are: send the \
             data itself as the body (curl --data-binary @FILE, or in a page fetch(url, {{ method: \
             'POST', body: text }}))",
            media_type.to_ascii_lowercase()
        )
    } else {
        return Ok(());
    };
    Err(Problem::new(415, what))
}

/// The body as text, if that is what it is.
fn text(request: &Request) -> Result<&str, Problem> {
    std::str::from_utf8(request.body()).map_err(|error| {
        let what = format!("the body is not UTF-8: byte {}", error.valid_up_to());
        Problem::new(400, what)
    })
}

/// UTF-8, and ASCII, which is part of it.
const UTF_8: [&str; 3] = ["utf-8", "utf8", "us-ascii"];

/// The media types in use for JSON values in lines, without the `x-` that some of them have. None of them is
/// registered, so each library has its own: also as a suffix (`application/vnd.elasticsearch+x-ndjson`), or
/// the older names of Docker, Spring and line-delimited JSON. `application/json-seq` is another format.
const NDJSON: [&str; 7] = [
    "ndjson",
    "nd-json",
    "jsonl",
    "jsonlines",
    "json-lines",
    "json-stream",
    "ldjson",
];

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

fn is_any(word: &str, words: &[&str]) -> bool {
    words.iter().any(|own| own.eq_ignore_ascii_case(word))
}

/// The media type of the body, and its charset if it names one.
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

/// A text without the byte order mark that editors and shells of Windows write before it.
///
/// SPEC: RFC 8259, 8.1: a parser of JSON may ignore it.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn object(request: &Request) -> Result<Document, Problem> {
    let document = Document::parse(without_mark(text(request)?))?;
    match document.is_object() {
        true => Ok(document),
        false => Err(Problem::new(400, "the body is JSON, but not an object")),
    }
}
