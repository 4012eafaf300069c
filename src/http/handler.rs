//! What a server asks of the code that answers its requests.

use super::{Refusal, Request, Response};

/// Answers requests. It is called on the threads of the connections. A panic in it is a 500.
pub(crate) trait Handler: Send + Sync {
    /// Whether the answer depends on the body that a request announces. Asked once its head is there, and not
    /// for requests without a body. [`Request::body`] is empty yet.
    ///
    /// A request whose body is not wanted is answered by its head: [`answer`](Self::answer) gets it with
    /// an empty body, and the answer ends the connection, because the body is on its way.
    fn wants_body(&self, request: &Request) -> bool;

    /// Whether this request may send the body that it announces. Asked after
    /// [`wants_body`](Self::wants_body), and before the body is read.
    ///
    /// # Errors
    ///
    /// The answer to a request that may not. It ends the connection: the body is on its way.
    fn admit(&self, request: &Request) -> Result<(), Response>;

    /// Answers a request.
    fn answer(&self, request: Request) -> Response;

    /// Answers bytes that were no request, or a request whose body is wrong: then its head is known. A 503 says
    /// when to come back.
    fn refuse(&self, refusal: &Refusal, request: Option<&Request>) -> Response;
}
