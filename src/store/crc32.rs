//! CRC-32 as in Ethernet, gzip and PNG (IEEE 802.3): shows whether a record was written
//! completely.
//!
//! A checksum is not a signature: it finds errors of disks and power failures, not
//! forgeries. Every error within 32 consecutive bits is found, any other error with a
//! probability of 1 − 2⁻³².
//!
//! Four bytes are processed per step ("slicing by 4"). A CRC is linear: each byte of a
//! step can be looked up on its own, in the table for its distance from the end of the
//! step, and the results are combined with `^`. The tables take 4 KiB of the program.

/// The polynomial of IEEE 802.3, with its bits in reverse order, as the algorithm needs
/// them.
const POLYNOMIAL: u32 = 0xEDB8_8320;

/// Bytes per step.
const STEP: usize = 4;

/// `TABLES[n][byte]` is the CRC register after `byte` and `n` zero bytes, beginning
/// with 0.
///
/// ```text
/// step      b0        b1        b2        b3         four bytes, mixed with the register
/// followed  by 3      by 2      by 1      by 0       other bytes of the step
/// table     [3][b0]   [2][b1]   [1][b2]   [0][b3]    the `^` of the four is the new register
/// ```
static TABLES: [[u32; 256]; STEP] = tables();

/// Computes the tables at compile time.
const fn tables() -> [[u32; 256]; STEP] {
    let mut tables = [[0; 256]; STEP];
    let mut place = 0;
    while place < STEP * 256 {
        let (distance, byte) = (place / 256, place % 256);
        let mut register = if distance == 0 {
            byte as u32
        } else {
            tables[distance - 1][byte]
        };
        let mut bit = 0;
        while bit < 8 {
            register = (register >> 1) ^ (POLYNOMIAL * (register & 1));
            bit += 1;
        }
        tables[distance][byte] = register;
        place += 1;
    }
    tables
}

/// Returns the CRC-32 of `bytes`. The register begins with all bits set, so that zero
/// bytes at the beginning count, and is inverted at the end.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    let (steps, rest) = bytes.as_chunks::<STEP>();
    let register = steps.iter().fold(!0, |register, step| {
        let mixed = register ^ u32::from_le_bytes(*step);
        TABLES[3][mixed as u8 as usize]
            ^ TABLES[2][(mixed >> 8) as u8 as usize]
            ^ TABLES[1][(mixed >> 16) as u8 as usize]
            ^ TABLES[0][(mixed >> 24) as usize]
    });
    let register = rest.iter().fold(register, |register: u32, byte| {
        register >> 8 ^ TABLES[0][(register as u8 ^ byte) as usize]
    });
    !register
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, a bit at a time.
    fn slow(bytes: &[u8]) -> u32 {
        let mut register = !0u32;
        for byte in bytes {
            register ^= u32::from(*byte);
            for _ in 0..8 {
                register = (register >> 1) ^ (POLYNOMIAL * (register & 1));
            }
        }
        !register
    }

    #[test]
    fn the_checksum_is_the_one_of_the_standard() {
        for (text, expected) in [
            ("", 0),
            ("a", 0xE8B7_BE43),
            ("123456789", 0xCBF4_3926),
            ("The quick brown fox jumps over the lazy dog", 0x414F_A339),
        ] {
            assert_eq!(crc32(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn every_length_agrees_with_the_bitwise_definition() {
        let bytes: Vec<u8> = (0..100u32).map(|n| (n * n * 7 + n) as u8).collect();
        for start in 0..20 {
            for end in start..bytes.len() {
                assert_eq!(crc32(&bytes[start..end]), slow(&bytes[start..end]));
            }
        }
    }
}
