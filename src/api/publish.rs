//! Everything that becomes an event: plain text, JSON whose member names it, lines of NDJSON, and
//! a word to one client.

use super::{Api, Problem};
use crate::config::EVENTS_PER_REQUEST;
use crate::http::{Request, Response};
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
        if content_type(request)?.0 == "application/x-ndjson" {
            return self.publish_lines(request, body, topic);
        }
        let event = named_by_query(request, Event::new(body))?;
        let own_id = request.query("id");
        let event = own_id.map_or(Ok(event.clone()), |id| event.with_id(id))?;
        let published = self.hub.publish(to(topic, event))?;
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
        let lines = body
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim_ascii().is_empty());
        let events = lines.map(|(number, line)| {
            // LIMIT: lines, and so events, of one request.
            if number >= EVENTS_PER_REQUEST {
                return Err(Problem::new(
                    413,
                    format!(
                        "the body has more than {EVENTS_PER_REQUEST} lines; nothing was published"
                    ),
                ));
            }
            let document = Document::parse(line).map_err(|error| {
                Problem::new(
                    400,
                    format!("line {}: {error}; nothing was published", number + 1),
                )
            })?;
            Ok(to(
                topic.clone(),
                named_by_query(request, Event::new(document.into_string()))?,
            ))
        });
        let published = self
            .hub
            .publish_all(events.collect::<Result<_, Problem>>()?)?;
        let Some(last) = published.last() else {
            return Err(Problem::new(400, "the body has no line, and so no event"));
        };
        let ids: Vec<String> = published
            .iter()
            .map(|published| quoted_id(None, published))
            .collect();
        Ok(Response::json(
            200,
            format!(
                r#"{{"status":"ok","ids":[{}],"recipients":{}}}"#,
                ids.join(","),
                last.recipients
            ),
        ))
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
        let published = self.hub.publish(to(topic, event.with_data(data)))?;
        Ok(ok(&quoted_id(None, &published), published.recipients))
    }

    /// `POST /clients/{client_id}`: an event for that client alone.
    pub(super) fn send_to_client(
        &self,
        request: &Request,
        client_id: &str,
    ) -> Result<Response, Problem> {
        let client_id = known_client(client_id)?;
        let event = named_by_query(request, Event::new(text(request)?))?;
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

/// The body as text, if that is what it is.
fn text(request: &Request) -> Result<&str, Problem> {
    if let Some(coding) = request
        .field("content-encoding")?
        .filter(|coding| !coding.eq_ignore_ascii_case("identity"))
    {
        return Err(Problem::new(
            415,
            format!("Content-Encoding is {coding:?}, only \"identity\" is understood"),
        ));
    }
    if let (_, Some(charset)) = content_type(request)? {
        return Err(Problem::new(
            415,
            format!("the charset is {charset:?}, only \"utf-8\" is understood"),
        ));
    }
    std::str::from_utf8(request.body()).map_err(|error| {
        Problem::new(
            400,
            format!("the body is not UTF-8: byte {}", error.valid_up_to()),
        )
    })
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

fn object(request: &Request) -> Result<Document, Problem> {
    let document = Document::parse(text(request)?)?;
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
