//! The checksums of S3, computed while bytes pass.

use crc_fast::CrcAlgorithm;
use hyper::HeaderMap;
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// A checksum that a server may know of an object as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Crc64Nvme,
    Crc32,
    Crc32c,
    Sha1,
    Sha256,
    /// Of the ETag of an object that was written whole and is not encrypted with a key of its own.
    Md5,
}

/// Those that have a header, the cheapest first.
const WITH_HEADER: [(Algorithm, &str); 5] = [
    (Algorithm::Crc64Nvme, "x-amz-checksum-crc64nvme"),
    (Algorithm::Crc32c, "x-amz-checksum-crc32c"),
    (Algorithm::Crc32, "x-amz-checksum-crc32"),
    (Algorithm::Sha1, "x-amz-checksum-sha1"),
    (Algorithm::Sha256, "x-amz-checksum-sha256"),
];

/// What the bytes of an object must give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    pub algorithm: Algorithm,
    value: Vec<u8>,
}

impl Expected {
    /// The checksum of the whole object that a response to GET or HEAD tells, or `None` if it tells none.
    pub fn of_response(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        // A composite checksum is one of checksums of parts. Some servers do not say which it is.
        let in_parts = text("etag").is_some_and(|etag| etag.contains('-'));
        let is_whole = text("x-amz-checksum-type").map_or(!in_parts, |kind| kind.eq_ignore_ascii_case("FULL_OBJECT"));
        // There are no composite ones of this algorithm.
        let has_whole = |algorithm: &Algorithm| is_whole || *algorithm == Algorithm::Crc64Nvme;
        let named = WITH_HEADER.iter().filter(|(algorithm, _)| has_whole(algorithm)).find_map(|(algorithm, name)| {
            let value = base64_simd::STANDARD.decode_to_vec(text(name)?).ok()?;
            (value.len() == algorithm.bytes()).then_some(Self { algorithm: *algorithm, value })
        });
        let has_own_key = text("x-amz-server-side-encryption").is_some_and(|kind| kind.starts_with("aws:"))
            || headers.contains_key("x-amz-server-side-encryption-customer-algorithm");
        named.or_else(|| text("etag").filter(|_| !has_own_key).and_then(Self::of_etag))
    }

    /// The MD5 that an ETag is; `None` if it is something else.
    pub fn of_etag(etag: &str) -> Option<Self> {
        let digits = etag.trim_matches('"');
        let is_md5 = digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let byte = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
        is_md5
            .then(|| (0..16).map_while(|at| byte(2 * at)).collect())
            .map(|value| Self { algorithm: Algorithm::Md5, value })
    }

    /// True if this is the value of a digest of the same algorithm.
    pub fn is(&self, value: &[u8]) -> bool {
        self.value == value
    }
}

impl Algorithm {
    fn bytes(self) -> usize {
        match self {
            Self::Crc32 | Self::Crc32c => 4,
            Self::Crc64Nvme => 8,
            Self::Md5 => 16,
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }
}

/// A checksum under way.
pub enum Digest {
    Crc(CrcAlgorithm, crc_fast::Digest),
    Sha1(Sha1),
    Sha256(Sha256),
    Md5(Md5),
}

impl Digest {
    pub fn new(algorithm: Algorithm) -> Self {
        let crc = |of: CrcAlgorithm| Self::Crc(of, crc_fast::Digest::new(of));
        match algorithm {
            Algorithm::Crc64Nvme => crc(CrcAlgorithm::Crc64Nvme),
            Algorithm::Crc32 => crc(CrcAlgorithm::Crc32IsoHdlc),
            Algorithm::Crc32c => crc(CrcAlgorithm::Crc32Iscsi),
            Algorithm::Sha1 => Self::Sha1(Sha1::new()),
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Md5 => Self::Md5(Md5::new()),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc(_, digest) => digest.update(bytes),
            Self::Sha1(digest) => digest.update(bytes),
            Self::Sha256(digest) => digest.update(bytes),
            Self::Md5(digest) => digest.update(bytes),
        }
    }

    /// The value, as the server would write it before base64.
    pub fn finish(self) -> Vec<u8> {
        match self {
            Self::Crc(CrcAlgorithm::Crc64Nvme, digest) => digest.finalize().to_be_bytes().into(),
            Self::Crc(_, digest) => (digest.finalize() as u32).to_be_bytes().into(),
            Self::Sha1(digest) => digest.finalize().to_vec(),
            Self::Sha256(digest) => digest.finalize().to_vec(),
            Self::Md5(digest) => digest.finalize().to_vec(),
        }
    }
}

/// The CRC64NVME of bytes in memory.
pub fn crc64nvme(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

/// The CRC64NVME of bytes with the checksum `first`, followed by `len` bytes with the checksum `second`.
pub fn join_crc64nvme(first: u64, second: u64, len: u64) -> u64 {
    crc_fast::checksum_combine(CrcAlgorithm::Crc64Nvme, first, second, len)
}

/// As the value of a header.
pub fn crc64nvme_text(value: u64) -> String {
    base64_simd::STANDARD.encode_to_string(value.to_be_bytes())
}

pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub fn md5(bytes: &[u8]) -> [u8; 16] {
    Md5::digest(bytes).into()
}

/// As the value of a header.
pub fn md5_text(value: [u8; 16]) -> String {
    base64_simd::STANDARD.encode_to_string(value)
}

/// What is known of bytes that were sent, to find out whether an object is these bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent {
    pub len: u64,
    pub crc64nvme: u64,
    /// The ETag that servers give them, where it is an MD5, or one of the MD5s of parts.
    pub etag: String,
    /// What the door of another cluster knows of them.
    pub xxh3: Option<u64>,
}

/// The ETag that a door gives to bytes, without its quotes. Clients take 32 hexadecimal digits for an MD5, but not 16 digits
/// and `-1`.
pub fn door_etag(xxh3: u64) -> String {
    format!("{xxh3:016x}-1")
}

impl Sent {
    /// Sent in one request.
    pub fn whole(bytes: &[u8]) -> Self {
        let etag = format!("\"{}\"", hex(&md5(bytes)));
        Self { len: bytes.len() as u64, crc64nvme: crc64nvme(bytes), etag, xxh3: Some(s4::checksum::hash(bytes)) }
    }

    /// Sent in parts, each with its length and checksums.
    pub fn in_parts(parts: impl Iterator<Item = (u64, u64, [u8; 16])>) -> Self {
        let (mut sent, mut md5s, mut count) = (Self::default(), Md5::new(), 0);
        for (len, crc, md5) in parts {
            sent.crc64nvme = if count == 0 { crc } else { join_crc64nvme(sent.crc64nvme, crc, len) };
            md5s.update(md5);
            (sent.len, count) = (sent.len + len, count + 1);
        }
        sent.etag = format!("\"{}-{count}\"", hex(&md5s.finalize()));
        sent
    }

    fn has_etag(&self, etag: &str) -> bool {
        etag == self.etag.trim_matches('"') || self.xxh3.is_some_and(|xxh3| etag == door_etag(xxh3))
    }

    /// True if the object that a server describes is these bytes. False too if that cannot be known.
    pub fn is(&self, len: u64, etag: &str, expected: Option<&Expected>) -> bool {
        let has_crc = |expected: &Expected| expected.algorithm == Algorithm::Crc64Nvme;
        len == self.len
            && match expected.filter(|expected| has_crc(expected)) {
                Some(expected) => expected.value == self.crc64nvme.to_be_bytes(),
                None => self.has_etag(etag.trim_matches('"')),
            }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(algorithm: Algorithm, bytes: &[u8]) -> String {
        let mut digest = Digest::new(algorithm);
        digest.update(bytes);
        base64_simd::STANDARD.encode_to_string(digest.finish())
    }

    /// The check values of the catalogue of CRCs, and of FIPS 180 and RFC 1321.
    #[test]
    fn each_checksum_is_the_one_of_its_name() {
        let hex = |algorithm| {
            let mut digest = Digest::new(algorithm);
            digest.update(b"1234");
            digest.update(b"56789");
            digest.finish().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        assert_eq!(hex(Algorithm::Crc64Nvme), "ae8b14860a799888");
        assert_eq!(hex(Algorithm::Crc32), "cbf43926");
        assert_eq!(hex(Algorithm::Crc32c), "e3069283");
        assert_eq!(hex(Algorithm::Md5), "25f9e794323b453885f5181f1b624d0b");
        assert_eq!(hex(Algorithm::Sha1), "f7c3bc1d808e04732adf679965ccc34ca7ae3441");
        assert!(hex(Algorithm::Sha256).starts_with("15e2b0d3c33891ebb0f1ef609ec41942"));
        assert_eq!(join_crc64nvme(crc64nvme(b"1234"), crc64nvme(b"56789"), 5), crc64nvme(b"123456789"));
    }

    fn expected(headers: &[(&'static str, &str)]) -> Option<Algorithm> {
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Expected::of_response(&headers).map(|expected| expected.algorithm)
    }

    #[test]
    fn only_checksums_of_the_whole_object_are_used() {
        let (crc, md5) = (of(Algorithm::Crc32, b"x"), "\"25f9e794323b453885f5181f1b624d0b\"");
        let crc32 = ("x-amz-checksum-crc32", &*crc);
        assert_eq!(expected(&[crc32, ("etag", md5)]), Some(Algorithm::Crc32));
        assert_eq!(expected(&[crc32, ("x-amz-checksum-type", "FULL_OBJECT")]), Some(Algorithm::Crc32));
        assert_eq!(expected(&[crc32, ("x-amz-checksum-type", "COMPOSITE")]), None);
        assert_eq!(expected(&[("x-amz-checksum-sha256", "AAAA-3"), ("etag", md5)]), Some(Algorithm::Md5));
        assert_eq!(expected(&[("etag", "\"25f9e794323b453885f5181f1b624d0b-3\"")]), None);
        assert_eq!(expected(&[("etag", md5), ("x-amz-server-side-encryption", "aws:kms")]), None);
        assert_eq!(expected(&[("etag", md5), ("x-amz-server-side-encryption", "AES256")]), Some(Algorithm::Md5));
        assert_eq!(expected(&[("etag", "\"25f9e794\"")]), None);
    }
}
