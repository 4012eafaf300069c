//! The origin of a page, as its browser sends it in `Origin`: scheme, host and port.

use std::fmt;
use std::str::FromStr;

use super::Quoted;

/// An origin whose pages have more rights than to read: `https://example.org`, or `*` for
/// every origin. It is kept in the form that browsers send: in lower case, without a
/// default port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin(Box<str>);

impl Origin {
    /// Whether this is `*`.
    pub fn is_any(&self) -> bool {
        &*self.0 == "*"
    }

    /// Whether a page that sends this `Origin` header has this origin. `*` is not the
    /// origin of any page: see [`is_any`](Self::is_any).
    pub fn is(&self, header: &str) -> bool {
        *self.0 == *header && !self.is_any()
    }

    /// Whether this `Host` header names the host and port of the origin.
    pub(crate) fn has_host(&self, header: &str) -> bool {
        let host = self.0.split_once("://").map(|(_, host)| host);
        host.is_some_and(|host| host.eq_ignore_ascii_case(header))
    }
}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    /// SPEC: RFC 6454, 7: `serialized-origin = scheme "://" host [ ":" port ]`. `null` is
    /// refused: many unrelated pages send it, such as those in a sandboxed frame.
    fn from_str(text: &str) -> Result<Origin, InvalidOrigin> {
        let lower = text.to_ascii_lowercase();
        let is_made_of = |part: &str, others: &[u8]| {
            let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || others.contains(&byte);
            !part.is_empty() && part.bytes().all(is_allowed)
        };
        match lower.split_once("://") {
            Some((scheme, host)) if is_made_of(scheme, b"+-.") && is_made_of(host, b"-._[]:") => {
                let default_port = match scheme {
                    "http" => ":80",
                    "https" => ":443",
                    _ => "",
                };
                let host = host.strip_suffix(default_port).unwrap_or(host);
                Ok(Origin(format!("{scheme}://{host}").into()))
            }
            None if lower == "*" => Ok(Origin("*".into())),
            _ => Err(InvalidOrigin(text.to_owned())),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is not an origin. `Display` quotes the text and says what an origin is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidOrigin(String);

impl fmt::Display for InvalidOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not an origin: an origin is a scheme, a host and an optional port, without a path, \
             such as https://example.org; * is every origin",
            Quoted(&self.0)
        )
    }
}

impl std::error::Error for InvalidOrigin {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_kept_as_browsers_write_it() {
        for (written, kept) in [
            ("https://example.org", "https://example.org"),
            ("HTTPS://Example.ORG:443", "https://example.org"),
            ("http://localhost:80", "http://localhost"),
            ("http://localhost:5173", "http://localhost:5173"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("chrome-extension://abc", "chrome-extension://abc"),
            ("*", "*"),
        ] {
            assert_eq!(written.parse::<Origin>().unwrap().to_string(), kept);
        }
        for wrong in [
            "",
            "null",
            "example.org",
            "https://",
            "://a",
            "https://a/",
            "https://a/b",
            "https://a b",
            "https://u@a",
            "https://*.a",
            "https://a,https://b",
        ] {
            assert!(wrong.parse::<Origin>().is_err(), "{wrong:?}");
        }
    }
}
