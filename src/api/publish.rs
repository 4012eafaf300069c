//! Everything that becomes an event: plain text, JSON whose member names it, lines of NDJSON, and
//! a word to one client.

use std::fmt::Write;
use std::time::Duration;

use super::{Api, Problem};
use crate::config::{EVENT_OVERHEAD, EVENTS_PER_REQUEST, ID_BYTES};
use crate::http::{NO_ROOM, Request, Response, Share};
use crate::hub::{ClientId, Published};
use crate::wire::json::{self, Document};
use crate::wire::{Event, Topic};

impl Api {
    /// `POST /events`: the body is the data, or with NDJSON each line of it.
    pub(super) fn publish(
        &self,
        request: &Request,
        topic: Option<&str>,
    ) -> Result<Response, Problem> {
        let topic = one_topic(request, topic)?;
        let body = text(request)?;
        if is_ndjson(&content_type(request)?.0) {
            return self.publish_lines(request, body, topic);
        }
        let mut event = named_by_query(request, Event::new(body))?;
        let own_id = request.query("id");
        if let Some(id) = own_id {
            event = event.with_id(id)?;
        }
        self.publish_one(to(topic, event), own_id)
    }

    fn publish_one(&self, event: Event, own_id: Option<&str>) -> Result<Response, Problem> {
        let _permit = self.permit_events(size(&event))?;
        let published = self.hub.publish(event)?;
        Ok(ok(&quoted_id(own_id, &published), published.recipients))
    }

    /// All lines or none: each is checked before the first is published.
    fn publish_lines(
        &self,
        request: &Request,
        body: &str,
        topic: Option<Topic>,
    ) -> Result<Response, Problem> {
        if request.query("id").is_some() {
            return Err(Problem::new(
                400,
                "id cannot be the same for several events",
            ));
        }
        // Each event is this one, with its line as the data.
        let model = to(topic, named_by_query(request, Event::default())?);
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
            let what =
                format!("the body has more than {EVENTS_PER_REQUEST} lines; nothing was published");
            return Err(Problem::new(413, what));
        }
        let of_each = size(&model);
        let bytes = lines.clone().map(|(_, line)| of_each + line.len());
        let _permit = self.permit_events(bytes.sum())?;
        let events = lines.map(|(number, line)| {
            let document = Document::parse(line).map_err(|error| {
                Problem::new(
                    400,
                    format!("line {}: {error}; nothing was published", number + 1),
                )
            })?;
            Ok(model.clone().with_data(document.into_string()))
        });
        let events = events.collect::<Result<Vec<_>, Problem>>()?;
        // LIMIT: the answer is larger than the request. ORDER: reserved before anything is published: then it
        // would be too late to refuse.
        let bytes = (events.len() + 3) * ID_BYTES;
        let Some(share) = request.reserve_answer(bytes, Duration::ZERO) else {
            return Err(Problem::new(
                503,
                format!("{NO_ROOM}; nothing was published"),
            ));
        };
        let published = self.hub.publish_all(events)?;
        let Some(last) = published.last() else {
            return Err(Problem::new(400, "the body has no line, and so no event"));
        };
        let mut text = String::with_capacity(bytes);
        text.push_str(r#"{"status":"ok","ids":"#);
        for (place, published) in published.iter().enumerate() {
            let before = if place == 0 { '[' } else { ',' };
            write!(text, "{before}\"{}\"", published.id).expect("BUG: a String refuses text");
        }
        write!(text, "],\"recipients\":{}}}", last.recipients).expect("BUG: a String refuses text");
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
            return Err(Problem::new(
                413,
                format!(
                    "the events of this request come to {bytes} bytes, with their names, topics and \
                     {EVENT_OVERHEAD} bytes each; more than {limit} (four times --max-body) are not taken at \
                     once; nothing was published"
                ),
            ));
        }
        Ok(self.in_making.events.wait_for(bytes))
    }

    /// `POST /broadcast`: the object, with its `event` naming the event, is the data.
    pub(super) fn broadcast(&self, request: &Request) -> Result<Response, Problem> {
        let object = object(request)?;
        let event = match object
            .member("event")
            .filter(|value| value.starts_with('"'))
        {
            Some(name) => Event::default().with_name(string("event", name)?)?,
            None => Event::default(),
        };
        self.publish_object(request, event, object.into_string())
    }

    /// `POST /send`: the object without its `_event`, which names the event, is the data.
    pub(super) fn send(&self, request: &Request) -> Result<Response, Problem> {
        let object = object(request)?;
        let event = match object.member("_event") {
            Some(name) => Event::default().with_name(string("_event", name)?)?,
            None => Event::default(),
        };
        self.publish_object(request, event, object.without("_event"))
    }

    fn publish_object(
        &self,
        request: &Request,
        event: Event,
        data: String,
    ) -> Result<Response, Problem> {
        let topic = one_topic(request, None)?;
        self.publish_one(to(topic, event.with_data(data)), None)
    }

    /// `POST /clients/{client_id}`: an event for that client alone.
    pub(super) fn send_to_client(
        &self,
        request: &Request,
        client_id: &str,
    ) -> Result<Response, Problem> {
        let client_id = known_client(client_id)?;
        let event = named_by_query(request, Event::new(text(request)?))?;
        let _permit = self.permit_events(size(&event))?;
        let published = self.hub.send_to(client_id.as_str(), &event)?;
        Ok(ok(&quoted_id(None, &published), published.recipients))
    }

    /// `DELETE /clients/{client_id}`: the end of its stream.
    pub(super) fn disconnect(&self, client_id: &str) -> Result<Response, Problem> {
        let client_id = known_client(client_id)?;
        if self.hub.disconnect(client_id.as_str()) {
            Ok(Response::json(200, r#"{"status":"ok"}"#))
        } else {
            Err(Problem::new(
                404,
                format!("no client has the id {:?}", client_id.as_str()),
            ))
        }
    }
}

fn ok(id: &str, recipients: usize) -> Response {
    Response::json(
        200,
        format!(r#"{{"status":"ok","id":{id},"recipients":{recipients}}}"#),
    )
}

/// The id that went out on the wire, as JSON.
fn quoted_id(own: Option<&str>, published: &Published) -> String {
    own.map_or_else(|| format!("\"{}\"", published.id), json::quoted)
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

/// What cannot be a client's id is the id of no client.
fn known_client(client_id: &str) -> Result<ClientId, Problem> {
    client_id.parse().map_err(|error| Problem::new(404, error))
}

fn to(topic: Option<Topic>, event: Event) -> Event {
    match topic {
        Some(topic) => event.with_topic(topic),
        None => event,
    }
}

/// The topic, from the path or from the query, but not two: an event has one.
pub(super) fn one_topic(
    request: &Request,
    from_path: Option<&str>,
) -> Result<Option<Topic>, Problem> {
    let mut topics = from_path.into_iter().chain(request.queries("topic"));
    let topic = topics.next().map(Topic::new).transpose()?;
    match topics.next() {
        Some(second) => Err(Problem::new(
            400,
            format!("an event has one topic, and {second:?} is a second one"),
        )),
        None => Ok(topic),
    }
}

/// `event` and `retry` of the query.
fn named_by_query(request: &Request, mut event: Event) -> Result<Event, Problem> {
    if let Some(name) = request.query("event") {
        event = event.with_name(name)?;
    }
    if let Some(retry) = request.query("retry") {
        event = event.with_retry_of(retry)?;
    }
    Ok(event)
}

/// Whether the body, as its fields describe it, is one that can be published: known by the head alone.
///
/// # Errors
///
/// 415: it is compressed, a form, or not UTF-8; 400: the fields contradict each other.
pub(super) fn check_type(request: &Request) -> Result<(), Problem> {
    if let Some(coding) = request
        .field("content-encoding")?
        .filter(|coding| !coding.eq_ignore_ascii_case("identity"))
    {
        return Err(Problem::new(
            415,
            format!("Content-Encoding is {coding:?}, only \"identity\" is understood"),
        ));
    }
    let (media_type, charset) = content_type(request)?;
    if let Some(charset) = charset {
        return Err(Problem::new(
            415,
            format!("the charset is {charset:?}, only \"utf-8\" is understood"),
        ));
    }
    // `application/x-www-form-urlencoded` is accepted, because `curl -d` sends this type for any data.
    if media_type.starts_with("multipart/") {
        return Err(Problem::new(
            415,
            format!(
                "the body is {media_type}, whose parts and boundaries would be published as they are: send the \
                 data itself as the body (curl --data-binary @FILE, or in a page fetch(url, {{ method: \
                 'POST', body: text }}))"
            ),
        ));
    }
    Ok(())
}

/// The body as text, if that is what it is.
fn text(request: &Request) -> Result<&str, Problem> {
    std::str::from_utf8(request.body()).map_err(|error| {
        Problem::new(
            400,
            format!("the body is not UTF-8: byte {}", error.valid_up_to()),
        )
    })
}

/// Whether a media type is one of those in use for JSON values in lines. None of them is registered, so
/// each library has its own: with `x-` or without, as a suffix (`application/vnd.elasticsearch+x-ndjson`),
/// or the older names of Docker, Spring and line-delimited JSON. `application/json-seq` is another format.
fn is_ndjson(media_type: &str) -> bool {
    let Some(("application" | "text", subtype)) = media_type.split_once('/') else {
        return false;
    };
    let suffix = subtype.rsplit('+').next().unwrap_or_default();
    let name = suffix.strip_prefix("x-").unwrap_or(suffix);
    let names = [
        "ndjson",
        "nd-json",
        "jsonl",
        "jsonlines",
        "json-lines",
        "json-stream",
        "ldjson",
    ];
    names.contains(&name) || subtype == "stream+json"
}

/// The media type in lower case, and its charset if that is not UTF-8 (or ASCII, which is part of it).
fn content_type(request: &Request) -> Result<(String, Option<String>), Problem> {
    let value = request
        .field("content-type")?
        .unwrap_or_default()
        .to_ascii_lowercase();
    let mut parts = value.split(';').map(str::trim_ascii);
    let media_type = parts.next().unwrap_or_default().to_owned();
    let charset = parts
        .find_map(|part| part.strip_prefix("charset="))
        .map(|charset| charset.trim_matches('"'));
    let foreign = charset.filter(|charset| !["utf-8", "utf8", "us-ascii"].contains(charset));
    Ok((media_type, foreign.map(str::to_owned)))
}

/// A text without the byte order mark that editors and shells of Windows write before it.
///
/// SPEC: RFC 8259, 8.1: a parser of JSON may ignore it.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn object(request: &Request) -> Result<Document, Problem> {
    let document = Document::parse(without_mark(text(request)?))?;
    if document.is_object() {
        Ok(document)
    } else {
        Err(Problem::new(400, "the body is JSON, but not an object"))
    }
}

/// The text of a member that must be a string.
fn string(member: &str, value: &str) -> Result<String, Problem> {
    json::unquote(value).ok_or_else(|| {
        Problem::new(
            400,
            format!("the member {member:?} must be a string of Unicode text"),
        )
    })
}
