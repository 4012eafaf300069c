//! HMAC with SHA-256: the signature of a token. A client that does not know the key
//! cannot make the signature of another text.
//!
//! SPEC: RFC 2104, 2: `H(K XOR opad, H(K XOR ipad, text))`

use std::fmt;
use std::hint::black_box;

use super::sha256::Sha256;

/// Bytes of a block of SHA-256.
const BLOCK: usize = 64;

/// A key. It keeps the hashes of its two pads, which are the same for every text, and so
/// saves two of the four or more blocks that a signature costs.
#[derive(Clone)]
pub(super) struct HmacKey {
    /// The hash of `K XOR ipad`.
    inner: Sha256,
    /// The hash of `K XOR opad`.
    outer: Sha256,
}

impl HmacKey {
    /// A key of these bytes. A key that is longer than a block is replaced by its hash.
    pub(super) fn new(key: &[u8]) -> HmacKey {
        let mut block = [0; BLOCK];
        if key.len() > BLOCK {
            let mut hash = Sha256::new();
            hash.update(key);
            block[..32].copy_from_slice(&hash.finish());
        } else {
            block[..key.len()].copy_from_slice(key);
        }
        let padded = |pad: u8| {
            let mut hash = Sha256::new();
            hash.update(&block.map(|byte| byte ^ pad));
            hash
        };
        HmacKey {
            inner: padded(0x36),
            outer: padded(0x5c),
        }
    }

    /// Returns the signature of a text.
    pub(super) fn sign(&self, text: &[u8]) -> [u8; 32] {
        let mut inner = self.inner.clone();
        inner.update(text);
        let mut outer = self.outer.clone();
        outer.update(&inner.finish());
        outer.finish()
    }

    /// Whether this is the signature of the text. The time depends on the two lengths
    /// alone: the position of the first wrong byte would help to guess a signature byte
    /// by byte.
    pub(super) fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        let own = self.sign(text);
        let bits = own.iter().zip(signature).fold(0, |bits, (ours, theirs)| {
            // Without `black_box` the optimizer could stop at the first difference.
            black_box(bits | (ours ^ theirs))
        });
        (bits == 0) & (signature.len() == own.len())
    }
}

/// Shows nothing of the key.
impl fmt::Debug for HmacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HmacKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::super::sha256::hex;
    use super::*;

    #[test]
    fn the_signatures_are_those_of_rfc_4231() {
        for (key, text, expected) in [
            (
                &[0x0b; 20][..],
                &b"Hi There"[..],
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                &[0xaa; 20],
                &[0xdd; 50],
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
            ),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
        ] {
            let key = HmacKey::new(key);
            let signature = key.sign(text);
            assert_eq!(hex(&signature), expected);
            assert!(key.verifies(text, &signature));
            for wrong in 0..32 {
                let mut other = signature;
                other[wrong] ^= 1;
                assert!(!key.verifies(text, &other), "byte {wrong}");
                assert!(!key.verifies(text, &signature[..wrong]), "{wrong} bytes");
            }
            assert!(!key.verifies(text, &[&signature[..], b"x"].concat()));
        }
    }
}
