//! Random command lines. No command line makes the parser panic, each is accepted or
//! rejected with one line, and the meaning of its numbers is compared with 128-bit
//! arithmetic, which cannot overflow here.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use crate::args::{self, Command};
use crate::chance::{Bytes, Mutator, Random, cases};

#[rustfmt::skip]
const OPTIONS: [&str; 33] = [
    "listen", "max-clients", "extra-connections", "heartbeat", "retry", "retry-jitter", "overload", "history",
    "history-bytes", "journal", "sync", "repair", "queue-bytes", "total-queues", "send-buffer", "write-timeout", "max-body", "max-patterns", "max-head",
    "max-fields", "max-target", "head-timeout", "body-timeout", "idle-timeout", "grace", "stack-bytes", "console",
    "log", "max-per-ip", "publish-token", "subscribe-token", "tokens", "unknown",
];

#[rustfmt::skip]
const VALUES: [&str; 44] = [
    "", "0", "1", "007", "1000", "+1", "-1", "1.5", "18446744073709551615", "18446744073709551616", "1KiB",
    "64KiB", "3MiB", "17GiB", "17179869184GiB", "17179869183GiB", "1kib", "KiB", "1 KiB", "500ms", "15s", "2m",
    "1h", "0s", "18446744073709551615ms", "18446744073709551615h", "1d", "s", "50%", "%", "1001%", "4294967296%",
    "on", "off", "auto", "always", "interval", "refuse", "retry", "debug", "127.0.0.1:0", "[::1]:80", "--listen",
    "\u{663}",
];

#[rustfmt::skip]
const WORDS: [&str; 17] = [
    "serve", "demo", "help", "--help", "-h", "--version", "-V", "--", "-", "--=", "---listen", "=",
    "--open", "--trust-proxy=10.0.0.0/8,::1", "--trust-proxy", "--cors-origin=https://example.org", "--cors-origin",
];

const COMMANDS: &[&str] = &[
    "serve",
    #[cfg(feature = "demo")]
    "demo",
];

/// Returns the name of an option and a value for it, which need not fit together.
fn option(random: &mut Random) -> (String, String) {
    (
        random.pick(&OPTIONS).to_owned(),
        random.pick(&VALUES).to_owned(),
    )
}

/// Parses a command line and checks that an error is one line. Returns the result as
/// text, so that results can be compared.
fn parse<T: Into<OsString> + Clone>(words: &[T]) -> Result<String, String> {
    let outcome = args::parse(words.iter().cloned().map(Into::into), |_| None);
    if let Err(line) = &outcome {
        assert!(
            !line.is_empty() && !line.contains(char::is_control),
            "{line:?}"
        );
    }
    outcome.map(|command| format!("{command:?}"))
}

#[test]
fn a_random_command_line_is_accepted_or_rejected_in_one_line() {
    let corpus = [&OPTIONS[..], &VALUES, &WORDS].concat();
    let options = OPTIONS.map(|name| format!("--{name}="));
    let mutator = Mutator {
        corpus: corpus.iter().map(|word| word.as_bytes().to_vec()).collect(),
        words: &options.each_ref().map(|option| &**option),
    };
    let word = |random: &mut Random| -> Vec<OsString> {
        let (name, value) = option(random);
        let words = match random.below(8) {
            0 => vec![random.pick(&WORDS).to_owned()],
            1 | 2 => vec![format!("--{name}"), value],
            _ => vec![format!("--{name}={value}")],
        };
        let spoilt = random.one_in(3);
        let spoil = |word: String| {
            let bytes = word.into_bytes();
            if spoilt {
                mutator.mutant(bytes, random).0
            } else {
                bytes
            }
        };
        words
            .into_iter()
            .map(spoil)
            .map(OsString::from_vec)
            .collect()
    };
    let make = |random: &mut Random| {
        (0..random.below(5))
            .flat_map(|_| word(random))
            .collect::<Vec<_>>()
    };
    cases(1, make, |words, _| {
        let _ = parse(words); // The test fails if `parse` panics or never returns.
    });
}

#[test]
fn a_random_option_has_the_same_meaning_as_one_word_or_as_two() {
    let mutator = Mutator {
        corpus: VALUES.map(|value| value.as_bytes().to_vec()).into(),
        words: &["KiB", "MiB", "GiB", "ms", "s", "m", "h", "%", "="],
    };
    let make = |random: &mut Random| {
        let (mut name, value) = option(random);
        while name == "repair" {
            name = option(random).0; // `repair` has no value.
        }
        let Bytes(value) = mutator.mutant(value.into_bytes(), random);
        (name, String::from_utf8_lossy(&value).into_owned())
    };
    cases(1, make, |(name, value), random| {
        let one = parse(&[format!("--{name}={value}")]);
        let two = parse(&[format!("--{name}"), value.clone()]);
        if value.starts_with("--") {
            // As a separate word, such a value is taken for the next option.
            let line = two.unwrap_err();
            assert!(line.contains("needs a value") || one == Err(line));
        } else {
            assert_eq!(one, two);
        }
        // The later of two values of an option counts.
        let (before, serve) = (random.pick(&VALUES), random.pick(COMMANDS));
        if let (Ok(alone), Ok(_)) = (&one, parse(&[format!("--{name}={before}")])) {
            let after = parse(&[
                serve.to_owned(),
                format!("--{name}={before}"),
                format!("--{name}={value}"),
            ]);
            assert_eq!(after.unwrap().replace("demo: true", "demo: false"), *alone);
        }
    });
}

/// Returns the number that digits and a unit mean, in the smallest unit; `None` if the
/// text is not a number with a unit.
fn amount(value: &str, units: &[(&str, u128)]) -> Option<u128> {
    let end = value
        .find(|found: char| !found.is_ascii_digit())
        .unwrap_or(value.len());
    let (digits, unit) = value.split_at(end);
    let (_, times) = units.iter().find(|(name, _)| *name == unit)?;
    // Leading zeros do not count as digits, however many there are.
    let significant = digits.trim_start_matches('0');
    match digits {
        "" => None,
        _ if significant.len() > 20 => Some(u128::MAX),
        _ => Some(format!("0{significant}").parse::<u128>().ok()? * times),
    }
}

#[test]
fn a_random_number_has_its_exact_value_or_is_rejected() {
    const SIZES: [(&str, u128); 4] = [
        ("", 1),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
    ];
    const TIMES: [(&str, u128); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    let mutator = Mutator {
        corpus: VALUES.map(|value| value.as_bytes().to_vec()).into(),
        words: &[
            "KiB",
            "MiB",
            "GiB",
            "ms",
            "s",
            "m",
            "h",
            "0",
            "9",
            "00000000000000000000",
        ],
    };
    let make = |random: &mut Random| String::from_utf8_lossy(&mutator.input(random).0).into_owned();
    cases(1, make, |value, _| {
        // `None`: the value is not a number. `Some(None)`: it is a number outside of the
        // allowed range.
        let set =
            |name: &str| match args::parse([format!("--{name}={value}").into()].into_iter(), |_| {
                None
            }) {
                Ok(Command::Serve(options)) => Some(Some(options.config)),
                Ok(other) => panic!("{other:?}"),
                Err(line) if line.contains("it must be a") => None,
                Err(_) => Some(None),
            };
        let (size, time) = (amount(value, &SIZES), amount(value, &TIMES));
        let size = size.filter(|size| *size <= usize::MAX as u128);
        let time = time.filter(|ms| *ms <= u64::MAX as u128);
        let (body, retry) = (set("max-body"), set("retry"));
        assert_eq!(body.is_some(), size.is_some(), "as a size");
        assert_eq!(retry.is_some(), time.is_some(), "as a time");
        if let (Some(Some(config)), Some(size)) = (body, size) {
            assert_eq!(config.max_body as u128, size);
        }
        if let (Some(Some(config)), Some(ms)) = (retry, time) {
            assert_eq!(config.retry.as_millis(), ms);
        }
    });
}
