//! Turns a request into the texts in it that may be tokens: of `Authorization`, of the
//! query of a stream, of cookies. `tokens.rs` then looks up which of them are known.
//!
//! Libraries change base64 in a query or a cookie: `+` becomes a space, and `=` becomes
//! `%3D`. A token contains neither a space nor a `%`, so these changes can be reversed
//! without mistaking one token for another. The padding is part of a token: `YQ==` and
//! `YQ` are different tokens.

use std::borrow::Cow;

use crate::api::action::Carrier;
use crate::api::sender::Sender;
use crate::http::{Refusal, Request};

/// The name of the cookie that carries a token.
pub(super) const COOKIE: &str = "tiny_sse_token";

/// The names of all cookies that may carry a token. A browser accepts the first only from
/// this host and over TLS, so no neighbour under the same domain can set it. Programs
/// that were written for a Mercure hub send the last.
const COOKIES: [&str; 3] = ["__Host-tiny_sse_token", COOKIE, "mercureAuthorization"];

/// A text in a request that may be a token.
pub(super) struct Candidate<'a> {
    /// The text.
    pub(super) text: Cow<'a, str>,
    /// Whether it is in the query.
    pub(super) is_in_query: bool,
}

/// Returns the texts that may be tokens, at most three, in the order in which they are
/// tried. They are not verified.
///
/// # Errors
///
/// 400: `Authorization` is there more than once, or is not UTF-8.
pub(super) fn candidates<'a>(
    request: &'a Request,
    carrier: Carrier,
    sender: Sender<'_>,
) -> Result<Vec<Candidate<'a>>, Refusal> {
    let candidate = |is_in_query| move |text| Candidate { text, is_in_query };
    let mut found = Vec::new();
    let bearer = request.bearer()?.map(Cow::Borrowed);
    found.extend(bearer.map(candidate(false)));
    if carrier == Carrier::HeaderOrQuery {
        // A query is decoded as a form, which turns `+` into a space. So a space in a
        // token was a `+`.
        let tokens = request.queries("token");
        let tokens = tokens.map(|token| match token.contains(' ') {
            true => token.replace(' ', "+").into(),
            false => Cow::Borrowed(token),
        });
        found.extend(tokens.map(candidate(true)));
    }
    // A page of another site can make the user's browser send the cookies of this server.
    // Then they prove nothing about the page, so they are ignored.
    if !matches!(sender, Sender::OtherPage(_)) {
        let cookies = COOKIES.into_iter().flat_map(|name| request.cookies(name));
        found.extend(cookies.map(candidate(false)));
    }
    // LIMIT: each candidate costs a hash and a look-up, or a signature. A client has one
    // token, or up to three while it changes from one to another. ORDER: cookies come
    // last. A neighbour of this server, under the same domain, can set cookies for it,
    // and these must not displace the token in `Authorization`.
    found.truncate(3);
    Ok(found)
}
