//! The ways in which a stream ends. Log, tests and `/stats` use the same names.

/// Why a client's stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Farewell {
    /// The client closed the connection, or it broke.
    HungUp,
    /// More bytes waited for the client than its queue holds.
    FellBehind,
    /// One write took longer than the write timeout.
    TimedOut,
    /// Another stream came under the same client id.
    Replaced,
    /// Somebody asked for it: [`Hub::disconnect`](crate::Hub::disconnect).
    Kicked,
    /// The client has no right to the stream any more: its token was withdrawn or has expired. It may come
    /// back with another token.
    Expired,
    /// All topics of the client have ended.
    Ended,
    /// The server shuts down.
    ServerClosing,
}

/// The [name](Farewell::name).
impl std::fmt::Display for Farewell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl Farewell {
    /// All of them, in the order of `/stats`.
    pub const ALL: &'static [Farewell] = &[
        Farewell::HungUp,
        Farewell::FellBehind,
        Farewell::TimedOut,
        Farewell::Replaced,
        Farewell::Kicked,
        Farewell::Expired,
        Farewell::Ended,
        Farewell::ServerClosing,
    ];

    /// The name, as `/stats` has it.
    pub fn name(self) -> &'static str {
        match self {
            Farewell::HungUp => "hung_up",
            Farewell::FellBehind => "fell_behind",
            Farewell::TimedOut => "timed_out",
            Farewell::Replaced => "replaced",
            Farewell::Kicked => "kicked",
            Farewell::Expired => "expired",
            Farewell::Ended => "ended",
            Farewell::ServerClosing => "server_closing",
        }
    }

    /// A sentence for a person.
    pub fn explain(self) -> &'static str {
        match self {
            Farewell::HungUp => "the client hung up",
            Farewell::FellBehind => "the client fell behind: its queue was full",
            Farewell::TimedOut => "the client did not take a write in time",
            Farewell::Replaced => "another stream came under the same client id",
            Farewell::Kicked => "the stream was closed on request",
            Farewell::Expired => "the client is not allowed to have the stream any more",
            Farewell::Ended => "the topics of the client have ended",
            Farewell::ServerClosing => "the server is closing",
        }
    }

    /// The reason in the last event of the stream. `None`: such a stream ends without an event.
    pub(super) fn reason(self) -> Option<&'static str> {
        match self {
            Farewell::HungUp | Farewell::FellBehind | Farewell::TimedOut => None,
            Farewell::ServerClosing => Some("closing"),
            Farewell::Replaced | Farewell::Kicked | Farewell::Expired | Farewell::Ended => {
                Some(self.name())
            }
        }
    }

    /// Whether the client still listens, so that a last word reaches it.
    pub(super) fn is_polite(self) -> bool {
        self.reason().is_some()
    }
}
