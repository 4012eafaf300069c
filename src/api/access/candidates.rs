//! The tokens that a request carries: in `Authorization`, in the query of a stream, in a cookie.
//!
//! A token has neither a space nor a `%` in it, so what libraries do to base64 in a query or a cookie is
//! undone without one token being taken for another. Padding is part of a token: `YQ==` and `YQ` are two.

use std::borrow::Cow;

use crate::api::action::Carrier;
use crate::api::sender::Sender;
use crate::http::{Refusal, Request};

/// The name of the cookie that carries a token.
pub(super) const COOKIE: &str = "tiny_sse_token";

/// The tokens in a request, not verified.
pub(super) fn candidates<'a>(
    request: &'a Request,
    carrier: Carrier,
    sender: Sender<'_>,
) -> Result<Vec<Cow<'a, str>>, Refusal> {
    let mut found = Vec::new();
    found.extend(request.bearer()?.map(Cow::Borrowed));
    if carrier == Carrier::HeaderOrQuery {
        // A query is read as a form, where `+` is a space. In a token a space can only have been a `+`.
        let tokens = request.queries("token");
        found.extend(tokens.map(|token| match token.contains(' ') {
            true => token.replace(' ', "+").into(),
            false => Cow::Borrowed(token),
        }));
    }
    // The browser of a page of another site sends the cookies of this one.
    if !matches!(sender, Sender::OtherPage(_)) {
        found.extend(request.cookies(COOKIE));
    }
    // LIMIT: no client has more than one token, or three while it changes from one to another. ORDER: cookies
    // come last: a site beside this one may have set some that push others out.
    found.truncate(3);
    Ok(found)
}
