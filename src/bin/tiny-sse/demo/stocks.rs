//! Prices: an event `price_update` for each of a few symbols. The prices are a random
//! walk, and each event has `"simulated":true`.
//!
//! A price is an integer number of cents. With floating-point numbers, the sum of the
//! published changes would differ from the published price.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::time::Duration;

use super::turns::Turns;
use super::{event, now, topic};

pub(super) const TOPIC: &str = "demo/stocks";

/// The time between two updates of all symbols.
const EVERY: Duration = Duration::from_secs(2);

/// Each symbol with its first price in cents.
const SYMBOLS: [(&str, i64); 4] = [
    ("TINY", 10_000),
    ("CRAB", 4_250),
    ("WIRE", 725),
    ("HUBS", 31_000),
];

/// Returns the turns of this use: one event for each symbol.
pub(super) fn turns() -> Turns {
    let mut step = 0;
    let mut prices = SYMBOLS.map(|(symbol, open)| Price::new(symbol, open));
    Turns {
        topic: topic(TOPIC),
        every: EVERY,
        turn: Box::new(move |topic| {
            let walk = |price: &mut Price| {
                step += 1;
                event("price_update", topic, price.walk(random(step)))
            };
            prices.iter_mut().map(walk).collect()
        }),
    }
}

/// The price of a symbol, in cents.
struct Price {
    symbol: &'static str,
    /// The first price.
    open: i64,
    /// The current price, at least 1.
    now: i64,
}

impl Price {
    /// The symbol at its first price.
    fn new(symbol: &'static str, open: i64) -> Price {
        Price {
            symbol,
            open,
            now: open,
        }
    }

    /// Changes the price by at most one percent up or down, or by one cent if that is
    /// more. Returns the data of the event.
    fn walk(&mut self, random: u64) -> String {
        let most = (self.now / 100).max(1);
        let step = (random % (2 * most as u64 + 1)) as i64 - most;
        let price = (self.now + step).max(1);
        let change = price - self.now;
        self.now = price;
        format!(
            r#"{{"symbol":"{}","price":{},"change":{},"open":{},"at":"{}","simulated":true}}"#,
            self.symbol,
            hundredths(price),
            hundredths(change),
            hundredths(self.open),
            now()
        )
    }
}

/// Returns a number of hundredths as a decimal fraction: `-12` becomes `-0.12`.
fn hundredths(number: i64) -> String {
    let (sign, amount) = (if number < 0 { "-" } else { "" }, number.unsigned_abs());
    format!("{sign}{}.{:02}", amount / 100, amount % 100)
}

/// Returns a pseudo-random number. It is the same for each step in every run of the
/// program.
fn random(step: u64) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_takes_small_steps_and_never_reaches_zero() {
        let mut price = Price::new("X", 3);
        for step in 0..10_000 {
            let before = price.now;
            let data = price.walk(random(step));
            assert!(price.now >= 1, "{data}");
            assert!(
                (price.now - before).abs() <= (before / 100).max(1),
                "{data}"
            );
        }
    }

    #[test]
    fn cents_are_written_as_fractions() {
        for (cents, text) in [(0, "0.00"), (5, "0.05"), (-12, "-0.12"), (10_150, "101.50")] {
            assert_eq!(hundredths(cents), text);
        }
    }
}
