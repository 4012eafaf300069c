//! Turns the command line into options, or into one line that says what is wrong with it.
//!
//! The options are one table, a line each: the name, how a value is written, the field that has the value, and
//! the help. Parsing, `--help`, the environment and the nearest right name all read this table.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::deploy::configuration;
use crate::listen::Listen;
use crate::log::cut;
use tiny_sse::{Config, Level, Overload};

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Command {
    /// To serve.
    Serve(Box<Options>),
    /// To print this and be done.
    Print(String),
}

/// How to serve.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) listen: Listen,
    /// The least important lines that are logged; `None` logs nothing.
    pub(crate) log: Option<Level>,
    /// Whether the six uses are served too. Never without the feature `demo`.
    pub(crate) demo: bool,
    pub(crate) config: Config,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            listen: "127.0.0.1:8080".parse().expect("BUG: no address"),
            log: Some(Level::default()),
            demo: false,
            config: Config::default(),
        }
    }
}

/// A line of the table.
struct OptionRow {
    name: &'static str,
    syntax: Syntax,
    field: fn(&mut Options) -> &mut dyn Setting,
    help: &'static str,
    /// The variable of the environment that may have the value too, so that a secret need not stand where every
    /// user of the machine may read it; empty if there is none. The command line wins.
    variable: &'static str,
}

/// `"name", syntax, field, "help";` for each option, with `"VARIABLE"` at the end if it has one.
macro_rules! rows {
    ($($name:literal, $syntax:expr, $($field:ident).+, $help:literal $(, $variable:literal)?;)*) => {
        &[$(OptionRow {
            name: $name,
            syntax: $syntax,
            field: |options| &mut options.$($field).+,
            help: $help,
            variable: concat!($($variable)?),
        }),*]
    };
}

/// All options, in the order of `--help`. Those of a feature stand together.
const OPTIONS: &[&[OptionRow]] = &[
    rows! {
        "listen", word("ADDR", ""), listen, "where to listen";
        "max-clients", COUNT, config.max_clients, "streams at the same time";
        "extra-connections", COUNT, config.extra_connections, "connections beyond those";
        "max-per-ip", LIMIT, config.max_per_ip, "connections of one address, or off";
        "trust-proxy", word("ADDR", ""), config.trust_proxy, "a proxy or network to believe, repeatable";
        "heartbeat", TIME, config.heartbeat, "a silent stream beats this often";
        "retry", TIME, config.retry, "clients wait this long to reconnect";
        "retry-jitter", PERCENT, config.retry_jitter, "up to so much longer, each its own";
        "overload", word("HOW", "refuse or retry"), config.overload, "one client too many: refuse or retry";
        "history", COUNT, config.history_events, "events kept for replays, or 0";
        "history-bytes", SIZE, config.history_bytes, "bytes of them, at the most";
    },
    #[cfg(feature = "journal")]
    rows! {
        "journal", word("DIR", "a path"), config.journal.dir, "keep events in files there";
        "sync", word("WHEN", "always, interval or off"), config.journal.sync, "always, interval or off";
        "repair", FLAG, config.journal.repair, "go on without what is damaged in it";
    },
    rows! {
        "queue-bytes", SIZE, config.queue_bytes, "bytes that may wait for one client";
        "total-queues", AUTO_SIZE, config.total_queues, "bytes that may wait for all clients";
        "send-buffer", AUTO_SIZE, config.send_buffer, "the kernel's buffer for one, or auto";
        "write-timeout", TIME, config.write_timeout, "for one write to a client";
        "max-body", SIZE, config.max_body, "bytes of a request's body";
        "total-bodies", SIZE, config.total_bodies, "bytes of the bodies of all requests";
        "total-answers", SIZE, config.total_answers, "bytes of all answers being written";
        "max-head", SIZE, config.max_head, "bytes of a request's head";
        "max-fields", COUNT, config.max_fields, "header fields of a request";
        "max-target", SIZE, config.max_target, "bytes of a request's path and query";
        "max-patterns", COUNT, config.max_patterns, "topics and patterns of one client";
        "head-timeout", TIME, config.head_timeout, "for the head to arrive";
        "body-timeout", TIME, config.body_timeout, "for the body to arrive";
        "idle-timeout", TIME, config.idle_timeout, "between two requests of a connection";
        "grace", TIME, config.grace, "for streams to end at shutdown";
        "stack-bytes", SIZE, config.stack_bytes, "stack of a connection's thread";
        "open", FLAG, config.open, "let every client publish";
    },
    #[cfg(feature = "access")]
    rows! {
        "publish-token", TOKEN, config.access.publish_token, "needed to publish",
            "TINY_SSE_PUBLISH_TOKEN";
        "subscribe-token", TOKEN, config.access.subscribe_token, "needed to subscribe",
            "TINY_SSE_SUBSCRIBE_TOKEN";
        "tokens", word("FILE", "a path"), config.access.tokens, "tokens for some topics; SIGHUP reads it again",
            "TINY_SSE_TOKENS";
        "cors-origin", word("ORIGIN", ""), config.access.cors_origins, "whose pages may publish, repeatable";
    },
    #[cfg(feature = "console")]
    rows! {
        "console", word("WHEN", "on, off or auto"), config.console, "the page at /: on, off or auto";
    },
    rows! {
        "log", LEVEL, log, "off, error, warn, info or debug";
    },
];

/// The commands that may be the first word, each with its argument and its line of `--help` if it has one.
const COMMANDS: &[(&str, &str, &str)] = &[
    ("serve", "", ""),
    #[cfg(feature = "demo")]
    ("demo", "", "serve, with six example uses in front"),
    (
        "config",
        "NAME",
        "print a file for nginx, caddy, haproxy, systemd or openwrt",
    ),
];

fn rows() -> impl Iterator<Item = &'static OptionRow> {
    OPTIONS.iter().copied().flatten()
}

/// How the values of an option are written.
#[derive(Clone, Copy)]
struct Syntax {
    /// The place of the value in `--help`; empty if the option has no value.
    placeholder: &'static str,
    /// What a message says that a value must be; empty if the error of the value's type says it.
    must_be: &'static str,
    /// The units of a number, each with its size in the smallest one, and a suffix of another after it.
    units: &'static [(&'static str, u64)],
    /// The word for no value.
    none: Option<&'static str>,
}

const fn number(
    placeholder: &'static str,
    must_be: &'static str,
    units: &'static [(&'static str, u64)],
) -> Syntax {
    Syntax {
        placeholder,
        must_be,
        units,
        none: None,
    }
}

const fn word(placeholder: &'static str, must_be: &'static str) -> Syntax {
    number(placeholder, must_be, &[])
}

const FLAG: Syntax = word("", "");
const LEVEL: Syntax = word("LEVEL", "").or("off", "off, error, warn, info or debug");
#[cfg(feature = "access")]
const TOKEN: Syntax = word("TOKEN", "");
const COUNT: Syntax = number("N", "a whole number, such as 1000", &[("", 1)]);
const LIMIT: Syntax = COUNT.or("off", "a whole number, or off");
const PERCENT: Syntax = number("PERCENT", "a percentage, such as 50%", &[("%", 1)]);
const SIZE: Syntax = number("SIZE", "a size, such as 65536, 64KiB or 1MiB", &SIZES);
const SIZES: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("", 1),
];
const AUTO_SIZE: Syntax = SIZE.or("auto", "a size, such as 64KiB, or auto");
const TIME: Syntax = number("TIME", "a time, such as 15s, 500ms or 2m", &TIMES);
/// In milliseconds.
const TIMES: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];

impl Syntax {
    /// The same, with a word for no value.
    const fn or(self, none: &'static str, must_be: &'static str) -> Syntax {
        Syntax {
            none: Some(none),
            must_be,
            ..self
        }
    }

    fn number<T: TryFrom<u64>>(&self, text: &str) -> Result<T, String> {
        let unit = |(unit, size): &(&str, u64)| Some((text.strip_suffix(unit)?, *size));
        let number = self.units.iter().find_map(unit);
        number
            .and_then(|(digits, size)| whole(digits)?.checked_mul(size))
            .and_then(|number| number.try_into().ok())
            .ok_or_else(|| must_be(text, self.must_be))
    }

    fn show(&self, number: u64) -> String {
        let units = self.units.iter().copied();
        let fitting = units.filter(|(_, size)| number.is_multiple_of(*size));
        let (unit, size) = fitting
            .max_by_key(|(_, size)| *size)
            .expect("BUG: a number without a unit");
        format!("{}{unit}", number / size)
    }
}

/// Digits and nothing else; std's `parse` would also take a `+`.
fn whole(digits: &str) -> Option<u64> {
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        digits.parse().ok()
    } else {
        None
    }
}

/// A field that an option sets.
trait Setting {
    /// The error is the end of a sentence that begins with the option.
    fn set(&mut self, text: &str, syntax: &Syntax) -> Result<(), String>;

    /// As the value would be written; empty for a type whose default `--help` does not show.
    fn show(&self, _: &Syntax) -> String {
        String::new()
    }
}

impl Setting for usize {
    fn set(&mut self, text: &str, syntax: &Syntax) -> Result<(), String> {
        *self = syntax.number(text)?;
        Ok(())
    }

    fn show(&self, syntax: &Syntax) -> String {
        syntax.show(*self as u64)
    }
}

impl Setting for u32 {
    fn set(&mut self, text: &str, syntax: &Syntax) -> Result<(), String> {
        *self = syntax.number(text)?;
        Ok(())
    }

    fn show(&self, syntax: &Syntax) -> String {
        syntax.show((*self).into())
    }
}

impl Setting for Duration {
    fn set(&mut self, text: &str, syntax: &Syntax) -> Result<(), String> {
        *self = Duration::from_millis(syntax.number(text)?);
        Ok(())
    }

    fn show(&self, syntax: &Syntax) -> String {
        syntax.show(self.as_millis() as u64)
    }
}

/// An option without a value is set by being there.
impl Setting for bool {
    fn set(&mut self, _: &str, _: &Syntax) -> Result<(), String> {
        *self = true;
        Ok(())
    }
}

impl Setting for PathBuf {
    fn set(&mut self, text: &str, syntax: &Syntax) -> Result<(), String> {
        *self = text.into();
        if text.is_empty() {
            return Err(must_be(text, syntax.must_be));
        }
        Ok(())
    }
}

/// A type that std's traits read and write.
trait Word: FromStr<Err: Display> + Display {}

impl Word for Listen {}
impl Word for Level {}
impl Word for Overload {}
#[cfg(feature = "console")]
impl Word for tiny_sse::Console {}
#[cfg(feature = "journal")]
impl Word for tiny_sse::store::SyncMode {}

impl<T: Word> Setting for T {
    fn set(&mut self, text: &str, syntax: &Syntax) -> Result<(), String> {
        *self = parsed(text, syntax)?;
        Ok(())
    }

    fn show(&self, _: &Syntax) -> String {
        self.to_string()
    }
}

impl<T: Setting + Default> Setting for Option<T> {
    fn set(&mut self, text: &str, syntax: &Syntax) -> Result<(), String> {
        if syntax.none == Some(text) {
            *self = None;
            return Ok(());
        }
        self.insert(T::default()).set(text, syntax)
    }

    fn show(&self, syntax: &Syntax) -> String {
        let none = || syntax.none.unwrap_or_default().into();
        self.as_ref().map_or_else(none, |value| value.show(syntax))
    }
}

/// Values between commas, or each with the option's name, are added to those before them.
impl<T: FromStr<Err: Display>> Setting for Vec<T> {
    fn set(&mut self, text: &str, syntax: &Syntax) -> Result<(), String> {
        for text in text.split(',').map(str::trim) {
            self.push(parsed(text, syntax)?);
        }
        Ok(())
    }
}

/// A message does not show a token.
#[cfg(feature = "access")]
impl Setting for Option<tiny_sse::Token> {
    fn set(&mut self, text: &str, _: &Syntax) -> Result<(), String> {
        *self = Some(text.parse().map_err(|error| format!("is wrong: {error}"))?);
        Ok(())
    }
}

fn parsed<T: FromStr<Err: Display>>(text: &str, syntax: &Syntax) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| match syntax.must_be {
        "" => match error.to_string() {
            // It quotes the text itself.
            whole if whole.starts_with('"') => format!("is wrong: {whole}"),
            what => must_be(text, &what),
        },
        known => must_be(text, known),
    })
}

/// LIMIT: what is quoted is cut; a value may be as long as the system's longest command line.
fn must_be(text: &str, what: &str) -> String {
    let mut text = text.to_owned();
    cut(&mut text, 200);
    format!("is {text:?}, it must be {what}")
}

impl OptionRow {
    fn set(&self, options: &mut Options, text: &str) -> Result<(), String> {
        let outcome = (self.field)(options).set(text, &self.syntax);
        outcome.map_err(|wrong| format!("--{} {wrong}", self.name))
    }
}

/// Reads the words after the program's name, and the variables of the environment.
pub(crate) fn parse(
    words: impl Iterator<Item = OsString>,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, String> {
    let (mut options, mut given) = (Options::default(), Vec::new());
    let mut words = words.map(|word| word.into_string().map_err(|word| not_text(&word)));
    let mut is_first = true;
    while let Some(word) = words.next().transpose()? {
        match &*word {
            "-h" | "--help" | "help" => return Ok(Command::Print(help())),
            "-V" | "--version" => return Ok(Command::Print(format!("{VERSION}\n"))),
            _ => {}
        }
        if let Some(option) = word.strip_prefix("--") {
            let row = set(&mut options, option, &mut words)?;
            given.push(row.name);
        } else if COMMANDS.iter().any(|(command, ..)| *command == word) {
            if !is_first {
                return Err(format!("{word} must be the first word"));
            }
            if word == "config" {
                let name = words.next().transpose()?;
                let text = configuration(name.as_deref())?;
                return match words.next().transpose()? {
                    None => Ok(Command::Print(text)),
                    Some(_) => Err("config takes one name and nothing after it".into()),
                };
            }
            options.demo = word == "demo";
        } else {
            let commands = COMMANDS.iter().map(|(command, ..)| *command);
            return Err(unknown("command", &word, commands.chain(["help"])));
        }
        is_first = false;
    }
    for row in rows().filter(|row| !row.variable.is_empty() && !given.contains(&row.name)) {
        let Some(value) = environment(row.variable) else {
            continue;
        };
        let value = value
            .into_string()
            .map_err(|_| format!("{} is not UTF-8", row.variable))?;
        row.set(&mut options, &value)
            .map_err(|error| format!("{}, for {error}", row.variable))?;
    }
    let checked = options.config.check();
    checked.map_err(|error| format!("--{error}"))?;
    Ok(Command::Serve(Box::new(options)))
}

/// Sets `name=value` or `name`, whose value is then the next word.
fn set(
    options: &mut Options,
    option: &str,
    words: &mut impl Iterator<Item = Result<String, String>>,
) -> Result<&'static OptionRow, String> {
    let (name, value) = match option.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (option, None),
    };
    let Some(row) = rows().find(|row| row.name == name) else {
        let names = rows().map(|row| row.name);
        return Err(unknown("option", &format!("--{name}"), names));
    };
    let is_flag = row.syntax.placeholder.is_empty();
    let value = match value {
        Some(_) if is_flag => return Err(format!("--{name} takes no value")),
        None if is_flag => String::new(),
        Some(value) => value,
        // Another option is no value: with `--publish-token $UNSET --open` its name would be the token.
        None => words
            .next()
            .transpose()?
            .filter(|value| !value.starts_with("--"))
            .ok_or_else(|| format!("--{name} needs a value: {}", row.help))?,
    };
    row.set(options, &value)?;
    Ok(row)
}

/// The text after `=`, or a word alone, is not shown: it may be a token.
fn not_text(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    match text.split_once('=') {
        Some((option, _)) if option.starts_with("--") => {
            format!("the value of {} is not UTF-8", option.escape_debug())
        }
        _ => "a word of the command line is not UTF-8".into(),
    }
}

/// Names the nearest known word. The unknown word may be a token in the wrong place
/// (`--publish-token-s3cret`), so it is shown in full only if it is similar to a known word and hardly longer.
fn unknown<'a>(kind: &str, word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let bare = word.trim_start_matches('-');
    let nearest = known
        .min_by_key(|name| distance(bare, name))
        .expect("BUG: nothing is known");
    let dashes = &word[..word.len() - bare.len()];
    let is_near = distance(bare, nearest) <= nearest.len().max(4) / 2;
    let mut shown = word.to_owned();
    if !is_near || bare.len() > nearest.len() + 2 {
        cut(&mut shown, dashes.len() + SHOWN_BYTES);
    }
    // A line break in it would make two lines of this one, and an escape whatever it likes.
    let shown = shown.escape_debug();
    if is_near {
        format!("unknown {kind} {shown}, did you mean {dashes}{nearest}?")
    } else {
        format!("unknown {kind} {shown}; tiny-sse --help lists what there is")
    }
}

/// What is shown of a word that may be a token: less than helps to guess one.
const SHOWN_BYTES: usize = 4;

/// How many letters to insert, delete or change to get from one word to the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.bytes().enumerate() {
            let changed = corner + usize::from(a != b);
            let least = changed.min(row[j] + 1).min(row[j + 1] + 1);
            corner = std::mem::replace(&mut row[j + 1], least);
        }
    }
    row[to.len()]
}

/// The name and the version of the program.
pub(crate) const VERSION: &str = concat!("tiny-sse ", env!("CARGO_PKG_VERSION"));

fn help() -> String {
    let commands: Vec<&str> = COMMANDS.iter().map(|(command, ..)| *command).collect();
    let mut text = format!(
        "{VERSION}: a Server-Sent Events server\n\nusage: tiny-sse [{}] [--OPTION VALUE | --OPTION=VALUE]...\n\n",
        commands.join(" | ")
    );
    for (command, argument, help) in COMMANDS.iter().filter(|(.., help)| !help.is_empty()) {
        let left = format!("{command} {argument}");
        text += &format!("  {left:<23} {help}\n");
    }
    text += "\n";
    let mut defaults = Options::default();
    for row in rows() {
        let left = format!("--{} {}", row.name, row.syntax.placeholder);
        let default = (row.field)(&mut defaults).show(&row.syntax);
        text += &match &*default {
            "" => format!("  {left:<23} {}\n", row.help),
            _ => format!("  {left:<23} {:<37} [{default}]\n", row.help),
        };
    }
    text += "  --help, --version       print this, or the version\n\nTIME is 500ms, 15s, 2m or 1h; SIZE is bytes, or 64KiB, 1MiB, 1GiB.\n";
    let variables: Vec<&str> = rows()
        .map(|row| row.variable)
        .filter(|name| !name.is_empty())
        .collect();
    if !variables.is_empty() {
        text += &format!("The environment may set {}.\n", variables.join(", "));
    }
    text
}
