//! The ways in which a stream ends. Log, tests and `/stats` use the same names.

/// Why a client's stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum CloseReason {
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

/// The [name](CloseReason::name).
impl std::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl CloseReason {
    /// All of them, in the order of `/stats`.
    pub const ALL: &'static [CloseReason] = &[
        CloseReason::HungUp,
        CloseReason::FellBehind,
        CloseReason::TimedOut,
        CloseReason::Replaced,
        CloseReason::Kicked,
        CloseReason::Expired,
        CloseReason::Ended,
        CloseReason::ServerClosing,
    ];

    /// The name, as `/stats` has it.
    pub fn name(self) -> &'static str {
        match self {
            CloseReason::HungUp => "hung_up",
            CloseReason::FellBehind => "fell_behind",
            CloseReason::TimedOut => "timed_out",
            CloseReason::Replaced => "replaced",
            CloseReason::Kicked => "kicked",
            CloseReason::Expired => "expired",
            CloseReason::Ended => "ended",
            CloseReason::ServerClosing => "server_closing",
        }
    }

    /// A sentence for a person.
    pub fn explain(self) -> &'static str {
        match self {
            CloseReason::HungUp => "the client hung up",
            CloseReason::FellBehind => "the client fell behind: its queue was full",
            CloseReason::TimedOut => "the client did not take a write in time",
            CloseReason::Replaced => "another stream came under the same client id",
            CloseReason::Kicked => "the stream was closed on request",
            CloseReason::Expired => "the client is not allowed to have the stream any more",
            CloseReason::Ended => "the topics of the client have ended",
            CloseReason::ServerClosing => "the server is closing",
        }
    }

    /// The reason in the last event of the stream. `None`: such a stream ends without an event.
    pub(super) fn wire_name(self) -> Option<&'static str> {
        match self {
            CloseReason::HungUp | CloseReason::FellBehind | CloseReason::TimedOut => None,
            CloseReason::ServerClosing => Some("closing"),
            CloseReason::Replaced
            | CloseReason::Kicked
            | CloseReason::Expired
            | CloseReason::Ended => Some(self.name()),
        }
    }

    /// Whether the client still listens, so that a last word reaches it.
    pub(super) fn has_close_event(self) -> bool {
        self.wire_name().is_some()
    }
}
