//! What a server asks of the code that answers its requests.
//!
//! `http/` knows no endpoints. `server.rs` of the crate implements [`Handler`] with the
//! routes of the embedder and the built-in endpoints. For one request the calls come in
//! this order, all on the worker that serves the connection:
//!
//! 1. [`wants_body`](Handler::wants_body) and [`authorize`](Handler::authorize), if the
//!    head announces a body;
//! 2. [`refuse`](Handler::refuse), if the head or the body is malformed, too large or
//!    late;
//! 3. otherwise [`answer`](Handler::answer).

use super::{Refusal, Request, Response};

/// Answers requests. A panic in one of the functions becomes a 500 for that request and
/// ends its connection. The functions may block; that delays only the one connection.
pub(crate) trait Handler: Send + Sync {
    /// Whether the answer depends on the body that a request announces. It is called when
    /// the head is complete, and not for requests without a body. [`Request::body`] is
    /// still empty.
    ///
    /// If the result is false, the body is not read: [`answer`](Self::answer) gets the
    /// request with an empty body, and the connection ends after the answer, because the
    /// body would be taken for the next request.
    fn wants_body(&self, request: &Request) -> bool;

    /// Whether the sender of this request may send the body that it announces. It is
    /// called after [`wants_body`](Self::wants_body) has returned true, and before the
    /// body is read.
    ///
    /// # Errors
    ///
    /// The answer to a request that may not. The connection ends after it, because the
    /// body is not read.
    fn authorize(&self, request: &Request) -> Result<(), Response>;

    /// Answers a request.
    fn answer(&self, request: Request) -> Response;

    /// Answers bytes that are not a request, or a request with a wrong body. `request` is
    /// `Some` if the head is known. A 503 needs the field `Retry-After`.
    fn refuse(&self, refusal: &Refusal, request: Option<&Request>) -> Response;
}
