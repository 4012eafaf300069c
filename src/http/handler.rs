//! What a server asks of those who answer its requests.

use super::{Refusal, Request, Response};

/// Answers requests. A function from a [`Request`] to a [`Response`] is one; the other methods
/// are for handlers that decide before a body is read, or dress the server's own refusals.
///
/// It is called on the threads of the connections. A panic in it is a 500.
pub trait Handler: Send + Sync {
    /// Whether the answer depends on the body that a request announces: asked once its head is there,
    /// and not for requests without a body. [`Request::body`] is empty yet.
    ///
    /// A request whose body is not wanted is answered by its head: [`answer`](Self::answer) gets it with
    /// an empty body, and the answer ends the connection, because the body is on its way.
    ///
    /// By default all bodies are wanted.
    fn wants_body(&self, request: &Request) -> bool {
        let _ = request;
        true
    }

    /// Whether this request may send the body that it announces: asked after
    /// [`wants_body`](Self::wants_body), and before the body is read.
    ///
    /// # Errors
    ///
    /// The answer to a request that may not. It ends the connection: the body is on its way.
    fn admit(&self, request: &Request) -> Result<(), Response> {
        let _ = request;
        Ok(())
    }

    /// Answers a request.
    fn answer(&self, request: Request) -> Response;

    /// Answers what was no request, or one whose body is wrong: then its head is known.
    fn refuse(&self, refusal: &Refusal, request: Option<&Request>) -> Response {
        let _ = request;
        refusal.into()
    }
}

impl<F: Fn(Request) -> Response + Send + Sync> Handler for F {
    fn answer(&self, request: Request) -> Response {
        self(request)
    }
}
