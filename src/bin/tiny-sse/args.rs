//! Turns the command line and the environment into a [`Command`], or into one line that
//! says what is wrong.
//!
//! `main.rs` calls [`parse`] once, before the first thread starts. All options are rows
//! of one table, [`OPTIONS`]: the name, the syntax of the value, the field that the value
//! is stored in, and the help text. Parsing, `--help`, the environment variables and the
//! suggestions for misspelt names all read this table, so a new option is one new row.
//!
//! A default is not written here: `--help` reads it from [`Config::default()`].
//!
//! LIMIT: an error message is one line, and quotes at most 200 bytes of a value, because
//! a value can be as long as the system's longest command line. A word that may be a
//! token is not quoted at all, or only its first bytes.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::deploy::configuration;
use crate::listen::Listen;
use crate::log::cut;
#[cfg(feature = "access")]
use crate::token::{self, TokenRequest};
use tiny_sse::{Config, Level, Overload};

/// What the command line asks the program to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Run the server with these options, until a signal ends it.
    Serve(Box<Options>),
    /// Write this text to standard output and exit: the help, the version, or a
    /// configuration file.
    Print(String),
    /// Write a signed token to standard output and exit.
    #[cfg(feature = "access")]
    Token(Box<TokenRequest>),
}

/// All options of the server. The program's own are fields here; the library's are in
/// `config`.
#[derive(Debug)]
pub(crate) struct Options {
    /// The address to listen on.
    pub(crate) listen: Listen,
    /// The least important level that is logged; `None` logs nothing.
    pub(crate) log: Option<Level>,
    /// Whether the six example uses are served too. Always false without the feature
    /// `demo`.
    pub(crate) demo: bool,
    /// The library's limits. [`parse`] checks them before it returns.
    pub(crate) config: Config,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            listen: "127.0.0.1:8080"
                .parse()
                .expect("BUG: the default address is invalid"),
            log: Some(Level::default()),
            demo: false,
            config: Config::default(),
        }
    }
}

/// One option: a row of the table.
struct OptionRow {
    /// The name without the two dashes.
    name: &'static str,
    /// How a value is written.
    syntax: Syntax,
    /// Returns the field that the value is stored in.
    field: fn(&mut Options) -> &mut dyn Setting,
    /// The text in `--help`. It has at most 37 characters if a default follows it, so
    /// that a line has 80 columns.
    help: &'static str,
    /// An environment variable that can set the option too; empty if there is none. The
    /// command line takes precedence. Secrets have a variable because every user of the
    /// machine can read a command line.
    variable: &'static str,
}

/// Makes rows of the table. Each is `"name", syntax, field, "help";`, with `, "VARIABLE"`
/// before the semicolon if the option has an environment variable.
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

/// All options, in the order of `--help`. The options of a cargo feature form one group,
/// so that one `cfg` is enough.
const OPTIONS: &[&[OptionRow]] = &[
    rows! {
        "listen", word("ADDR", ""), listen, "address and port to listen on";
        "max-clients", COUNT, config.max_clients, "streams open at the same time";
        "extra-connections", COUNT, config.extra_connections, "connections besides those streams";
        "max-per-ip", LIMIT, config.max_per_ip, "connections from one address, or off";
        "trust-proxy", word("ADDR", ""), config.trust_proxy, "a proxy or network to trust, repeatable";
        "heartbeat", TIME, config.heartbeat, "heartbeat interval of a silent stream";
        "retry", TIME, config.retry, "delay before a client reconnects";
        "retry-jitter", PERCENT, config.retry_jitter, "maximum random addition to --retry";
        "overload", word("HOW", "refuse or retry"), config.overload, "at --max-clients: refuse or retry";
        "history", COUNT, config.history_events, "events kept for replay, 0 for none";
        "history-bytes", SIZE, config.history_bytes, "maximum size of these events";
    },
    #[cfg(feature = "journal")]
    rows! {
        "journal", word("DIR", "a path"), config.journal.dir, "keep events in files in this directory";
        "sync", word("WHEN", "always, interval or off"), config.journal.sync, "fsync: always, interval or off";
        "repair", FLAG, config.journal.repair, "start without the damaged part of a journal";
    },
    rows! {
        "queue-bytes", SIZE, config.queue_bytes, "maximum backlog of one client";
        "total-queues", AUTO_SIZE, config.total_queues, "maximum total backlog, or auto";
        "send-buffer", AUTO_SIZE, config.send_buffer, "send buffer of a socket, or auto";
        "write-timeout", TIME, config.write_timeout, "time limit of one write to a client";
        "max-body", SIZE, config.max_body, "maximum size of a request body";
        "total-bodies", SIZE, config.total_bodies, "maximum size of all request bodies";
        "total-answers", SIZE, config.total_answers, "maximum size of all answers";
        "max-head", SIZE, config.max_head, "maximum size of a request head";
        "max-fields", COUNT, config.max_fields, "maximum header fields of a request";
        "max-target", SIZE, config.max_target, "maximum size of a path and its query";
        "max-patterns", COUNT, config.max_patterns, "maximum topic patterns of one client";
        "head-timeout", TIME, config.head_timeout, "time limit to receive a request head";
        "body-timeout", TIME, config.body_timeout, "time limit to receive a request body";
        "idle-timeout", TIME, config.idle_timeout, "time limit between two requests";
        "grace", TIME, config.grace, "time limit of a shutdown";
        "stack-bytes", SIZE, config.stack_bytes, "stack of the thread of a connection";
        "open", FLAG, config.open, "allow everything to every client";
        "public", word("PATTERN", ""), config.public, "topic open to every client, repeatable";
    },
    #[cfg(feature = "access")]
    rows! {
        "publish-token", TOKEN, config.access.publish_token, "token required to publish",
            "TINY_SSE_PUBLISH_TOKEN";
        "subscribe-token", TOKEN, config.access.subscribe_token, "token required to subscribe",
            "TINY_SSE_SUBSCRIBE_TOKEN";
        "tokens", word("FILE", "a path"), config.access.tokens, "file of tokens for some topics; SIGHUP reloads it",
            "TINY_SSE_TOKENS";
        "jwt-key", word("FILE", "a path"), config.access.jwt_key_file, "file of keys of signed tokens (JWT, HS256)";
        "jwt-audience", word("NAME", ""), config.access.jwt_audience, "claim aud that signed tokens must have";
        "cors-origin", word("ORIGIN", ""), config.access.cors_origins, "origin whose pages may publish, repeatable";
    },
    #[cfg(feature = "console")]
    rows! {
        "console", word("WHEN", "on, off or auto"), config.console, "console page at /: on, off or auto";
    },
    rows! {
        "log", LEVEL, log, "level: off, error, warn, info, debug";
    },
];

/// The commands, each with its argument and its help text; an empty text has no line in
/// `--help`. A command can only be the first word; without one the program serves.
const COMMANDS: &[(&str, &str, &str)] = &[
    ("serve", "", "run the server; this is the default"),
    #[cfg(feature = "demo")]
    ("demo", "", "run the server with six example uses"),
    (
        "config",
        "NAME",
        "print a file for nginx, caddy, haproxy, systemd or openwrt",
    ),
    #[cfg(feature = "access")]
    (
        "token",
        "--OPTION VALUE...",
        "print a signed token: tiny-sse token --help",
    ),
];

/// Returns the rows of all groups.
fn rows() -> impl Iterator<Item = &'static OptionRow> {
    OPTIONS.iter().copied().flatten()
}

/// How the values of an option are written.
#[derive(Clone, Copy)]
pub(crate) struct Syntax {
    /// The word that stands for the value in `--help`, such as `SIZE`. It is empty for a
    /// flag: an option without a value.
    placeholder: &'static str,
    /// The end of the message "…, it must be …". If it is empty, the error of the value's
    /// type is used instead.
    must_be: &'static str,
    /// The units of a number, each with its size in the smallest unit. Parsing takes the
    /// first unit that the text ends with. A unit that is a suffix of another therefore
    /// comes after the other: `s` after `ms`, and `""` last.
    units: &'static [(&'static str, u64)],
    /// The word that sets an optional field to `None`, such as `off`.
    none: Option<&'static str>,
}

/// A number with one of these units.
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

/// A value without units: its type parses the text.
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
pub(crate) const TIME: Syntax = number("TIME", "a time, such as 15s, 500ms or 2m", &TIMES);
/// The smallest unit is the millisecond.
const TIMES: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];

impl Syntax {
    /// Returns this syntax with one more value: the word `none`, which sets an optional
    /// field to `None`.
    const fn or(self, none: &'static str, must_be: &'static str) -> Syntax {
        Syntax {
            none: Some(none),
            must_be,
            ..self
        }
    }

    /// Returns the number that the text means, in the smallest unit. The error is the end
    /// of a message, as for [`Setting::set`]: no known unit, anything but digits before
    /// the unit, or a number too large for the type.
    pub(crate) fn number<T: TryFrom<u64>>(&self, text: &str) -> Result<T, String> {
        let unit = |(unit, size): &(&str, u64)| Some((text.strip_suffix(unit)?, *size));
        let number = self.units.iter().find_map(unit);
        number
            .and_then(|(digits, size)| parse_digits(digits)?.checked_mul(size))
            .and_then(|number| number.try_into().ok())
            .ok_or_else(|| must_be(text, self.must_be))
    }

    /// Writes a number in the largest unit that divides it: 65536 bytes are `64KiB`, 1500
    /// ms are `1500ms`.
    fn show(&self, number: u64) -> String {
        let units = self.units.iter().copied();
        let fitting = units.filter(|(_, size)| number.is_multiple_of(*size));
        let (unit, size) = fitting
            .max_by_key(|(_, size)| *size)
            .expect("BUG: the smallest unit is missing");
        format!("{}{unit}", number / size)
    }
}

/// Parses digits and nothing else. std's `parse` alone would also accept a `+`.
fn parse_digits(digits: &str) -> Option<u64> {
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        digits.parse().ok()
    } else {
        None
    }
}

/// A field of [`Options`] that an option can set. One implementation for each type of
/// field.
trait Setting {
    /// Parses the text and stores the value. The error is the end of a message that
    /// begins with the option's name: `--retry` is followed by
    /// `is "x", it must be a time, such as …`.
    fn set(&mut self, text: &str, syntax: &Syntax) -> Result<(), String>;

    /// Returns the value as it is written on the command line, for the default in
    /// `--help`. It is empty for a type whose default is not shown.
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

/// A flag: its presence sets the field to true. There is no text to parse.
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

#[cfg(feature = "access")]
impl Setting for String {
    fn set(&mut self, text: &str, _: &Syntax) -> Result<(), String> {
        *self = text.into();
        Ok(())
    }
}

/// A type that has its own syntax: `FromStr` parses a value, `Display` writes one. The
/// trait lists these types, because an implementation of [`Setting`] for every
/// `T: FromStr` would collide with those above.
trait TextSetting: FromStr<Err: Display> + Display {}

impl TextSetting for Listen {}
impl TextSetting for Level {}
impl TextSetting for Overload {}
#[cfg(feature = "console")]
impl TextSetting for tiny_sse::Console {}
#[cfg(feature = "journal")]
impl TextSetting for tiny_sse::store::SyncMode {}

impl<T: TextSetting> Setting for T {
    fn set(&mut self, text: &str, syntax: &Syntax) -> Result<(), String> {
        *self = parse_value(text, syntax)?;
        Ok(())
    }

    fn show(&self, _: &Syntax) -> String {
        self.to_string()
    }
}

/// The word `syntax.none` sets the field to `None`; any other text is parsed as a `T`.
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

/// An option that can be repeated: each value is appended. One text can also have several
/// values, separated by commas.
impl<T: FromStr<Err: Display>> Setting for Vec<T> {
    fn set(&mut self, text: &str, syntax: &Syntax) -> Result<(), String> {
        for text in text.split(',').map(str::trim) {
            self.push(parse_value(text, syntax)?);
        }
        Ok(())
    }
}

/// An option that can be repeated. A topic may contain a comma, so a value is one topic.
impl Setting for tiny_sse::Patterns {
    fn set(&mut self, text: &str, syntax: &Syntax) -> Result<(), String> {
        let pattern: tiny_sse::Pattern = parse_value(text, syntax)?;
        *self = self.iter().cloned().chain([pattern]).collect();
        Ok(())
    }
}

/// A token is not a [`TextSetting`], because an error message must not quote a token.
#[cfg(feature = "access")]
impl Setting for Option<tiny_sse::Token> {
    fn set(&mut self, text: &str, _: &Syntax) -> Result<(), String> {
        *self = Some(text.parse().map_err(|error| format!("is wrong: {error}"))?);
        Ok(())
    }
}

/// Parses a value of a type that has its own syntax. The error is the end of a message,
/// as for [`Setting::set`].
fn parse_value<T: FromStr<Err: Display>>(text: &str, syntax: &Syntax) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| match syntax.must_be {
        "" => match error.to_string() {
            // This error quotes the text itself.
            error if error.starts_with('"') => format!("is wrong: {error}"),
            expected => must_be(text, &expected),
        },
        known => must_be(text, known),
    })
}

/// Returns the end of a message: `is "x", it must be …`.
fn must_be(text: &str, expected: &str) -> String {
    let mut text = text.to_owned();
    // LIMIT: bytes of a value that a message quotes.
    cut(&mut text, 200);
    format!("is {text:?}, it must be {expected}")
}

impl OptionRow {
    /// Parses the text and stores the value in the option's field. The error is a whole
    /// message.
    fn set(&self, options: &mut Options, text: &str) -> Result<(), String> {
        let outcome = (self.field)(options).set(text, &self.syntax);
        outcome.map_err(|wrong| format!("--{} {wrong}", self.name))
    }
}

/// Turns the words after the program's name and the environment variables into a command.
///
/// The command line is read from left to right. `--help` and `--version` end it at once,
/// whatever follows them. If an option is given twice, the later value counts; a
/// repeatable option has both. Then come the variables of options that the command line
/// has not set, and at last the check of all limits together.
///
/// # Errors
///
/// One line for the user, without line breaks: an unknown or misplaced word, a missing or
/// invalid value, or limits that contradict each other.
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
            #[cfg(feature = "access")]
            if word == "token" {
                return token::parse(&mut words, &environment);
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
            .map_err(|error| format!("{}: {error}", row.variable))?;
    }
    #[cfg(feature = "access")]
    if let Some(value) = environment(KEY_VARIABLE).filter(|_| !given.contains(&"jwt-key")) {
        let value = value.into_string();
        let value = value.map_err(|_| format!("{KEY_VARIABLE} is not UTF-8"))?;
        let key = value.parse();
        let key = key.map_err(|error| format!("{KEY_VARIABLE}: {error}"))?;
        options.config.access.jwt_keys.push(key);
    }
    let checked = options.config.check();
    checked.map_err(|error| format!("--{error}"))?;
    Ok(Command::Serve(Box::new(options)))
}

/// Sets the option of one word: `name=value`, or `name`, whose value is then the next
/// word. Returns the option's row.
fn set(
    options: &mut Options,
    option: &str,
    words: &mut dyn Iterator<Item = Result<String, String>>,
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
        value => value_of(name, value, row.help, words)?,
    };
    row.set(options, &value)?;
    Ok(row)
}

/// Returns the value of an option: the one after `=`, or else the next word.
pub(crate) fn value_of(
    name: &str,
    value: Option<String>,
    help: &str,
    words: &mut dyn Iterator<Item = Result<String, String>>,
) -> Result<String, String> {
    match value {
        Some(value) => Ok(value),
        // A word that begins with `--` is an option and never a value. Otherwise
        // `--publish-token $UNSET --open` would make `--open` the token.
        None => words
            .next()
            .transpose()?
            .filter(|value| !value.starts_with("--"))
            .ok_or_else(|| format!("--{name} needs a value: {help}")),
    }
}

/// Returns the message about a word that is not UTF-8. It quotes the option's name and
/// nothing else, because the value, or a word that is not an option, may be a token.
fn not_text(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    match text.split_once('=') {
        Some((option, _)) if option.starts_with("--") => {
            format!("the value of {} is not UTF-8", option.escape_debug())
        }
        _ => "a word of the command line is not UTF-8".into(),
    }
}

/// Returns the message about an unknown option or command, with the most similar known
/// word if one is similar.
///
/// The unknown word may contain a token (`--publish-token-s3cret`). It is quoted in full
/// only if it is similar to a known word and at most two letters longer.
fn unknown<'a>(kind: &str, word: &str, known: impl Iterator<Item = &'a str>) -> String {
    let bare = word.trim_start_matches('-');
    let nearest = known
        .min_by_key(|name| edit_distance(bare, name))
        .expect("BUG: the list of known words is empty");
    let dashes = &word[..word.len() - bare.len()];
    let is_near = edit_distance(bare, nearest) <= nearest.len().max(4) / 2;
    let mut shown = word.to_owned();
    if !is_near || bare.len() > nearest.len() + 2 {
        cut(&mut shown, dashes.len() + SHOWN_BYTES);
    }
    // Escaped, because a line break would split the message, and a terminal would obey an
    // escape sequence.
    let shown = shown.escape_debug();
    if is_near {
        format!("unknown {kind} {shown}, did you mean {dashes}{nearest}?")
    } else {
        format!("unknown {kind} {shown}; see tiny-sse --help")
    }
}

/// How many bytes of an unknown word a message quotes. The word may be a token, and four
/// bytes do not help to guess it.
const SHOWN_BYTES: usize = 4;

/// Returns how many bytes must be inserted, deleted or changed to turn one word into the
/// other (the Levenshtein distance). `row[j]` is the distance from the bytes of `from`
/// seen so far to the first `j` bytes of `to`.
fn edit_distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        // `corner` is the value above and to the left, which the row no longer has.
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.bytes().enumerate() {
            let changed = corner + usize::from(a != b);
            let least = changed.min(row[j] + 1).min(row[j + 1] + 1);
            corner = std::mem::replace(&mut row[j + 1], least);
        }
    }
    row[to.len()]
}

/// The environment variable that is a key of signed tokens. It is not the variable of an
/// option: `--jwt-key` is a file.
#[cfg(feature = "access")]
pub(crate) const KEY_VARIABLE: &str = "TINY_SSE_JWT_KEY";

/// The name and the version of the program.
pub(crate) const VERSION: &str = concat!("tiny-sse ", env!("CARGO_PKG_VERSION"));

/// Returns the text of `--help`. Each option has one line: its name, its help text, and
/// its default in brackets.
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
    text += "  --help, --version       print this help, or the version\n\n\
        TIME is a number with a unit: 500ms, 15s, 2m or 1h.\n\
        SIZE is a number of bytes, or has a unit: 64KiB, 1MiB or 1GiB.\n";
    let variables: Vec<&str> = rows()
        .map(|row| row.variable)
        .filter(|name| !name.is_empty())
        .collect();
    if !variables.is_empty() {
        text += &format!(
            "These environment variables set the option of that name:\n{}\n",
            variables.join(", ")
        );
    }
    #[cfg(feature = "access")]
    {
        text += &format!(
            "{KEY_VARIABLE} is a key of signed tokens itself, instead of --jwt-key FILE.\n"
        );
    }
    text
}
