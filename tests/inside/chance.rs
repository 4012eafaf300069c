//! The seeded random generator of all random tests, the mutator of inputs, and the loop
//! that runs the cases. The integration tests and the unit tests of the library and of
//! the program share this file.
//!
//! Each case has a seed of its own, which determines all random values in it. The cases
//! of one test have consecutive seeds: `seed`, `seed + 1`, and so on. A case that fails
//! can therefore be run again alone; the failure prints the environment variables that do
//! it.

use std::fmt;

/// A seeded generator (SplitMix64: Steele, Lea and Flood, 2014). It prints its seed when
/// the test that holds it fails.
pub struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    /// A generator with the seed in `TINY_SSE_SEED`. Without this variable the seed is
    /// random.
    pub fn new() -> Random {
        use std::hash::{BuildHasher, RandomState};
        Random::of(match std::env::var("TINY_SSE_SEED") {
            Ok(seed) => seed.parse().expect("TINY_SSE_SEED is a number"),
            Err(_) => RandomState::new().hash_one(0),
        })
    }

    /// A generator with this seed.
    pub fn of(seed: u64) -> Random {
        Random { seed, state: seed }
    }

    /// Another generator, for another thread. It draws other numbers, and prints the same
    /// seed on failure.
    pub fn fork(&mut self) -> Random {
        Random {
            seed: self.seed,
            state: self.next(),
        }
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// A number that is at least 0 and less than `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// True with a probability of 1 in `times`.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    /// Up to five random positions at which `length` bytes are cut into pieces, in
    /// ascending order. The last position is always `length`.
    pub fn cuts(&mut self, length: usize) -> Vec<usize> {
        let mut cuts: Vec<_> = (0..self.below(6)).map(|_| self.below(length + 1)).collect();
        cuts.push(length);
        cuts.sort_unstable();
        cuts
    }
}

impl Drop for Random {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.seed;
            eprintln!(
                "to repeat this case: TINY_SSE_SEED={seed} TINY_SSE_CASES=1 cargo test NAME_OF_THE_TEST"
            );
        }
    }
}

/// How many cases a test runs: the number in `TINY_SSE_CASES`, or 50,000.
pub fn count() -> u64 {
    std::env::var("TINY_SSE_CASES").map_or(50_000, |count| {
        count.parse().expect("TINY_SSE_CASES is a number")
    })
}

/// Runs the cases of one test: `make` makes a random input, and `holds` panics if the
/// tested property does not hold for the input. A case may cost as much as `weight`
/// ordinary cases; then only one `weight`th of them run.
pub fn cases<I: fmt::Debug>(
    weight: u64,
    mut make: impl FnMut(&mut Random) -> I,
    mut holds: impl FnMut(&I, &mut Random),
) {
    let first = Random::new().seed;
    for number in 0..count().div_ceil(weight) {
        let mut random = Random::of(first.wrapping_add(number));
        let input = make(&mut random);
        let shown_on_panic = ShownOnPanic {
            number,
            first,
            input: &input,
        };
        holds(&input, &mut random);
        drop(shown_on_panic);
    }
}

/// Prints the case if a panic drops it.
struct ShownOnPanic<'a> {
    number: u64,
    /// The seed of the first case, for tests in which one case may depend on earlier
    /// cases.
    first: u64,
    input: &'a dyn fmt::Debug,
}

impl Drop for ShownOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let ShownOnPanic {
                number,
                first,
                input,
            } = self;
            eprintln!("case {number} of TINY_SSE_SEED={first} failed with the input {input:?}");
        }
    }
}

/// Bytes that `Debug` shows as text with escapes.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

/// Pieces that have a meaning in at least one of the formats, and numbers at the bounds
/// of their types.
#[rustfmt::skip]
const TOKENS: [&[u8]; 40] = [
    b"\r\n", b"\r\n", b"\r\n\r\n", b"\n", b"\n\n", b"\r", b"\0", b":", b": ", b" ", b"\t", b",", b";", b"%", b"/",
    b"*", b"-", b"=", b"\"", b"\\", b"[", b"]", b"{", b"}", b"0", b"1", b"9", b"a", b"F", b"255", b"256",
    b"4294967296", b"18446744073709551615", b"18446744073709551616", b"\x0b", b"\x7f", b"\x80",
    "\u{e9}".as_bytes(), "\u{1f980}".as_bytes(), "\u{feff}".as_bytes(),
];

/// The maximal length of an input in bytes.
const LONGEST: usize = 4096;

/// Makes inputs that are nearly valid from valid inputs.
pub struct Mutator<'a> {
    /// The valid inputs.
    pub corpus: Vec<Vec<u8>>,
    /// Pieces that have a meaning in the format of the inputs.
    pub words: &'a [&'a str],
}

impl Mutator<'_> {
    /// One of the corpus, unchanged or with some changes; or, rarely, random bytes.
    pub fn input(&self, random: &mut Random) -> Bytes {
        let index = random.below(self.corpus.len());
        self.mutant(self.corpus[index].clone(), random)
    }

    /// These bytes, unchanged or with some changes; or, rarely, random bytes.
    pub fn mutant(&self, mut bytes: Vec<u8>, random: &mut Random) -> Bytes {
        if random.one_in(16) {
            let count = random.below(40);
            return Bytes(random.bytes(count));
        }
        // Mostly few changes: an input with many errors is refused for the first of them,
        // and the others are not tested.
        let most = random.pick(&[&0, &1, &2, &3, &8]);
        for _ in 0..random.below(most + 1) {
            self.mutate(&mut bytes, random);
        }
        bytes.truncate(LONGEST);
        Bytes(bytes)
    }

    fn mutate(&self, bytes: &mut Vec<u8>, random: &mut Random) {
        let at = random.below(bytes.len() + 1);
        let end = (at + 1 + random.below(12)).min(bytes.len());
        let new = match random.below(10) {
            // Flip a bit, change a byte, delete a piece, double a piece, cut off the end.
            0 if at < end => return bytes[at] ^= 1 << random.below(8),
            1 if at < end => return bytes[at] = random.next() as u8,
            2 => return drop(bytes.drain(at..end)),
            3 => bytes[at..end].to_vec(),
            4 if random.one_in(4) => return bytes.truncate(at),
            // Insert a piece, or replace one.
            5 | 6 => random.pick(&TOKENS).to_vec(),
            7 if !self.words.is_empty() => random.pick(self.words).as_bytes().to_vec(),
            8 => self.piece(random),
            _ => return self.copy_elsewhere(bytes, at, end, random),
        };
        let end = if random.one_in(2) { at } else { end };
        bytes.splice(at..end, new);
    }

    /// A piece of one of the corpus.
    fn piece(&self, random: &mut Random) -> Vec<u8> {
        let other = &self.corpus[random.below(self.corpus.len())];
        let at = random.below(other.len() + 1);
        let end = (at + random.below(60)).min(other.len());
        other[at..end].to_vec()
    }

    /// Copies whole lines to another position. Parsers disagree about fields that occur
    /// twice.
    fn copy_elsewhere(&self, bytes: &mut Vec<u8>, at: usize, end: usize, random: &mut Random) {
        let line = |byte: &u8| *byte == b'\n';
        let start = bytes[..at].iter().rposition(line).map_or(0, |at| at + 1);
        let end = bytes[end..]
            .iter()
            .position(line)
            .map_or(bytes.len(), |more| end + more + 1);
        let copy = bytes[start..end].to_vec();
        let to = random.below(bytes.len() + 1);
        let to = bytes[..to].iter().rposition(line).map_or(0, |at| at + 1);
        bytes.splice(to..to, copy);
    }
}
