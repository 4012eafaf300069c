//! The tokens that a request carries: in `Authorization`, in the query of a stream, in a cookie.
//!
//! A token has neither a space nor a `%` in it, so what libraries do to base64 in a query or a cookie is
//! undone without one token being taken for another. Padding is part of a token: `YQ==` and `YQ` are two.

use std::borrow::Cow;

use crate::api::action::Carrier;
use crate::api::sender::Sender;
use crate::http::{Refusal, Request, percent_decoded};

/// The name of the cookie that carries a token.
pub(super) const COOKIE: &str = "tiny_sse_token";

/// The tokens in a request, not verified.
pub(super) fn candidates<'a>(
    request: &'a Request,
    carrier: Carrier,
    sender: Sender<'_>,
) -> Result<Vec<Cow<'a, [u8]>>, Refusal> {
    let mut found = Vec::new();
    // SPEC: RFC 9110, 11.4: the scheme has no case. A token of another scheme is for another server.
    if let Some(credentials) = request.field("authorization")?
        && let Some((scheme, token)) = credentials.split_once(' ')
        && scheme.eq_ignore_ascii_case("bearer")
    {
        found.push(Cow::Borrowed(token.trim_ascii().as_bytes()));
    }
    if carrier == Carrier::HeaderOrQuery {
        // A query is read as a form, where `+` is a space. In a token a space can only have been a `+`.
        let plus = |value: &'a str| match value.contains(' ') {
            true => Cow::Owned(value.replace(' ', "+").into_bytes()),
            false => Cow::Borrowed(value.as_bytes()),
        };
        found.extend(request.queries("token").map(plus));
    }
    // The browser of a page of another site sends the cookies of this one.
    if !matches!(sender, Sender::OtherPage(_)) {
        let cookies = request.fields("cookie");
        let pairs = cookies.flat_map(|cookies| cookies.split(|&byte| byte == b';'));
        found.extend(pairs.filter_map(in_cookie));
    }
    // LIMIT: no client has more than one token, or three while it changes from one to another. ORDER: cookies
    // come last: a site beside this one may have set some that push others out.
    found.truncate(3);
    Ok(found)
}

/// The token in one cookie.
///
/// SPEC: RFC 6265, 4.1.1: `cookie-value = *cookie-octet / ( DQUOTE *cookie-octet DQUOTE )`; 4.2.1:
/// `cookie-string = cookie-pair *( ";" SP cookie-pair )`.
fn in_cookie(pair: &[u8]) -> Option<Cow<'_, [u8]>> {
    let value = pair.trim_ascii().strip_prefix(COOKIE.as_bytes())?;
    let value = match value.strip_prefix(b"=")? {
        [b'"', quoted @ .., b'"'] => quoted,
        plain => plain,
    };
    // Libraries percent-encode the value of a cookie.
    Some(match value.contains(&b'%') {
        true => Cow::Owned(percent_decoded(value).into_bytes()),
        false => Cow::Borrowed(value),
    })
}
