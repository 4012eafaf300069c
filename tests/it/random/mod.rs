//! Random input, and properties that hold of any: what was written is read back, what is accepted
//! is what a second, slower reading of the same rules accepts, and how bytes are cut does not matter.
//!
//! What has no public door has its random tests beside it: `src/http/random.rs`, `src/store/random.rs`
//! and `src/bin/tiny-sse/random.rs`. `chance.rs` has how many cases there are, and how one that failed
//! is run again.

mod json;
mod live;
mod streams;
mod topics;

use crate::chance::Random;

/// Text of pieces that matter to one format or another.
fn text(random: &mut Random) -> String {
    #[rustfmt::skip]
    const PIECES: [&str; 36] = [
        "a", "b", "/", "*", " ", "\t", "\n", "\r", "\r\n", "\n\n", "\0", ":", ": ", "data: x", "id: 7", "event",
        "retry: 1", "\u{feff}", "\u{85}", "\u{2028}", "\u{7f}", "\u{1f}", "\u{e9}", "\u{43f}", "\u{1f980}",
        "\u{10ffff}", "\u{fffd}", "\"", "\\", "\\u0041", "0", "9", "-", "1-0", "earliest", "{}",
    ];
    let most = if random.one_in(100) { 300 } else { 8 };
    let count = random.below(most);
    (0..count).map(|_| random.pick(&PIECES)).collect()
}
