//! Why a stream ended: one name for each reason, used by the log, `/stats`, the close
//! event and the tests.
//!
//! The fan-out thread passes a reason to the client's thread (`Lane::close`), or the
//! client's thread finds the reason itself (`Subscription::run`). A stream that is ended
//! by the server, while its client still reads, ends with a close event that has the
//! reason. The others end without one.

/// Why a client's stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum CloseReason {
    /// The client closed the connection, or the connection broke. The client's thread
    /// sees it when it reads or writes, and the fan-out thread when it writes.
    HungUp,
    /// The client's backlog was over `Config::queue_bytes`, or load shedding closed the
    /// client, or the history evicted events that its replay had not reached. Also the
    /// reason for all clients after a panic of the fan-out thread.
    FellBehind,
    /// One write took longer than `Config::write_timeout`.
    TimedOut,
    /// Another client with the same client id and the same credential was registered.
    Replaced,
    /// [`Hub::disconnect`](crate::Hub::disconnect) was called, for example by
    /// `DELETE /clients/{client_id}`.
    Kicked,
    /// The client has no right to the stream any more: its token was withdrawn or has
    /// expired. The client may reconnect with another token.
    Expired,
    /// All topics of the client have ended. No part of this crate ends a stream for this
    /// reason today; the name is reserved.
    Ended,
    /// [`Hub::close`](crate::Hub::close) was called: the server shuts down.
    ServerClosing,
}

/// Writes the [name](CloseReason::name).
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

    /// The name of the reason in `/stats`.
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
            CloseReason::Expired => "the client's right to the stream has ended or was revoked",
            CloseReason::Ended => "the topics of the client have ended",
            CloseReason::ServerClosing => "the server is closing",
        }
    }

    /// The name of the reason in the close event. `None`: the stream ends without a close
    /// event, because the client does not read it.
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

    /// Whether the client gets a close event. If not, the fan-out aborts the socket at
    /// once.
    pub(super) fn has_close_event(self) -> bool {
        self.wire_name().is_some()
    }
}
