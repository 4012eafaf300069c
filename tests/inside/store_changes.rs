//! The journal while administrators and their tools change its files: no event that is
//! acknowledged afterwards is forgotten by a restart, no restart is refused, and no
//! restart claims to have an event that it does not have.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use super::SyncMode;
use super::segment::{encode_event, encode_gap, header};
use super::tests::{BORN, Opened, Scratch, kept};
use crate::hub::Record;
use crate::wire::{Event, EventId};

fn plain(ms: u64) -> Record {
    kept(
        EventId { ms, seq: 0 },
        &Event::new(format!("event at {ms}")),
    )
}

fn plains(times: std::ops::Range<u64>) -> Vec<Record> {
    times.map(plain).collect()
}

/// A journal of two segments and six events.
fn two_segments(dir: &Scratch, sync: SyncMode) -> Opened {
    let mut one = dir.with(|options| options.sync = sync).unwrap();
    one.add(&plains(2000..2003)).unwrap();
    one.journal.segment_bytes = 1;
    one.add(&[plain(2003)]).unwrap();
    one.journal.segment_bytes = 1 << 20;
    one.add(&plains(2004..2006)).unwrap();
    assert_eq!(one.journal.newest.number, 2);
    one
}

/// What a restart finds if the process is killed now. The lock belongs to this process as
/// long as it runs.
fn killed(dir: &Scratch) -> Scratch {
    let copy = Scratch::new();
    fs::create_dir(&copy.0).unwrap();
    for entry in fs::read_dir(&dir.0).unwrap() {
        let path = entry.unwrap().path();
        if fs::metadata(&path).is_ok_and(|found| found.is_file()) {
            fs::copy(&path, copy.0.join(path.file_name().unwrap())).unwrap();
        }
    }
    copy
}

fn shell(dir: &Path, script: &str) {
    let status = Command::new("sh")
        .args(["-ec", script])
        .current_dir(dir)
        .status();
    assert!(status.unwrap().success(), "{script}");
}

/// The commands in the journal's directory, each with words of the report; no words if
/// the file still has all events afterwards.
const HANDS: [(&str, &str); 24] = [
    ("rm *.sse", "was removed"),
    ("rm 00000002.sse", "was removed"),
    (
        "mkdir ../$$ && mv 00000002.sse ../$$ && rm -r ../$$",
        "was removed",
    ),
    ("gzip 00000002.sse", "was removed"),
    ("gzip *.sse", "was removed"),
    (": > 00000002.sse", "was cut from"),
    ("truncate -s 70 00000002.sse", "was cut from"),
    ("truncate -s -1 00000002.sse", "was cut from"),
    // The modes of logrotate: copytruncate, create, and dateext with compress.
    (
        "cp 00000002.sse 00000002.sse.1 && : > 00000002.sse",
        "was cut from",
    ),
    (
        "mv 00000002.sse 00000002.sse.1 && : > 00000002.sse",
        "was replaced",
    ),
    (
        "mv 00000002.sse 00000003.sse && : > 00000002.sse",
        "was replaced",
    ),
    ("sed -i s/2004/2014/ 00000002.sse", "was replaced"),
    ("sed -i 1d 00000002.sse", "was replaced"),
    ("rm 00000002.sse && mkdir 00000002.sse", "was replaced"),
    ("rm 00000002.sse && mkfifo 00000002.sse", "was replaced"),
    (
        "rm 00000002.sse && ln -s 00000001.sse 00000002.sse",
        "was replaced",
    ),
    (
        "rm 00000002.sse && ln -s /dev/zero 00000002.sse",
        "was replaced",
    ),
    (
        "rm 00000002.sse && ln -s nowhere 00000002.sse",
        "was removed",
    ),
    ("cat 00000001.sse > 00000002.sse", "was changed"),
    (
        "cat 00000001.sse 00000001.sse > 00000002.sse",
        "was changed",
    ),
    (
        "printf x | dd of=00000002.sse bs=1 seek=140 conv=notrunc 2>/dev/null",
        "was changed",
    ),
    ("head -c 10000 /dev/zero > 00000002.sse", "was changed"),
    (
        "rm 00000001.sse; : > 00000002.sse; echo more > 00000009.sse",
        "was cut from",
    ),
    ("rm -r * && touch lock 00000003.sse", "was removed"),
];

#[test]
fn a_file_that_another_program_has_damaged_is_followed_by_a_new_file_with_a_gap() {
    for sync in [SyncMode::Always, SyncMode::Interval, SyncMode::Off] {
        for (hand, words) in HANDS {
            let dir = Scratch::new();
            let mut one = two_segments(&dir, sync);
            shell(&dir.0, hand);
            one.add(&[plain(3000)])
                .unwrap_or_else(|error| panic!("{hand}: {error}"));
            one.add(&plains(3001..3003)).unwrap();
            let reports = one.reports();
            assert_eq!(reports.len(), 1, "{hand}: {reports:?}");
            let is_told = reports[0].contains(words) && reports[0].contains("2005-0");
            assert!(
                reports[0].starts_with("error: ") && is_told,
                "{hand}: {reports:?}"
            );
            let copy = killed(&dir);
            drop(one);
            for dir in [&copy, &dir] {
                let again = dir.open().unwrap();
                assert_eq!(again.kept.records, plains(3000..3003), "{hand}");
                assert_eq!(again.kept.after.ms, 2005, "{hand}");
            }
        }
    }
}

#[test]
fn a_changed_file_that_still_has_all_events_is_used_again() {
    let harmless = [
        ("chmod 644 *.sse; chmod 755 .", ""),
        ("chmod 000 *.sse", ""),
        ("ln 00000002.sse elsewhere.txt", ""),
        ("touch 00000002.sse", ""),
        ("touch -d 2001-01-01 00000002.sse", ""),
        ("cp 00000002.sse copy.txt && gzip -k 00000002.sse", ""),
        ("mv 00000002.sse .. && mv ../00000002.sse .", ""),
        (
            "mv 00000002.sse kept.txt && ln -s kept.txt 00000002.sse",
            "",
        ),
        ("rm -f lock; touch lock", ""),
        ("rm 00000001.sse", ""),
        (
            "echo '# rotated' >> 00000002.sse",
            "another program appended 10 bytes",
        ),
        (
            "head -c 9000 /dev/zero >> 00000002.sse",
            "another program appended 9000 bytes",
        ),
        (
            "cp 00000001.sse x; cat x >> 00000002.sse",
            "another program appended",
        ),
        (
            "sed -i s/nothing/anything/ 00000002.sse",
            "was replaced by another file with the same records",
        ),
        (
            "cp 00000002.sse x && mv x 00000002.sse",
            "was replaced by another file with the same records",
        ),
        (
            "cp 00000002.sse x && echo y >> x && mv x 00000002.sse",
            "was replaced by another file with the same records",
        ),
    ];
    for sync in [SyncMode::Always, SyncMode::Interval, SyncMode::Off] {
        for (hand, words) in harmless {
            let dir = Scratch::new();
            let mut one = two_segments(&dir, sync);
            shell(&dir.0, hand);
            one.add(&[plain(3000)])
                .unwrap_or_else(|error| panic!("{hand}: {error}"));
            one.add(&[plain(3001)]).unwrap();
            let reports = one.reports();
            assert_eq!(
                reports.len(),
                usize::from(!words.is_empty()),
                "{hand}: {reports:?}"
            );
            assert!(
                reports.iter().all(|line| line.contains(words)),
                "{hand}: {reports:?}"
            );
            let copy = killed(&dir);
            drop(one);
            for dir in [&copy, &dir] {
                let again = dir.open().unwrap();
                let first = if hand == "rm 00000001.sse" {
                    2003
                } else {
                    2000
                };
                let expected = [plains(first..2006), plains(3000..3002)].concat();
                assert_eq!(again.kept.records, expected, "{hand}");
            }
        }
    }
}

#[test]
fn nothing_is_acknowledged_while_the_directory_is_replaced() {
    for (away, back) in [
        ("mv $J $J.away", "mv $J.away $J"),
        ("mv $J $J.away; mkdir $J", "rmdir $J; mv $J.away $J"),
        ("mv $J $J.away; cp -r $J.away $J", "rm -r $J; mv $J.away $J"),
        ("mv $J $J.away; ln -s nowhere $J", "rm $J; mv $J.away $J"),
        ("mv $J $J.away; : > $J", "rm $J; mv $J.away $J"),
        ("mv $J $J.away; ln -s $J $J", "rm $J; ln -s $J.away $J"),
    ] {
        let dir = Scratch::new();
        let mut one = two_segments(&dir, SyncMode::Always);
        let name = dir.0.display().to_string();
        let run = |script: &str| shell(Path::new("/"), &script.replace("$J", &name));
        run(away);
        for _ in 0..2 {
            let error = one.add(&[plain(3000)]).unwrap_err().to_string();
            assert!(error.contains(&name), "{away}: {error}");
        }
        run(back);
        one.add(&[plain(3000)])
            .unwrap_or_else(|error| panic!("{back}: {error}"));
        let copy = killed(&dir);
        let again = copy.open().unwrap();
        let expected = [plains(2000..2006), plains(3000..3001)].concat();
        assert_eq!(again.kept.records, expected, "{away}, {back}");
        drop(one);
        run("rm -rf $J $J.away");
    }
    // Nor after the directory was removed: another server may create one with its name.
    let dir = Scratch::new();
    let mut one = two_segments(&dir, SyncMode::Always);
    fs::remove_dir_all(&dir.0).unwrap();
    let error = one.add(&[plain(3000)]).unwrap_err().to_string();
    assert!(error.contains("was moved, removed or replaced"), "{error}");
    let mut other = dir.open().unwrap();
    other.add(&[plain(4000)]).unwrap();
    assert!(one.add(&[plain(3000)]).is_err());
    drop((one, other));
    assert_eq!(dir.open().unwrap().kept.records, [plain(4000)]);
}

#[test]
fn a_directory_that_is_reached_by_another_path_is_the_same_directory() {
    let dir = Scratch::new();
    let mut one = two_segments(&dir, SyncMode::Always);
    let moved = Scratch::new();
    fs::rename(&dir.0, &moved.0).unwrap();
    symlink(&moved.0, &dir.0).unwrap();
    one.add(&[plain(3000)]).unwrap();
    fs::remove_file(moved.segment(2)).unwrap();
    one.add(&[plain(3001)]).unwrap();
    drop(one);
    assert_eq!(dir.open().unwrap().kept.records, [plain(3001)]);
    fs::remove_file(&dir.0).unwrap();
}

#[test]
fn a_file_whose_time_alone_changes_is_read_again_a_bounded_number_of_times() {
    let dir = Scratch::new();
    let mut one = two_segments(&dir, SyncMode::Off);
    let file = File::options().write(true).open(dir.segment(2)).unwrap();
    for ms in 3000..3000 + 2 * u64::from(crate::config::UNSTABLE_READS) {
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_millis(ms))
            .unwrap();
        one.add(&[plain(ms)]).unwrap();
    }
    assert_eq!(one.journal.readings, 0);
    assert_eq!(one.reports(), [""; 0]);
    // Other changes are still noticed.
    fs::remove_file(dir.segment(2)).unwrap();
    one.add(&[plain(4000)]).unwrap();
    assert!(one.reports()[0].contains("was removed"));
}

// ---- the lock, and the permissions of the files

#[test]
fn deleting_the_lock_file_does_not_unlock_the_journal() {
    let dir = Scratch::new();
    let one = dir.open().unwrap();
    let busy = |dir: &Scratch| {
        dir.open_at_once()
            .err()
            .expect("it was opened twice")
            .kind()
    };
    assert_eq!(busy(&dir), io::ErrorKind::ResourceBusy);
    let _ = fs::remove_file(dir.0.join("lock")); // It may be missing.
    assert_eq!(busy(&dir), io::ErrorKind::ResourceBusy);
    // Nor under another name, with other files, or with none.
    let moved = Scratch::new();
    fs::rename(&dir.0, &moved.0).unwrap();
    assert_eq!(busy(&moved), io::ErrorKind::ResourceBusy);
    shell(&moved.0, "rm -f *");
    assert_eq!(busy(&moved), io::ErrorKind::ResourceBusy);
    drop(one);
    moved.open().unwrap();
}

#[test]
fn a_lock_of_an_earlier_version_is_respected() {
    let dir = Scratch::new();
    fs::create_dir(&dir.0).unwrap();
    let path = dir.0.join("lock");
    let theirs = File::create(&path).unwrap();
    theirs.lock().unwrap();
    let error = dir.open_at_once().err().expect("both have it");
    assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
    drop(theirs);
    drop(dir.open().unwrap());
    assert!(!path.exists());
    // A file that only has the name of the lock is not touched.
    fs::write(&path, "mine").unwrap();
    drop(dir.open().unwrap());
    assert_eq!(fs::read(&path).unwrap(), b"mine");
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn created_files_have_permissions_for_their_owner_alone() {
    let dir = Scratch::new();
    let one = two_segments(&dir, SyncMode::Always);
    drop(one);
    let text = fs::read(dir.segment(2)).unwrap();
    let mut damaged = text.clone();
    damaged[text.len() / 2] ^= 1;
    fs::write(dir.segment(2), damaged).unwrap();
    drop(dir.repaired());
    assert_eq!(mode(&dir.0), 0o700);
    let names = fs::read_dir(&dir.0)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let names: Vec<_> = names.collect();
    assert_eq!(names.len(), 3, "{names:?}");
    for path in names {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn wide_permissions_of_an_existing_journal_are_removed_with_one_warning() {
    let dir = Scratch::new();
    drop(two_segments(&dir, SyncMode::Off));
    let saved = dir.0.join("00000001.sse.damaged");
    fs::write(&saved, "x").unwrap();
    let theirs = Scratch::new();
    fs::write(&theirs.0, "x").unwrap();
    symlink(&theirs.0, dir.0.join("00000000.sse.damaged")).unwrap();
    for path in [&dir.segment(1), &saved, &theirs.0] {
        set_mode(path, 0o644);
    }
    set_mode(&dir.segment(2), 0o620);
    set_mode(&dir.0, 0o755);
    let reports = dir.open().unwrap().reports();
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert!(
        reports[0].starts_with("warn: ") && reports[0].contains("on 3 of"),
        "{reports:?}"
    );
    assert_eq!(mode(&dir.0), 0o700);
    for path in [&dir.segment(1), &dir.segment(2), &saved] {
        assert_eq!(mode(path), 0o600, "{}", path.display());
    }
    // A link may lead to a file of the system.
    assert_eq!(mode(&theirs.0), 0o644);
    assert_eq!(dir.open().unwrap().reports(), [""; 0]);
    fs::remove_file(&theirs.0).unwrap();
}

#[test]
fn a_directory_with_other_files_keeps_its_mode() {
    let dir = Scratch::new();
    fs::create_dir(&dir.0).unwrap();
    fs::write(dir.0.join("notes.txt"), "x").unwrap();
    set_mode(&dir.0, 0o1777);
    for _ in 0..2 {
        let reports = dir.open().unwrap().reports();
        assert_eq!(reports.len(), 1, "{reports:?}");
        assert!(reports[0].contains("has the mode 1777"), "{reports:?}");
        assert_eq!((mode(&dir.0), mode(&dir.segment(1))), (0o1777, 0o600));
    }
    assert_eq!(mode(&dir.0.join("notes.txt")), 0o644);
}

// ---- ids that leave no room

type Encoder<'a> = dyn Fn(&mut Vec<u8>) + 'a;

#[test]
fn an_id_near_the_end_of_the_range_is_refused_at_the_start_and_never_written() {
    const MAX: u64 = u64::MAX;
    for (ms, seq, is_fine) in [
        (MAX, MAX, false),
        (MAX, 0, false),
        (MAX - 1, 7, false),
        (5000, MAX, false),
        (5000, 1 << 63, false),
        (1 << 63, 0, false),
        (5000, (1 << 63) - 1, true),
    ] {
        let id = EventId { ms, seq };
        let event = kept(id, &Event::new("x"));
        let encoders: [&Encoder; 4] = [
            &|text| {
                text.extend(header(BORN));
                encode_event(&event, text);
            },
            &|text| text.extend(header(id)),
            &|text| {
                text.extend(header(BORN));
                encode_gap(id, None, text);
            },
            // The id is in a record after a damaged one.
            &|text| {
                text.extend(header(BORN));
                text.extend(b": event damaged\n");
                encode_event(&event, text);
            },
        ];
        for (number, encode) in encoders.iter().enumerate() {
            let (dir, mut text) = (Scratch::new(), Vec::new());
            encode(&mut text);
            fs::create_dir(&dir.0).unwrap();
            fs::write(dir.segment(1), &text).unwrap();
            for repair in [false, true] {
                let opened = dir.with(|options| options.repair = repair);
                if is_fine && (number < 3 || repair) {
                    let mut one = opened.unwrap_or_else(|error| panic!("{id}: {error}"));
                    let ms = one.kept.last_id().ms + 1;
                    let next = EventId { ms, seq: 0 };
                    one.add(&[kept(next, &Event::new("next"))]).unwrap();
                } else {
                    let error = opened.err().expect("it was opened");
                    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                    let told = error.to_string().contains(&format!("has the id {id}"));
                    assert!(is_fine || told, "{error}");
                    assert_eq!(fs::read(dir.segment(1)).unwrap(), text, "it was touched");
                }
            }
        }
        let dir = Scratch::new();
        let written = dir.open().unwrap().add(std::slice::from_ref(&event));
        assert_eq!(written.is_ok(), is_fine, "{id}");
    }
}

#[test]
fn a_last_id_far_ahead_of_the_clock_is_a_warning() {
    const DAY: u64 = 24 * 60 * 60 * 1000;
    for (ms, is_told) in [
        (2000, false),
        (BORN.ms + DAY, false),
        (BORN.ms + DAY + 1, true),
    ] {
        let dir = Scratch::new();
        dir.open().unwrap().add(&[plain(ms)]).unwrap();
        let reports = dir.open().unwrap().reports();
        assert_eq!(reports.len(), usize::from(is_told), "{ms}: {reports:?}");
        if is_told {
            assert!(reports[0].contains(&format!("{ms}-0")), "{reports:?}");
            assert!(
                reports[0].contains("more than 24 hours later than"),
                "{reports:?}"
            );
        }
    }
}

// ---- probes

#[test]
fn a_probe_has_the_result_of_an_append_and_leaves_no_bytes() {
    let dir = Scratch::new();
    let mut one = two_segments(&dir, SyncMode::Always);
    use crate::hub::Log;
    let before = fs::read(dir.segment(2)).unwrap();
    one.journal.probe().unwrap();
    assert_eq!(fs::read(dir.segment(2)).unwrap(), before);
    // The probe prepares the file as an append would.
    let mut file = File::options().append(true).open(dir.segment(2)).unwrap();
    file.write_all(b"foreign\n").unwrap();
    one.journal.probe().unwrap();
    assert_eq!(fs::read(dir.segment(2)).unwrap(), before);
    let moved = Scratch::new();
    fs::rename(&dir.0, &moved.0).unwrap();
    one.journal.probe().unwrap_err();
    fs::rename(&moved.0, &dir.0).unwrap();
    one.journal.probe().unwrap();
    one.add(&[plain(3000)]).unwrap();
    drop(one);
    let expected = [plains(2000..2006), plains(3000..3001)].concat();
    assert_eq!(dir.open().unwrap().kept.records, expected);
}
