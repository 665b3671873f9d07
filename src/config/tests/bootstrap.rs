//! Whether a member may begin its cluster.

use super::run;
use crate::config::Url;
use std::io;
use std::net::SocketAddr;

fn resolve(url: &Url) -> io::Result<SocketAddr> {
    match url.host() {
        "a.example" | "b.example" => Ok(([10, 0, 0, 1], url.port().unwrap()).into()),
        host => host
            .parse()
            .map(|ip| SocketAddr::new(ip, url.port().unwrap()))
            .map_err(|_| io::Error::from(io::ErrorKind::NotFound)),
    }
}

#[test]
fn bootstrap_rules() {
    let ok: &[&[&str]] = &[
        &[],
        &["--name=x"],
        &[
            "--initial-advertise-peer-urls=http://a.example:1",
            "--initial-cluster=default=http://b.example:1",
        ],
        &[
            "--initial-advertise-peer-urls=http://10.0.0.1:1",
            "--initial-cluster=default=http://b.example:1",
        ],
        &["--name=x", "--initial-advertise-peer-urls=http://a:1,http://b:2"],
    ];
    for args in ok {
        assert_eq!(run(args).check_bootstrap_with(&resolve), Ok(()), "{args:?}");
    }
    let refused: &[(&[&str], &str)] = &[
        (
            &["--name=foo", "--initial-cluster=bar=http://localhost:2380"],
            "couldn't find local name \"foo\" in the initial cluster configuration",
        ),
        (
            &["--initial-cluster="],
            "couldn't find local name \"default\" in the initial cluster configuration",
        ),
        (&["--name="], "couldn't find local name \"\" in the initial cluster configuration"),
        (
            &["--initial-cluster=default=http://localhost:2381"],
            "--initial-cluster has default=http://localhost:2381 but missing from \
             --initial-advertise-peer-urls=http://localhost:2380 (resolved urls: \
             \"http://localhost:2380\" != \"http://localhost:2381\")",
        ),
        (
            &[
                "--name=x",
                "--initial-cluster=x=http://localhost:2380",
                "--initial-advertise-peer-urls=http://localhost:2380,http://10.0.0.1:1",
            ],
            "--initial-advertise-peer-urls has http://10.0.0.1:1 but missing from \
             --initial-cluster=x=http://10.0.0.1:1,x=http://localhost:2380",
        ),
        (
            &["--initial-cluster=default=http://nowhere:1"],
            "--initial-cluster has default=http://nowhere:1 but missing from \
             --initial-advertise-peer-urls=http://localhost:2380 \
             (failed to resolve \"http://nowhere:1\" (entity not found))",
        ),
        (
            &["--initial-cluster-state=existing"],
            "--initial-cluster-state existing is not supported by castd: clusters of several \
             members are not built in yet",
        ),
    ];
    for (args, error) in refused {
        assert_eq!(run(args).check_bootstrap_with(&resolve), Err((*error).to_owned()), "{args:?}");
    }
}

#[test]
fn a_url_twice_is_refused() {
    let args = [
        "--initial-advertise-peer-urls=http://a.example:1,http://b.example:1",
        "--initial-cluster=default=http://a.example:1,default=http://a.example:1",
    ];
    assert_eq!(
        run(&args).check_bootstrap_with(&resolve),
        Err("initial cluster default=http://a.example:1,default=http://a.example:1 has duplicate url".to_owned())
    );
}
