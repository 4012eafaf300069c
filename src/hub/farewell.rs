//! The ways in which a stream ends. Log, tests and `/stats` use the same names.

/// Why a client's stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    /// The server shuts down.
    ServerClosing,
}

impl Farewell {
    /// All of them, in the order of `/stats`.
    pub const ALL: [Farewell; 6] = [
        Farewell::HungUp,
        Farewell::FellBehind,
        Farewell::TimedOut,
        Farewell::Replaced,
        Farewell::Kicked,
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
            Farewell::ServerClosing => "the server is closing",
        }
    }

    /// Whether the client still listens, so that a last word reaches it.
    pub(super) fn is_polite(self) -> bool {
        matches!(
            self,
            Farewell::Replaced | Farewell::Kicked | Farewell::ServerClosing
        )
    }
}
