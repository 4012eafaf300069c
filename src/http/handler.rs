//! What a server asks of those who answer its requests.

use super::{Refusal, Request, Response};

/// Answers requests. A function from a [`Request`] to a [`Response`] is one; the other two methods
/// are for those who decide before a body is read, or dress the server's own refusals.
///
/// It is called on the threads of the connections. A panic in it is a 500.
pub trait Handler: Send + Sync {
    /// Whether to read the body that a request announces: asked once its head is there, and of
    /// requests without a body not at all. [`Request::body`] is empty yet.
    ///
    /// # Errors
    ///
    /// The answer of one whose body is not wanted. It ends the connection: the body is on its way
    /// behind it.
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
