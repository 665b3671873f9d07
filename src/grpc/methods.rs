//! Every gRPC method this member answers, in one table.

/// How many messages each side of a call sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One request, one response.
    Unary,
    /// One request, many responses.
    ServerStream,
    /// Many of both.
    BidiStream,
}

impl Kind {
    /// The value of the metrics' label `grpc_type`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

macro_rules! methods {
    ($($variant:ident: $service:literal / $name:literal $kind:ident;)*) => {
        /// A gRPC method. The number is its place in tables of per-method figures.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Method {
            $(#[doc = concat!("`", $service, "/", $name, "`")] $variant,)*
        }

        impl Method {
            /// Every method, by its number.
            pub const ALL: &'static [Method] = &[$(Method::$variant,)*];

            /// The method behind a request's path; `None` when there is none.
            pub fn find(path: &str) -> Option<Self> {
                match path {
                    $(concat!("/", $service, "/", $name) => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The service's full name.
            pub fn service(self) -> &'static str {
                match self { $(Self::$variant => $service,)* }
            }

            /// The name within the service.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Whether a member without a vote answers, if only some requests.
            pub fn is_for_learners(self) -> bool {
                matches!(self, Self::Range | Self::Status | Self::Snapshot)
            }

            /// How many messages each side sends.
            pub fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind,)* }
            }
        }
    };
}

methods! {
    Put: "etcdserverpb.KV" / "Put" Unary;
    Range: "etcdserverpb.KV" / "Range" Unary;
    Txn: "etcdserverpb.KV" / "Txn" Unary;
    DeleteRange: "etcdserverpb.KV" / "DeleteRange" Unary;
    Compact: "etcdserverpb.KV" / "Compact" Unary;
    RangeStream: "etcdserverpb.KV" / "RangeStream" ServerStream;
    Watch: "etcdserverpb.Watch" / "Watch" BidiStream;
    LeaseGrant: "etcdserverpb.Lease" / "LeaseGrant" Unary;
    LeaseRevoke: "etcdserverpb.Lease" / "LeaseRevoke" Unary;
    LeaseKeepAlive: "etcdserverpb.Lease" / "LeaseKeepAlive" BidiStream;
    LeaseTimeToLive: "etcdserverpb.Lease" / "LeaseTimeToLive" Unary;
    LeaseLeases: "etcdserverpb.Lease" / "LeaseLeases" Unary;
    MemberAdd: "etcdserverpb.Cluster" / "MemberAdd" Unary;
    MemberRemove: "etcdserverpb.Cluster" / "MemberRemove" Unary;
    MemberUpdate: "etcdserverpb.Cluster" / "MemberUpdate" Unary;
    MemberList: "etcdserverpb.Cluster" / "MemberList" Unary;
    MemberPromote: "etcdserverpb.Cluster" / "MemberPromote" Unary;
    Alarm: "etcdserverpb.Maintenance" / "Alarm" Unary;
    Status: "etcdserverpb.Maintenance" / "Status" Unary;
    Defragment: "etcdserverpb.Maintenance" / "Defragment" Unary;
    Hash: "etcdserverpb.Maintenance" / "Hash" Unary;
    HashKv: "etcdserverpb.Maintenance" / "HashKV" Unary;
    Snapshot: "etcdserverpb.Maintenance" / "Snapshot" ServerStream;
    MoveLeader: "etcdserverpb.Maintenance" / "MoveLeader" Unary;
    Downgrade: "etcdserverpb.Maintenance" / "Downgrade" Unary;
    AuthEnable: "etcdserverpb.Auth" / "AuthEnable" Unary;
    AuthDisable: "etcdserverpb.Auth" / "AuthDisable" Unary;
    AuthStatus: "etcdserverpb.Auth" / "AuthStatus" Unary;
    Authenticate: "etcdserverpb.Auth" / "Authenticate" Unary;
    UserAdd: "etcdserverpb.Auth" / "UserAdd" Unary;
    UserGet: "etcdserverpb.Auth" / "UserGet" Unary;
    UserList: "etcdserverpb.Auth" / "UserList" Unary;
    UserDelete: "etcdserverpb.Auth" / "UserDelete" Unary;
    UserChangePassword: "etcdserverpb.Auth" / "UserChangePassword" Unary;
    UserGrantRole: "etcdserverpb.Auth" / "UserGrantRole" Unary;
    UserRevokeRole: "etcdserverpb.Auth" / "UserRevokeRole" Unary;
    RoleAdd: "etcdserverpb.Auth" / "RoleAdd" Unary;
    RoleGet: "etcdserverpb.Auth" / "RoleGet" Unary;
    RoleList: "etcdserverpb.Auth" / "RoleList" Unary;
    RoleDelete: "etcdserverpb.Auth" / "RoleDelete" Unary;
    RoleGrantPermission: "etcdserverpb.Auth" / "RoleGrantPermission" Unary;
    RoleRevokePermission: "etcdserverpb.Auth" / "RoleRevokePermission" Unary;
    HealthCheck: "grpc.health.v1.Health" / "Check" Unary;
    HealthWatch: "grpc.health.v1.Health" / "Watch" ServerStream;
}

/// What gRPC says of a path that leads nowhere, in the words of etcd's gRPC library.
pub(super) fn unknown(path: &str) -> String {
    let trimmed = path.strip_prefix('/').unwrap_or(path);
    let Some((service, method)) = trimmed.rsplit_once('/') else {
        return format!("malformed method name: {path:?}");
    };
    if Method::ALL.iter().any(|known| known.service() == service) {
        format!("unknown method {method} for service {service}")
    } else {
        format!("unknown service {service}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_found_by_its_path() {
        for (number, method) in Method::ALL.iter().enumerate() {
            assert_eq!(*method as usize, number);
            let path = format!("/{}/{}", method.service(), method.name());
            assert_eq!(Method::find(&path), Some(*method));
        }
        assert_eq!(Method::find("/etcdserverpb.KV/Steal"), None);
    }

    #[test]
    fn learners_answer_three_methods() {
        let names: Vec<&str> = Method::ALL
            .iter()
            .filter(|method| method.is_for_learners())
            .map(|m| m.name())
            .collect();
        assert_eq!(names, ["Range", "Status", "Snapshot"]);
    }

    #[test]
    fn unknown_paths_have_the_words_of_grpc_go() {
        assert_eq!(unknown("/a.B/C"), "unknown service a.B");
        assert_eq!(
            unknown("/etcdserverpb.KV/Steal"),
            "unknown method Steal for service etcdserverpb.KV"
        );
        assert_eq!(unknown("/x"), "malformed method name: \"/x\"");
    }
}
