//! `tiny-sse config NAME`: complete configurations of other programs, to be printed into
//! their files.
//!
//! The tests start the proxies with these texts, with only addresses and paths replaced.

/// The configurations by name, in the order of the error message that lists them.
const CONFIGURATIONS: [(&str, &str); 5] = [
    ("nginx", include_str!("deploy/nginx.conf")),
    ("caddy", include_str!("deploy/Caddyfile")),
    ("haproxy", include_str!("deploy/haproxy.cfg")),
    ("systemd", include_str!("deploy/tiny-sse.service")),
    ("openwrt", include_str!("deploy/openwrt.init")),
];

/// Returns the configuration of this name.
///
/// # Errors
///
/// The name is missing or unknown. The message lists the names.
pub(crate) fn configuration(name: Option<&str>) -> Result<String, String> {
    let found = CONFIGURATIONS.iter().find(|(known, _)| name == Some(known));
    let names = || CONFIGURATIONS.map(|(known, _)| known).join(", ");
    match (found, name) {
        (Some((_, text)), _) => Ok((*text).to_owned()),
        (None, Some(name)) => Err(format!(
            "config has no {}; it prints one of {}",
            name.escape_debug(),
            names()
        )),
        (None, None) => Err(format!("config needs a name: one of {}", names())),
    }
}
