//! Turns the command line into options, or into one line that says what is wrong with it.
//!
//! The options are a table: parsing, `--help` and the nearest right name all read it, so that
//! none of them can forget one.

use std::ffi::{OsStr, OsString};
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::listen::Listen;
use crate::log::cut;
use tiny_sse::store::SyncMode;
use tiny_sse::{Config, Console, Level, Network, Origin, Overload, Token};

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
    /// Whether the six uses are served too.
    pub(crate) demo: bool,
    pub(crate) config: Config,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            listen: "127.0.0.1:8080".parse().expect("BUG: no address"),
            log: Some(Level::Warn),
            demo: false,
            config: Config::default(),
        }
    }
}

/// One line of the table.
struct Knob {
    name: &'static str,
    help: &'static str,
    target: Target,
}

/// Where an option's value goes, and so what it may be.
enum Target {
    Listen,
    Log,
    Sync,
    Overload,
    Console,
    Jitter,
    /// What never stands in a message.
    Token(fn(&mut Config) -> &mut Option<Token>),
    Path(&'static str, fn(&mut Config) -> &mut Option<PathBuf>),
    /// Set by being there.
    Flag(fn(&mut Config) -> &mut bool),
    Count(fn(&mut Config) -> &mut usize),
    /// A number, or no limit.
    Limit(fn(&mut Config) -> &mut Option<usize>),
    /// Values that are added to those before them, between commas or each with the option's name: how
    /// to add one, or what it must be.
    List(&'static str, fn(&mut Options, &str) -> Result<(), String>),
    Size(fn(&mut Config) -> &mut usize),
    /// A size, or one that the server chooses for the machine.
    AutoSize(fn(&mut Config) -> &mut Option<usize>),
    Time(fn(&mut Config) -> &mut Duration),
}

const fn knob(name: &'static str, target: Target, help: &'static str) -> Knob {
    Knob { name, help, target }
}

const KNOBS: [Knob; 37] = [
    knob("listen", Target::Listen, "where to listen"),
    knob(
        "max-clients",
        Target::Count(|c| &mut c.max_clients),
        "streams at the same time",
    ),
    knob(
        "extra-connections",
        Target::Count(|c| &mut c.extra_connections),
        "connections beyond those",
    ),
    knob(
        "max-per-ip",
        Target::Limit(|c| &mut c.max_per_ip),
        "connections of one address, or off",
    ),
    knob(
        "trust-proxy",
        Target::List("ADDR", add_proxy),
        "a proxy or network to believe, repeatable",
    ),
    knob(
        "heartbeat",
        Target::Time(|c| &mut c.heartbeat),
        "a silent stream beats this often",
    ),
    knob(
        "retry",
        Target::Time(|c| &mut c.retry),
        "clients wait this long to reconnect",
    ),
    knob(
        "retry-jitter",
        Target::Jitter,
        "up to so much longer, each its own",
    ),
    knob(
        "overload",
        Target::Overload,
        "one client too many: refuse or retry",
    ),
    knob(
        "history",
        Target::Count(|c| &mut c.history_events),
        "events kept for who comes back, or 0",
    ),
    knob(
        "history-bytes",
        Target::Size(|c| &mut c.history_bytes),
        "bytes of them, at the most",
    ),
    knob(
        "journal",
        Target::Path("DIR", |c| &mut c.journal.dir),
        "keep events in files there",
    ),
    knob("sync", Target::Sync, "always, interval or off"),
    knob(
        "repair",
        Target::Flag(|c| &mut c.journal.repair),
        "go on without what is damaged in it",
    ),
    knob(
        "queue-bytes",
        Target::Size(|c| &mut c.queue_bytes),
        "bytes that may wait for one client",
    ),
    knob(
        "total-queues",
        Target::AutoSize(|c| &mut c.total_queues),
        "bytes that may wait for all clients",
    ),
    knob(
        "send-buffer",
        Target::AutoSize(|c| &mut c.send_buffer),
        "the kernel's buffer for one, or auto",
    ),
    knob(
        "write-timeout",
        Target::Time(|c| &mut c.write_timeout),
        "for one write to a client",
    ),
    knob(
        "max-body",
        Target::Size(|c| &mut c.max_body),
        "bytes of a request's body",
    ),
    knob(
        "total-bodies",
        Target::Size(|c| &mut c.total_bodies),
        "bytes of the bodies of all requests",
    ),
    knob(
        "total-answers",
        Target::Size(|c| &mut c.total_answers),
        "bytes of all answers being written",
    ),
    knob(
        "max-head",
        Target::Size(|c| &mut c.max_head),
        "bytes of a request's head",
    ),
    knob(
        "max-fields",
        Target::Count(|c| &mut c.max_fields),
        "header fields of a request",
    ),
    knob(
        "max-target",
        Target::Size(|c| &mut c.max_target),
        "bytes of a request's path and query",
    ),
    knob(
        "max-patterns",
        Target::Count(|c| &mut c.max_patterns),
        "topics and patterns of one client",
    ),
    knob(
        "head-timeout",
        Target::Time(|c| &mut c.head_timeout),
        "for the head to arrive",
    ),
    knob(
        "body-timeout",
        Target::Time(|c| &mut c.body_timeout),
        "for the body to arrive",
    ),
    knob(
        "idle-timeout",
        Target::Time(|c| &mut c.idle_timeout),
        "between two requests of a connection",
    ),
    knob(
        "grace",
        Target::Time(|c| &mut c.grace),
        "for streams to end at shutdown",
    ),
    knob(
        "stack-bytes",
        Target::Size(|c| &mut c.stack_bytes),
        "stack of a connection's thread",
    ),
    knob(
        "publish-token",
        Target::Token(|c| &mut c.access.publish_token),
        "needed to publish",
    ),
    knob(
        "subscribe-token",
        Target::Token(|c| &mut c.access.subscribe_token),
        "needed to subscribe",
    ),
    knob(
        "tokens",
        Target::Path("FILE", |c| &mut c.access.tokens),
        "tokens for some topics; SIGHUP reads it again",
    ),
    knob(
        "open",
        Target::Flag(|c| &mut c.open),
        "let anybody publish who reaches it",
    ),
    knob(
        "cors-origin",
        Target::List("ORIGIN", add_origin),
        "whose pages may publish, repeatable",
    ),
    knob("console", Target::Console, "the page at /: on, off or auto"),
    knob("log", Target::Log, "off, error, warn, info or debug"),
];

impl Knob {
    fn placeholder(&self) -> &'static str {
        match self.target {
            Target::Listen => "ADDR",
            Target::Log => "LEVEL",
            Target::Sync => "WHEN",
            Target::Overload => "HOW",
            Target::Console => "WHEN",
            Target::Jitter => "PERCENT",
            Target::Token(_) => "TOKEN",
            Target::Path(placeholder, _) => placeholder,
            Target::Flag(_) => "",
            Target::Count(_) | Target::Limit(_) => "N",
            Target::List(placeholder, _) => placeholder,
            Target::Size(_) | Target::AutoSize(_) => "SIZE",
            Target::Time(_) => "TIME",
        }
    }

    /// The value that `options` has now, as it would be written; `None` if it has none.
    fn show(&self, options: &mut Options) -> Option<String> {
        Some(match self.target {
            Target::Listen => options.listen.to_string(),
            Target::Log => options.log.map_or("off".into(), |level| level.to_string()),
            Target::Path(..) | Target::Flag(_) | Target::Token(_) | Target::List(..) => {
                return None;
            }
            Target::Sync => name_of(&SYNC_MODES, options.config.journal.sync).into(),
            Target::Overload => name_of(&OVERLOADS, options.config.overload).into(),
            Target::Console => name_of(&CONSOLES, options.config.console).into(),
            Target::Jitter => format!("{}%", options.config.retry_jitter),
            Target::Count(field) => field(&mut options.config).to_string(),
            Target::Limit(field) => {
                let limit = *field(&mut options.config);
                limit.map_or("off".into(), |limit| limit.to_string())
            }
            Target::Size(field) => show_size(*field(&mut options.config)),
            Target::AutoSize(field) => {
                let size = *field(&mut options.config);
                size.map_or("auto".into(), show_size)
            }
            Target::Time(field) => format!("{:?}", field(&mut options.config)),
        })
    }

    fn set(&self, options: &mut Options, value: &str) -> Result<(), String> {
        let wrong = |what: &str| self.wrong(value, what);
        match self.target {
            Target::Listen => {
                options.listen = value.parse().map_err(|what: String| wrong(&what))?;
            }
            Target::Log => options.log = parse_level(value).ok_or_else(|| wrong(self.help))?,
            Target::Path(..) if value.is_empty() => return Err(wrong("a path")),
            Target::Path(_, field) => *field(&mut options.config) = Some(value.into()),
            Target::Token(field) => {
                let token = value
                    .parse()
                    .map_err(|error| format!("--{} is wrong: {error}", self.name))?;
                *field(&mut options.config) = Some(token);
            }
            Target::Sync => {
                options.config.journal.sync =
                    named(&SYNC_MODES, value).ok_or_else(|| wrong(self.help))?;
            }
            Target::Overload => {
                options.config.overload =
                    named(&OVERLOADS, value).ok_or_else(|| wrong("refuse or retry"))?;
            }
            Target::Console => {
                options.config.console =
                    named(&CONSOLES, value).ok_or_else(|| wrong("on, off or auto"))?;
            }
            Target::Jitter => {
                let percent = value.strip_suffix('%').and_then(whole);
                options.config.retry_jitter = percent
                    .and_then(|percent| percent.try_into().ok())
                    .ok_or_else(|| wrong("a percentage, such as 50%"))?;
            }
            Target::Flag(field) => *field(&mut options.config) = true,
            Target::Count(field) => {
                *field(&mut options.config) =
                    count(value).ok_or_else(|| wrong("a whole number, such as 1000"))?;
            }
            Target::Limit(field) => {
                *field(&mut options.config) = match value {
                    "off" => None,
                    _ => Some(count(value).ok_or_else(|| wrong("a whole number, or off"))?),
                };
            }
            Target::List(_, add) => {
                for value in value.split(',').map(str::trim) {
                    add(options, value).map_err(|what| self.wrong(value, &what))?;
                }
            }
            Target::Size(field) => {
                *field(&mut options.config) = parse_size(value)
                    .ok_or_else(|| wrong("a size, such as 65536, 64KiB or 1MiB"))?;
            }
            Target::AutoSize(field) => {
                *field(&mut options.config) = match value {
                    "auto" => None,
                    _ => Some(
                        parse_size(value).ok_or_else(|| wrong("a size, such as 64KiB, or auto"))?,
                    ),
                };
            }
            Target::Time(field) => {
                *field(&mut options.config) =
                    parse_time(value).ok_or_else(|| wrong("a time, such as 15s, 500ms or 2m"))?;
            }
        }
        Ok(())
    }

    /// LIMIT: what is quoted is cut; a value may be as long as the system's longest command line.
    fn wrong(&self, value: &str, what: &str) -> String {
        let mut value = value.to_owned();
        cut(&mut value, QUOTED_BYTES);
        format!("--{} is {value:?}, it must be {what}", self.name)
    }
}

/// See [`Knob::wrong`].
const QUOTED_BYTES: usize = 200;

fn add_proxy(options: &mut Options, value: &str) -> Result<(), String> {
    let proxy: Network = parsed(value)?;
    options.config.trust_proxy.push(proxy);
    Ok(())
}

fn add_origin(options: &mut Options, value: &str) -> Result<(), String> {
    let origin: Origin = parsed(value)?;
    options.config.access.cors_origins.push(origin);
    Ok(())
}

fn parsed<T: FromStr<Err: Display>>(value: &str) -> Result<T, String> {
    value.parse().map_err(|error: T::Err| error.to_string())
}

/// Which options the environment may set, so that secrets need not stand where every user of the
/// machine may read them. The command line comes first.
const VARIABLES: [(&str, &str); 3] = [
    ("TINY_SSE_PUBLISH_TOKEN", "publish-token"),
    ("TINY_SSE_SUBSCRIBE_TOKEN", "subscribe-token"),
    ("TINY_SSE_TOKENS", "tokens"),
];

/// Reads the words behind the program's name, and what the environment says.
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
            "-V" | "--version" => {
                return Ok(Command::Print(format!(
                    "tiny-sse {}\n",
                    env!("CARGO_PKG_VERSION")
                )));
            }
            "serve" if is_first => {}
            "demo" if is_first => options.demo = true,
            "serve" | "demo" => return Err(format!("{word} must be the first word")),
            _ => {
                let Some(option) = word.strip_prefix("--") else {
                    let commands = ["serve", "demo", "help"];
                    return Err(unknown("command", &word, commands.into_iter()));
                };
                let (name, value) = match option.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (option, None),
                };
                let Some(knob) = KNOBS.iter().find(|knob| knob.name == name) else {
                    return Err(unknown(
                        "option",
                        &format!("--{name}"),
                        KNOBS.iter().map(|knob| knob.name),
                    ));
                };
                let is_flag = matches!(knob.target, Target::Flag(_));
                let value = match value {
                    Some(_) if is_flag => return Err(format!("--{name} takes no value")),
                    None if is_flag => String::new(),
                    Some(value) => value,
                    // Another option is no value: with `--publish-token $UNSET --open` its name would
                    // be the token.
                    None => words
                        .next()
                        .transpose()?
                        .filter(|value| !value.starts_with("--"))
                        .ok_or_else(|| format!("--{name} needs a value: {}", knob.help))?,
                };
                knob.set(&mut options, &value)?;
                given.push(name.to_owned());
            }
        }
        is_first = false;
    }
    let unset = |name: &str| !given.iter().any(|given| given == name);
    set_by_environment(&mut options, unset, environment)?;
    options
        .config
        .check()
        .map_err(|error| format!("--{error}"))?;
    Ok(Command::Serve(Box::new(options)))
}

/// Sets the options that were not given as the environment has them.
fn set_by_environment(
    options: &mut Options,
    unset: impl Fn(&str) -> bool,
    environment: impl Fn(&str) -> Option<OsString>,
) -> Result<(), String> {
    for (variable, name) in VARIABLES.iter().filter(|(_, name)| unset(name)) {
        let Some(value) = environment(variable) else {
            continue;
        };
        let value = value
            .into_string()
            .map_err(|_| format!("{variable} is not UTF-8"))?;
        let knob = KNOBS.iter().find(|knob| knob.name == *name);
        knob.expect("BUG: a variable for no option")
            .set(options, &value)
            .map_err(|error| format!("{variable}, for {error}"))?;
    }
    Ok(())
}

/// What is behind `=`, or stands alone, is not shown: it may be a token.
fn not_text(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    match text.split_once('=') {
        Some((option, _)) if option.starts_with("--") => {
            format!("the value of {} is not UTF-8", option.escape_debug())
        }
        _ => "a word of the command line is not UTF-8".into(),
    }
}

/// Names the nearest known word. The unknown one may be a token that stands where none may
/// (`--publish-token-s3cret`), so it is shown in full only where it is nearly a known word and hardly longer.
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

fn help() -> String {
    let mut text = format!(
        "tiny-sse {}: a Server-Sent Events server\n\nusage: tiny-sse [serve | demo] [--OPTION VALUE | --OPTION=VALUE]...\n\n  demo                    serve, with six example uses in front\n\n",
        env!("CARGO_PKG_VERSION")
    );
    let mut defaults = Options::default();
    for knob in &KNOBS {
        let left = format!("--{} {}", knob.name, knob.placeholder());
        let line = match knob.show(&mut defaults) {
            Some(default) => format!("  {left:<23} {:<37} [{default}]", knob.help),
            None => format!("  {left:<23} {}", knob.help),
        };
        text += &line;
        text.push('\n');
    }
    text + "  --help, --version       print this, or the version\n\nTIME is 500ms, 15s, 2m or 1h; SIZE is bytes, or 64KiB, 1MiB, 1GiB. Tokens may come from the environment:\nTINY_SSE_PUBLISH_TOKEN, TINY_SSE_SUBSCRIBE_TOKEN; and TINY_SSE_TOKENS is a FILE of them.\n"
}

const SYNC_MODES: [(&str, SyncMode); 3] = [
    ("always", SyncMode::Always),
    ("interval", SyncMode::Interval),
    ("off", SyncMode::Off),
];

/// By itself it is there on loopback only.
const CONSOLES: [(&str, Console); 3] = [
    ("auto", Console::Auto),
    ("on", Console::On),
    ("off", Console::Off),
];

const OVERLOADS: [(&str, Overload); 2] = [("refuse", Overload::Refuse), ("retry", Overload::Retry)];

fn named<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    let found = table.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| *value)
}

fn name_of<T: PartialEq>(table: &[(&'static str, T)], value: T) -> &'static str {
    let found = table.iter().find(|(_, known)| *known == value);
    found.expect("BUG: a value without a name").0
}

fn parse_level(value: &str) -> Option<Option<Level>> {
    match value {
        "off" => Some(None),
        _ => value.parse().ok().map(Some),
    }
}

fn count(value: &str) -> Option<usize> {
    whole(value)?.try_into().ok()
}

const SIZES: [(&str, usize); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

fn parse_size(value: &str) -> Option<usize> {
    let unit = SIZES
        .into_iter()
        .find_map(|(unit, bytes)| Some((value.strip_suffix(unit)?, bytes)));
    let (digits, bytes) = unit.unwrap_or((value, 1));
    whole(digits)?.checked_mul(bytes as u64)?.try_into().ok()
}

fn show_size(size: usize) -> String {
    let unit = SIZES
        .into_iter()
        .find(|(_, bytes)| size > 0 && size.is_multiple_of(*bytes));
    unit.map_or_else(
        || size.to_string(),
        |(unit, bytes)| format!("{}{unit}", size / bytes),
    )
}

fn parse_time(value: &str) -> Option<Duration> {
    // "ms" before "s", which it ends in.
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    let (digits, ms) = units
        .into_iter()
        .find_map(|(unit, ms)| Some((value.strip_suffix(unit)?, ms)))?;
    Some(Duration::from_millis(whole(digits)?.checked_mul(ms)?))
}

/// Digits and nothing else; std's `parse` would also take a `+`.
fn whole(digits: &str) -> Option<u64> {
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        digits.parse().ok()
    } else {
        None
    }
}
