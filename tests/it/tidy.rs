//! The rules of the code that can be checked by reading the source files.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use tiny_sse::Config;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the names and texts of all Rust files below a folder.
fn sources(folder: &str) -> Vec<(String, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path
                    .strip_prefix(root())
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned();
                found.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has no sources");
    found
}

/// Returns the part of a file before its unit tests, without comments.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    code.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn every_source_file_begins_with_a_doc_comment() {
    for folder in ["src", "tests", "benches"] {
        for (name, text) in sources(folder) {
            assert!(text.starts_with("//! "), "{name} does not begin with //!");
        }
    }
}

#[test]
fn a_module_never_imports_from_a_higher_layer() {
    let layers: [(&str, &[&str]); 4] = [
        (
            "src/wire/",
            &[
                "crate::hub",
                "crate::http",
                "crate::api",
                "crate::store",
                "crate::server",
                "crate::socket",
                "crate::config",
            ],
        ),
        (
            "src/hub/",
            &["crate::http", "crate::api", "crate::server", "crate::store"],
        ),
        (
            "src/http/",
            &["crate::hub", "crate::api", "crate::server", "crate::store"],
        ),
        (
            "src/store/",
            &["crate::http", "crate::api", "crate::server"],
        ),
    ];
    for (name, text) in sources("src") {
        for (layer, higher) in layers {
            let imported = higher
                .iter()
                .find(|path| name.starts_with(layer) && code(&text).contains(**path));
            assert_eq!(imported, None, "{name} imports from a higher layer");
        }
    }
}

#[test]
fn the_lowest_layer_has_no_locks_sockets_clocks_or_threads() {
    for (name, text) in sources("src/wire") {
        for word in [
            "Mutex",
            "TcpStream",
            "Instant",
            "SystemTime::now",
            "thread::",
        ] {
            assert!(!code(&text).contains(word), "{name} has {word}");
        }
    }
}

#[test]
fn only_the_listed_files_have_a_mutex() {
    for (name, text) in sources("src") {
        let expected = [
            "src/atomic.rs",
            "src/http/budget.rs",
            "src/hub/state.rs",
            "src/hub/log/group_commit.rs",
            "src/http/connections.rs",
            "src/http/linger.rs",
            "src/api/access/tokens.rs",
            "src/machine.rs",
            "src/store/syncer.rs",
            "src/bin/tiny-sse/demo/process.rs",
            "src/examples/primer.rs",
            "src/examples/sessions.rs",
        ]
        .contains(&&*name);
        assert_eq!(
            code(&text).contains("Mutex<"),
            expected,
            "{name}: a Mutex in a file that is not listed, or none in a file that is"
        );
    }
}

#[test]
fn only_the_configuration_has_durations_in_seconds() {
    for (name, text) in sources("src") {
        let is_allowed = [
            "src/config.rs",
            "src/config/access.rs",
            "src/config/journal.rs",
            "src/bin/tiny-sse/args.rs",
            "src/hub/model.rs",
        ]
        .contains(&&*name)
            // Each demo is a complete example.
            || name.starts_with("src/bin/tiny-sse/demo/");
        assert!(
            is_allowed || !code(&text).contains("Duration::from_secs("),
            "{name} has a duration in seconds"
        );
    }
}

#[test]
fn only_one_file_of_the_program_has_unsafe_code_and_each_block_has_a_safety_comment() {
    for (name, text) in sources("src") {
        let expected = name == "src/bin/tiny-sse/system.rs";
        assert_eq!(code(&text).contains("unsafe {"), expected, "{name}");
        assert!(!expected || text.matches("SAFETY:").count() >= text.matches("unsafe {").count());
    }
}

#[test]
fn every_file_with_a_memory_ordering_has_a_comment_that_explains_it() {
    for (name, text) in sources("src") {
        for (number, line) in code(&text).lines().enumerate() {
            if line.contains("Ordering::") && !line.contains("use ") {
                assert!(
                    text.contains("ORDER:"),
                    "{name}: no ORDER comment for code line {}",
                    number + 1
                );
            }
        }
    }
}

#[test]
fn guide_and_readme_have_the_default_limits() {
    let guide = fs::read_to_string(root().join("src/guide.rs")).unwrap();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let Config {
        max_clients,
        extra_connections,
        max_fields,
        history_events,
        ..
    } = Config::default();
    let config = Config::default();
    let kib = |bytes: usize| {
        if bytes.is_multiple_of(1 << 20) {
            format!("{} MiB", bytes >> 20)
        } else {
            format!("{} KiB", bytes >> 10)
        }
    };
    let rows = [
        ("max-clients", thousands(max_clients)),
        ("extra-connections", thousands(extra_connections)),
        ("max-per-ip", String::from("off")),
        ("max-head", kib(config.max_head)),
        ("max-fields", thousands(max_fields)),
        ("max-target", kib(config.max_target)),
        ("max-body", kib(config.max_body)),
        ("total-bodies", kib(config.total_bodies)),
        ("total-answers", kib(config.total_answers)),
        ("max-patterns", thousands(config.max_patterns)),
        ("head-timeout", format!("{:?}", config.head_timeout)),
        ("body-timeout", format!("{:?}", config.body_timeout)),
        ("idle-timeout", format!("{:?}", config.idle_timeout)),
        ("write-timeout", format!("{:?}", config.write_timeout)),
        ("queue-bytes", kib(config.queue_bytes)),
        ("total-queues", String::from("auto")),
        ("send-buffer", kib(config.send_buffer.unwrap_or(0))),
        ("history", thousands(history_events)),
        ("history-bytes", kib(config.history_bytes)),
        ("heartbeat", format!("{:?}", config.heartbeat)),
        ("retry", format!("{:?}", config.retry)),
        ("grace", format!("{:?}", config.grace)),
        ("stack-bytes", kib(config.stack_bytes)),
    ];
    for (option, value) in rows {
        let row = format!("| `--{option}` | {} |", value.replace('s', " s"));
        assert!(guide.contains(&row), "the guide has no {row:?}");
        let is_in_readme = readme.contains(&format!("| `--{option}` |"));
        assert!(
            !is_in_readme || readme.contains(&row),
            "the README has no {row:?}"
        );
    }
    assert!(
        readme.matches("\n| `--").count() >= 6,
        "the README has no table of limits"
    );
}

fn thousands(number: usize) -> String {
    if number < 1000 {
        number.to_string()
    } else {
        format!("{},{:03}", number / 1000, number % 1000)
    }
}

/// Returns the output of `--help` and of `token --help`, or `None` if this build lacks a
/// feature and so an option.
fn help() -> Option<String> {
    let help_of = |words: &[&str]| {
        let program = env!("CARGO_BIN_EXE_tiny-sse");
        let output = std::process::Command::new(program).args(words).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let has_all = cfg!(all(
        feature = "access",
        feature = "console",
        feature = "demo",
        feature = "journal",
        feature = "metrics"
    ));
    has_all.then(|| help_of(&["--help"]) + &help_of(&["token", "--help"]))
}

#[test]
fn every_option_in_readme_guide_and_systemd_unit_exists() {
    let Some(help) = help() else { return };
    let texts = [
        "README.md",
        "src/guide.rs",
        "src/bin/tiny-sse/deploy/tiny-sse.service",
    ];
    for name in texts {
        let text = fs::read_to_string(root().join(name)).unwrap();
        // Lines with another command, such as `cargo` or `curl`, have the options of this
        // command.
        let own = |line: &&str| {
            !["cargo", "curl", "rustup", "-- --", "groupadd"]
                .iter()
                .any(|word| line.contains(word))
        };
        let words = text
            .lines()
            .filter(own)
            .flat_map(|line| line.split([' ', '`', '(', ')', '=', ',', ';', '"']));
        let mut options = 0;
        for option in words.filter(|word| word.starts_with("--") && word.len() > 2) {
            let option = option.trim_end_matches(['.', ':']);
            let is_known = help.split([' ', ',', '\n']).any(|word| word == option);
            assert!(is_known, "{name} has {option}, and --help does not");
            options += 1;
        }
        assert!(options > 3, "{name} has only {options} options");
    }
}

#[test]
fn the_readme_has_at_most_330_lines() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let lines = readme.lines().count();
    assert!(
        lines <= 330,
        "README.md has {lines} lines, and the limit is 330"
    );
}

/// Returns the names of the types that a file declares at its top level, outside its unit
/// tests.
fn types(text: &str) -> Vec<String> {
    let own = code(text);
    let declared = own.lines().filter_map(|line| {
        let line = line.strip_prefix("pub").map_or(line, |rest| {
            let rest = rest.strip_prefix("(crate)").unwrap_or(rest);
            rest.strip_prefix("(super)").unwrap_or(rest).trim_start()
        });
        let (word, rest) = line.split_once(' ')?;
        let end = rest.find(|found: char| !found.is_alphanumeric());
        let is_type = ["struct", "enum", "trait", "type", "union"].contains(&word);
        is_type.then(|| rest[..end.unwrap_or(rest.len())].to_owned())
    });
    declared.collect()
}

#[test]
fn no_two_types_have_the_same_name() {
    let declared =
        "struct A;\npub(crate) enum B {}\n    type Err = A;\npub trait C<T> {}\nfn d() {}\n";
    assert_eq!(types(declared), ["A", "B", "C"]);
    let mut all = sources("src");
    // Each example is a separate program.
    all.retain(|(name, _)| !name.starts_with("src/examples/"));
    // A file that replaces the code of a feature that is off declares the same types as
    // that code.
    let replaces_a_feature = |name: &str| {
        let file = name.rsplit('/').next().unwrap_or(name);
        let declared = format!("))]\n#[path = \"{file}\"]");
        all.iter().any(|(_, text)| text.contains(&declared))
    };
    let mut files_by_type: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (name, text) in all.iter().filter(|(name, _)| !replaces_a_feature(name)) {
        for found in types(text) {
            files_by_type.entry(found).or_default().push(name);
        }
    }
    files_by_type.retain(|_, files| files.len() > 1);
    assert!(files_by_type.is_empty(), "{files_by_type:#?}");
}

#[test]
fn the_functions_that_the_comments_name_exist() {
    let all = sources("src");
    let code: String = all.iter().map(|(_, text)| code(text) + "\n").collect();
    let words: HashSet<&str> = code
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .collect();
    let mut names = 0;
    for (file, text) in &all {
        let comments = text
            .lines()
            .filter(|line| line.trim_start().starts_with("//"));
        // The odd parts of a line are its code spans.
        for name in comments.flat_map(|line| line.split('`').skip(1).step_by(2)) {
            let Some((owner, function)) = name.split_once("::") else {
                continue;
            };
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            if !owner.starts_with(char::is_uppercase) || !function.chars().all(is_word) {
                continue;
            }
            let exist = [owner, function].map(|part| words.contains(part));
            assert_eq!(exist, [true; 2], "{file} names `{name}`");
            names += 1;
        }
    }
    assert!(names > 50, "only {names} names");
}

#[test]
fn the_files_that_the_readme_names_exist() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let words = readme.split('`').filter(|word| word.starts_with("src/"));
    let words: Vec<_> = words.collect();
    assert!(words.len() > 10, "{words:?}");
    for word in words {
        assert!(
            root().join(word).exists(),
            "README.md names {word}, which does not exist"
        );
    }
}
