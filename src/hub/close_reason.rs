//! The reasons for which a stream ends. Log, tests, `/stats` and the stream itself use the same names.

/// Why a client's stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum CloseReason {
    /// The client closed the connection, or the connection broke.
    HungUp,
    /// The client's backlog was larger than its queue may be; or all queues together were over their limit, and this client
    /// had one of the largest backlogs.
    FellBehind,
    /// One write took longer than `Config::write_timeout`.
    TimedOut,
    /// A later stream took over the client id.
    Replaced,
    /// A request or a call of [`Hub::disconnect`](crate::Hub::disconnect) closed the stream.
    Kicked,
    /// The client's right to the stream was revoked, or has expired. It may reconnect with another token.
    Expired,
    /// All topics of the client have ended. Nothing ends topics yet.
    Ended,
    /// The server is shutting down.
    ServerClosing,
}

/// The [name](CloseReason::name).
impl std::fmt::Display for CloseReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl CloseReason {
    /// All reasons, in the order of `/stats`.
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

    /// The name in `/stats` and in `/metrics`.
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

    /// The reason as a part of a sentence, for the log.
    pub fn explain(self) -> &'static str {
        match self {
            CloseReason::HungUp => "the client hung up",
            CloseReason::FellBehind => {
                "the client did not read fast enough, and its queue was full"
            }
            CloseReason::TimedOut => "the client did not take a write in time",
            CloseReason::Replaced => "another stream has the same client id",
            CloseReason::Kicked => "the stream was closed on request",
            CloseReason::Expired => "the client's right to the stream was revoked",
            CloseReason::Ended => "the topics of the client have ended",
            CloseReason::ServerClosing => "the server is closing",
        }
    }

    /// The reason in the close event of the stream. `None`: the stream ends without a close event, because the client has
    /// gone, or does not read.
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

    /// Whether the client still reads, so that a close event reaches it.
    pub(super) fn has_close_event(self) -> bool {
        self.wire_name().is_some()
    }
}
