//! Random input, and properties that hold for every input: encoding and decoding returns
//! the same value; a parser accepts exactly what a second, slower implementation of the
//! same rules accepts; and the result does not depend on how the bytes are cut into
//! pieces.
//!
//! Private parts of the library and the program have their random tests in
//! `tests/inside/`, such as `http_random.rs`, `store_random.rs` and `args_random.rs`.
//! `tests/inside/chance.rs` says how many cases there are, and how to run a failed case
//! again.

mod json;
mod live;
mod streams;
mod topics;

use crate::chance::Random;

/// Random text, made of pieces that have a meaning in at least one of the formats.
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
