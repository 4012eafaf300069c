//! Turns the body of a request into a JSON object and its members into strings, or into
//! the message of a 400.

use tiny_sse::http::Request;
use tiny_sse::wire::json::{self, Document};

/// Returns the body as a JSON object. The error is the message of the answer.
pub(super) fn object(request: &Request) -> Result<Document, String> {
    let text = std::str::from_utf8(request.body())
        .map_err(|error| format!("the body is not UTF-8: byte {}", error.valid_up_to()))?;
    let document = Document::parse(text).map_err(|error| error.to_string())?;
    if document.is_object() {
        Ok(document)
    } else {
        Err("the body is JSON, but not an object".into())
    }
}

/// Returns a member of the object. It must be a string of 1 to `most` characters that are
/// not all white space. The error is the message of the answer.
pub(super) fn text(object: &Document, member: &str, most: usize) -> Result<String, String> {
    let Some(value) = object.member(member) else {
        return Err(format!("the member {member:?} is missing"));
    };
    let Some(text) = json::unquote(value) else {
        return Err(format!(
            "the member {member:?} must be a string of Unicode text"
        ));
    };
    match text.chars().count() {
        _ if text.chars().all(char::is_whitespace) => {
            Err(format!("the member {member:?} is empty"))
        }
        length if length > most => Err(format!(
            "the member {member:?} has {length} characters, at most {most} are allowed"
        )),
        _ => Ok(text),
    }
}
