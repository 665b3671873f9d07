//! TLS, origins, users.

use super::{AUTH, FileKey, Flag, SINCE_3_4, SINCE_3_5, SINCE_3_6, Section, TLS, Versions};
use crate::config::value::Kind;

const CLIENT: &str = "client-transport-security";
const PEER: &str = "peer-transport-security";

const fn flag(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    versions: Versions,
    help: &'static str,
) -> Flag {
    Flag::new(Section::Security, name, kind, default, versions, help).not_yet(TLS)
}

/// A path or list of the clients' TLS, empty by default.
const fn client(
    name: &'static str,
    kind: Kind,
    versions: Versions,
    key: &'static str,
    help: &'static str,
) -> Flag {
    let default = if matches!(kind, Kind::Bool) { "false" } else { "" };
    flag(name, kind, default, versions, help).file(FileKey::Inside(CLIENT, key))
}

/// A path or list of the peers' TLS, empty by default.
const fn peer(
    name: &'static str,
    kind: Kind,
    versions: Versions,
    key: &'static str,
    help: &'static str,
) -> Flag {
    let default = if matches!(kind, Kind::Bool) { "false" } else { "" };
    flag(name, kind, default, versions, help).file(FileKey::Inside(PEER, key))
}

const fn auth(name: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Flag {
    Flag::new(Section::Auth, name, kind, default, SINCE_3_4, help).not_yet(AUTH)
}

pub(super) const FLAGS: &[Flag] = &[
    client("cert-file", Kind::Text, SINCE_3_4, "cert-file", "The certificate shown to clients."),
    client("key-file", Kind::Text, SINCE_3_4, "key-file", "The key of --cert-file."),
    client(
        "client-cert-auth",
        Kind::Bool,
        SINCE_3_4,
        "client-cert-auth",
        "Ask clients for certificates.",
    ),
    client(
        "client-cert-file",
        Kind::Text,
        SINCE_3_5,
        "client-cert-file",
        "The certificate shown when connecting to clients' listeners.",
    ),
    client(
        "client-key-file",
        Kind::Text,
        SINCE_3_5,
        "client-key-file",
        "The key of --client-cert-file.",
    ),
    flag("client-crl-file", Kind::Text, "", SINCE_3_4, "Client certificates that are revoked.")
        .file(FileKey::None),
    client(
        "client-cert-allowed-hostname",
        Kind::List,
        SINCE_3_4,
        "allowed-hostname",
        "Names a client certificate may be for.",
    ),
    flag("client-cert-allowed-cn", Kind::List, "", SINCE_3_4, "Common names of clients.")
        .file(FileKey::OnlyInside(CLIENT, "allowed-cn")),
    flag("client-skip-client-san-verification", Kind::Bool, "false", SINCE_3_6, "Skip SAN checks.")
        .file(FileKey::OnlyInside(CLIENT, "skip-client-san-verification")),
    client(
        "trusted-ca-file",
        Kind::Text,
        SINCE_3_4,
        "trusted-ca-file",
        "The authorities trusted for client certificates.",
    ),
    client(
        "auto-tls",
        Kind::Bool,
        SINCE_3_4,
        "auto-tls",
        "Client TLS with generated certificates.",
    ),
    peer("peer-cert-file", Kind::Text, SINCE_3_4, "cert-file", "The certificate shown to peers."),
    peer("peer-key-file", Kind::Text, SINCE_3_4, "key-file", "The key of --peer-cert-file."),
    peer(
        "peer-client-cert-auth",
        Kind::Bool,
        SINCE_3_4,
        "client-cert-auth",
        "Ask peers for certificates.",
    ),
    peer(
        "peer-client-cert-file",
        Kind::Text,
        SINCE_3_5,
        "client-cert-file",
        "The certificate shown when connecting to peers.",
    ),
    peer(
        "peer-client-key-file",
        Kind::Text,
        SINCE_3_5,
        "client-key-file",
        "The key of --peer-client-cert-file.",
    ),
    peer(
        "peer-trusted-ca-file",
        Kind::Text,
        SINCE_3_4,
        "trusted-ca-file",
        "The authorities trusted for peer certificates.",
    ),
    peer(
        "peer-cert-allowed-cn",
        Kind::List,
        SINCE_3_4,
        "allowed-cn",
        "Common names peers may have.",
    ),
    peer(
        "peer-cert-allowed-hostname",
        Kind::List,
        SINCE_3_4,
        "allowed-hostname",
        "Names a peer certificate may be for.",
    ),
    peer(
        "peer-auto-tls",
        Kind::Bool,
        SINCE_3_4,
        "auto-tls",
        "Peer TLS with generated certificates.",
    ),
    flag(
        "self-signed-cert-validity",
        Kind::Uint,
        "1",
        SINCE_3_5,
        "How many years generated certificates are valid.",
    ),
    flag("peer-crl-file", Kind::Text, "", SINCE_3_4, "Peer certificates that are revoked.")
        .file(FileKey::None),
    peer(
        "peer-skip-client-san-verification",
        Kind::Bool,
        SINCE_3_6,
        "skip-client-san-verification",
        "Do not check the SAN of peers' client certificates.",
    ),
    flag("cipher-suites", Kind::List, "", SINCE_3_4, "TLS cipher suites to offer."),
    flag(
        "tls-min-version",
        Kind::Text,
        "TLS1.2",
        SINCE_3_4,
        "The lowest TLS version: TLS1.2, TLS1.3.",
    ),
    flag("tls-max-version", Kind::Text, "", SINCE_3_4, "The highest TLS version: TLS1.2, TLS1.3."),
    Flag::new(
        Section::Security,
        "cors",
        Kind::Origins,
        "*",
        SINCE_3_4,
        "Origins that browsers may ask from (*: any).",
    )
    .not_yet("answers carry no CORS headers so far"),
    Flag::new(
        Section::Security,
        "host-whitelist",
        Kind::Hosts,
        "*",
        SINCE_3_4,
        "Host names HTTP requests may be for (*: any).",
    )
    .not_yet("any host name is allowed so far"),
    auth("auth-token", Kind::Text, "simple", "The kind of tokens and its options: simple or jwt."),
    auth("bcrypt-cost", Kind::Uint, "10", "The cost of hashing passwords, 4 to 31."),
    auth("auth-token-ttl", Kind::Uint, "300", "How many seconds a simple token lives."),
];
