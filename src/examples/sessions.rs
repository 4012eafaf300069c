//! Routes and sessions of your own: a login sets a cookie, and a stream gets the events
//! of its user alone.
//!
//! ```text
//! cargo run --example sessions
//! curl -c jar -d 'ada' http://127.0.0.1:8080/login
//! curl -N -b jar http://127.0.0.1:8080/events
//! curl -d 'hello' http://127.0.0.1:8080/notify/ada        in another terminal
//! ```
//!
//! The server asks a *guard* before a request to a built-in endpoint does something. This
//! guard finds the user of the session cookie and narrows a stream to the topics of that
//! user, whatever the request asks for. Without a session, streams are refused with 401.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::ToSocketAddrs;
use std::sync::{Arc, Mutex, PoisonError};

use tiny_sse::http::{Request, Response};
use tiny_sse::{Action, Api, Config, Hub, Pattern, Running, Server, Verdict};

/// The name of the cookie.
const COOKIE: &str = "session";

/// The user of each session, by the secret in its cookie.
///
/// LOCK: guards the table. Held to look up and to insert; nothing waits under it.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<String, String>>);

impl Sessions {
    /// Starts a session. Returns its secret: 128 bits from the kernel, in hexadecimal
    /// digits.
    fn start(&self, user: &str) -> io::Result<String> {
        let mut bytes = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let secret: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        table.insert(secret.clone(), user.to_owned());
        Ok(secret)
    }

    /// The user that sent the request, if its cookie belongs to a session.
    fn user_of(&self, request: &Request) -> Option<String> {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        request
            .cookies(COOKIE)
            .find_map(|secret| table.get(&*secret).cloned())
    }
}

/// Allows a request of a user with a session to do what concerns that user alone.
fn guard(sessions: &Sessions, request: &Request, action: &Action<'_>) -> Verdict {
    match (sessions.user_of(request), action) {
        (None, Action::Subscribe(_)) => {
            Verdict::Refuse(Response::error(401, "log in first: POST /login"))
        }
        (Some(user), Action::Subscribe(_)) => match Pattern::new(&format!("users/{user}")) {
            // A user keeps a `client_id` when they reconnect from another address.
            Ok(own) => Verdict::Narrow([own].into_iter().collect()).known_as(user.as_str()),
            Err(error) => Verdict::Refuse(Response::error(400, error)),
        },
        _ => Verdict::AsConfigured,
    }
}

/// Answers the routes of this program. The built-in endpoints answer the others.
fn answer(sessions: &Sessions, hub: &Hub, request: Request, api: &Api) -> Response {
    match (request.method(), &*request.segments()) {
        ("POST", ["login"]) => {
            // A real login checks a password here.
            let user = String::from_utf8_lossy(request.body()).trim().to_owned();
            match sessions.start(&user) {
                Ok(secret) => Response::text(200, format!("hello, {user}\n")).with(
                    "Set-Cookie",
                    format!("{COOKIE}={secret}; HttpOnly; SameSite=Strict; Path=/"),
                ),
                Err(error) => Response::error(503, error),
            }
        }
        // In a real program, only the backend may call this route.
        ("POST", ["notify", user]) => {
            let data = String::from_utf8_lossy(request.body());
            match hub.publish_to(&format!("users/{user}"), data) {
                Ok(published) => Response::text(200, format!("{} clients\n", published.recipients)),
                Err(error) => Response::error(400, error),
            }
        }
        _ => api.answer(request),
    }
}

/// Starts the server.
///
/// # Errors
///
/// The address cannot be listened on.
pub fn start(address: impl ToSocketAddrs) -> io::Result<Running> {
    let sessions = Arc::new(Sessions::default());
    let for_guard = Arc::clone(&sessions);
    let server = Server::bind(address, Config::default())?;
    let hub = server.hub().clone();
    server
        .guard(move |request, action| guard(&for_guard, request, action))
        .wants_body(|request, _| matches!(&*request.segments(), ["login"] | ["notify", _]))
        .spawn_with(move |request, api| answer(&sessions, &hub, request, api))
}

#[allow(dead_code, reason = "the tests call `start`")]
fn main() -> io::Result<()> {
    let server = start("127.0.0.1:8080")?;
    println!("curl -c jar -d 'ada' http://{}/login", server.local_addr());
    server.wait();
    Ok(())
}
