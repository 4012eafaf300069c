//! CRC-32 as Ethernet, gzip and PNG have it (IEEE 802.3): tells a record that was written whole
//! from one that was not.
//!
//! It is not a signature: it finds what a disk or a power cut does, not what a person does. Every
//! change of up to 32 neighbouring bits is found for certain, any other with 1 − 2⁻³².
//!
//! Sixteen bytes are taken in a step ("slicing by 16"): a CRC is linear, so the bytes of a step can
//! be looked up on their own, each in the table of its distance from the end, and the results
//! added, which is `^` here. A byte at a time would wait for the one before it.

/// The polynomial of IEEE 802.3, its bits mirrored as they are on the wire.
const POLYNOMIAL: u32 = 0xEDB8_8320;

const STEP: usize = 16;

/// `TABLES[n][byte]` is what `byte` makes of the register when `n` zero bytes follow it.
static TABLES: [[u32; 256]; STEP] = tables();

const fn tables() -> [[u32; 256]; STEP] {
    let mut tables = [[0; 256]; STEP];
    let mut byte = 0;
    while byte < 256 {
        let mut register = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            let carry = register & 1;
            register = (register >> 1) ^ (POLYNOMIAL * carry);
            bit += 1;
        }
        tables[0][byte] = register;
        byte += 1;
    }
    let mut distance = 1;
    while distance < STEP {
        let mut byte = 0;
        while byte < 256 {
            let nearer = tables[distance - 1][byte];
            tables[distance][byte] = nearer >> 8 ^ tables[0][(nearer & 0xFF) as usize];
            byte += 1;
        }
        distance += 1;
    }
    tables
}

/// The CRC-32 of `bytes`.
pub(super) fn crc32(bytes: &[u8]) -> u32 {
    let (steps, rest) = bytes.as_chunks::<STEP>();
    let register = steps.iter().fold(!0, step);
    let register = rest.iter().fold(register, |register: u32, byte| {
        register >> 8 ^ TABLES[0][(register as u8 ^ byte) as usize]
    });
    !register
}

/// Written out, because a loop here is one only for who optimizes for speed: the program is built
/// for size, and would go round sixteen times.
fn step(register: u32, bytes: &[u8; STEP]) -> u32 {
    let [a, b, c, d] = register.to_le_bytes();
    let at = |distance: usize, byte: u8| TABLES[distance][byte as usize];
    let first = at(15, bytes[0] ^ a) ^ at(14, bytes[1] ^ b) ^ at(13, bytes[2] ^ c);
    let second = at(12, bytes[3] ^ d) ^ at(11, bytes[4]) ^ at(10, bytes[5]) ^ at(9, bytes[6]);
    let third = at(8, bytes[7]) ^ at(7, bytes[8]) ^ at(6, bytes[9]) ^ at(5, bytes[10]);
    let fourth = at(4, bytes[11]) ^ at(3, bytes[12]) ^ at(2, bytes[13]) ^ at(1, bytes[14]);
    first ^ second ^ third ^ fourth ^ at(0, bytes[15])
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
    fn it_is_the_checksum_that_others_compute() {
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
    fn steps_and_rests_of_every_length_agree_with_the_definition() {
        let bytes: Vec<u8> = (0..100u32).map(|n| (n * n * 7 + n) as u8).collect();
        for start in 0..20 {
            for end in start..bytes.len() {
                assert_eq!(crc32(&bytes[start..end]), slow(&bytes[start..end]));
            }
        }
    }
}
