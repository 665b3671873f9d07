//! The URLs a member listens on and advertises: `http://host:port`, `unix://path` and
//! their TLS forms.
//!
//! Owns: parsing with etcd's rules and words, comparison by text. Never resolves names.

use super::go::quote;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

/// How a listener is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// Plain TCP.
    Http,
    /// TLS over TCP.
    Https,
    /// A Unix domain socket.
    Unix,
    /// TLS over a Unix domain socket.
    Unixs,
}

impl Scheme {
    /// The name as it stands in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Unix => "unix",
            Self::Unixs => "unixs",
        }
    }

    /// Whether it is a Unix domain socket.
    pub fn is_unix(self) -> bool {
        matches!(self, Self::Unix | Self::Unixs)
    }

    /// Whether it asks for TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Unixs)
    }
}

/// A URL of a member. Two are equal when their texts are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    text: String,
    scheme: Scheme,
    authority: String,
    path: String,
}

impl Url {
    /// Reads one URL. The error has etcd's words.
    pub fn parse(input: &str) -> Result<Self, String> {
        let input = input.trim();
        let parts = split(input)?;
        let scheme = match parts.scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => return Err(format!("URL scheme must be http, https, unix, or unixs: {input}")),
        };
        if !scheme.is_unix() {
            if split_host_port(parts.authority).is_err() {
                return Err(format!("URL address does not have the form \"host:port\": {input}"));
            }
            if !parts.path.is_empty() {
                return Err(format!("URL must not contain a path: {input}"));
            }
        }
        let slashes = if parts.has_authority { "//" } else { "" };
        Ok(Self {
            text: format!("{}:{slashes}{}{}", scheme.as_str(), parts.authority, parts.path),
            scheme,
            authority: parts.authority.to_owned(),
            path: parts.path.to_owned(),
        })
    }

    /// Reads a comma-separated list and sorts it by text.
    pub fn parse_list(list: &str) -> Result<Vec<Self>, String> {
        let mut urls = list.split(',').map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        urls.sort();
        Ok(urls)
    }

    /// The URL as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How it is reached.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// `host:port` as given; empty for most Unix sockets.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The host alone, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        split_host_port(&self.authority).map_or("", |(host, _)| host)
    }

    /// The port; `None` for a Unix socket. An empty port is 0: the system chooses.
    pub fn port(&self) -> Option<u16> {
        if self.scheme.is_unix() {
            return None;
        }
        let (_, port) = split_host_port(&self.authority).ok()?;
        if port.is_empty() { Some(0) } else { port.parse().ok() }
    }

    /// The path of the Unix socket; `None` for TCP.
    pub fn socket_path(&self) -> Option<PathBuf> {
        self.scheme.is_unix().then(|| PathBuf::from(format!("{}{}", self.authority, self.path)))
    }

    /// The same scheme and port at another host.
    pub(crate) fn with_host(&self, host: &str) -> Result<Self, String> {
        let port = split_host_port(&self.authority).map_or("", |(_, port)| port);
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        Self::parse(&format!("{}://{host}:{port}", self.scheme.as_str()))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl serde::Serialize for Url {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// A URL one can listen on names an IP address, or `localhost`.
pub(crate) fn check_bind(urls: &[Url]) -> Result<(), String> {
    for url in urls.iter().filter(|url| !url.scheme.is_unix()) {
        let (host, _) = split_host_port(&url.authority)?;
        if host != "localhost" && host.parse::<IpAddr>().is_err() {
            return Err(format!("expected IP in URL for binding ({url})"));
        }
    }
    Ok(())
}

/// A URL one can advertise names a host.
pub(crate) fn check_host(urls: &[Url]) -> Result<(), String> {
    for url in urls.iter().filter(|url| !url.scheme.is_unix()) {
        let (host, _) = split_host_port(&url.authority)?;
        if host.is_empty() {
            return Err(format!("unexpected empty host ({url})"));
        }
    }
    Ok(())
}

/// The URLs' texts joined by commas.
pub(crate) fn join(urls: &[Url]) -> String {
    urls.iter().map(Url::as_str).collect::<Vec<_>>().join(",")
}

struct Parts<'a> {
    scheme: &'a str,
    authority: &'a str,
    path: &'a str,
    has_authority: bool,
}

/// Splits a URL as Go's `net/url` does, as far as etcd's URLs go.
fn split(input: &str) -> Result<Parts<'_>, String> {
    let told = |reason: &str| format!("parse {}: {reason}", quote(input));
    let fail = |reason: &str| Err(told(reason));
    if input.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return fail("net/url: invalid control character in URL");
    }
    let scheme_end = input.find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c));
    let starts_with_letter = input.starts_with(|c: char| c.is_ascii_alphabetic());
    let Some(end) = scheme_end.filter(|&end| input[end..].starts_with(':')) else {
        return Ok(Parts { scheme: "", authority: "", path: input, has_authority: false });
    };
    if end == 0 {
        return fail("missing protocol scheme");
    }
    if !starts_with_letter {
        return fail("first path segment in URL cannot contain colon");
    }
    let (scheme, rest) = (&input[..end], &input[end + 1..]);
    let Some(after) = rest.strip_prefix("//") else {
        // What does not begin with a slash is opaque to Go: it has no host and no path.
        let path = if rest.starts_with('/') { rest } else { "" };
        return Ok(Parts { scheme, authority: "", path, has_authority: false });
    };
    let authority_end = after.find(['/', '?', '#']).unwrap_or(after.len());
    let (authority, path) = after.split_at(authority_end);
    let odd = |c: char| " <>\"\\^`{|}".contains(c);
    if let Some(c) = authority.chars().find(|c| odd(*c)) {
        return fail(&format!("invalid character {} in host name", quote(&c.to_string())));
    }
    if authority.starts_with('[') && !authority.contains(']') {
        return fail("missing ']' in host");
    }
    if authority.contains('@') {
        return fail("user information is not taken in a member's URL");
    }
    check_port(authority).map_err(|reason| told(&reason))?;
    Ok(Parts { scheme, authority, path, has_authority: true })
}

fn check_port(authority: &str) -> Result<(), String> {
    let after_host = match authority.rfind(']') {
        Some(end) => &authority[end + 1..],
        None => authority.rfind(':').map_or("", |colon| &authority[colon..]),
    };
    let Some(port) = after_host.strip_prefix(':') else {
        return Ok(());
    };
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    if !digits || (!port.is_empty() && port.parse::<u16>().is_err()) {
        return Err(format!("invalid port {} after host", quote(after_host)));
    }
    Ok(())
}

/// Splits `host:port` as Go's `net.SplitHostPort`.
fn split_host_port(authority: &str) -> Result<(&str, &str), String> {
    let fail = |reason: &str| Err(format!("address {authority}: {reason}"));
    let Some(colon) = authority.rfind(':') else {
        return fail("missing port in address");
    };
    if let Some(inner) = authority.strip_prefix('[') {
        let Some(end) = inner.find(']') else {
            return fail("missing ']' in address");
        };
        if end + 2 != colon {
            return fail("missing port in address");
        }
        return Ok((&inner[..end], &authority[colon + 1..]));
    }
    let host = &authority[..colon];
    if host.contains(':') {
        return fail("too many colons in address");
    }
    if host.contains(['[', ']']) {
        return fail("unexpected bracket in address");
    }
    Ok((host, &authority[colon + 1..]))
}
