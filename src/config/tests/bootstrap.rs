//! Whether a member may begin its cluster.

use super::run;
use crate::config::Url;
use std::net::SocketAddr;

fn address(url: &Url) -> Result<SocketAddr, String> {
    match url.host() {
        "a.example" | "b.example" => Ok(([10, 0, 0, 1], url.port().unwrap()).into()),
        host => host
            .parse()
            .map(|ip| SocketAddr::new(ip, url.port().unwrap()))
            .map_err(|_| "no such host".to_owned()),
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
        assert_eq!(run(args).check_bootstrap(&address), Ok(()), "{args:?}");
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
             (failed to resolve \"http://nowhere:1\" (no such host))",
        ),
    ];
    for (args, error) in refused {
        assert_eq!(run(args).check_bootstrap(&address), Err((*error).to_owned()), "{args:?}");
    }
}

#[test]
fn names_are_asked_for_where_texts_differ() {
    let asked = |args: &[&str]| {
        run(args).bootstrap_urls().iter().map(|url| url.host().to_owned()).collect::<Vec<_>>()
    };
    let advertised = "--initial-advertise-peer-urls=http://a.example:1";
    assert!(asked(&[advertised, "--initial-cluster=default=http://a.example:1"]).is_empty());
    assert!(asked(&[advertised, "--initial-cluster=x=http://b.example:1"]).is_empty());
    let differing = asked(&[advertised, "--initial-cluster=default=http://b.example:1"]);
    assert_eq!(differing, ["b.example", "a.example"]);
}

#[test]
fn a_url_twice_is_refused() {
    let args = [
        "--initial-advertise-peer-urls=http://a.example:1,http://b.example:1",
        "--initial-cluster=default=http://a.example:1,default=http://a.example:1",
    ];
    assert_eq!(
        run(&args).check_bootstrap(&address),
        Err("initial cluster default=http://a.example:1,default=http://a.example:1 has duplicate url".to_owned())
    );
}

#[test]
fn a_joining_member_finds_itself_and_no_url_twice() {
    let existing = "--initial-cluster-state=existing";
    let cluster = "--initial-cluster=a=http://a:1,b=http://b:1";
    assert_eq!(run(&["--name=b", existing, cluster]).check_join(), Ok(()));
    let missing = run(&["--name=c", existing, cluster]).check_join();
    assert!(missing.unwrap_err().starts_with("couldn't find local name \"c\""));
    let twice = run(&["--name=a", existing, "--initial-cluster=a=http://a:1,b=http://a:1"]);
    assert_eq!(
        twice.check_join().unwrap_err(),
        "initial cluster a=http://a:1,b=http://a:1 has duplicate url"
    );
    let discovers = ["--discovery-token=t", "--discovery-endpoints=d:1", existing];
    assert_eq!(
        run(&discovers).check_join().unwrap_err(),
        "discovery URL should not be set when joining existing initial cluster"
    );
}
