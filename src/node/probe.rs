//! `castd health URL`: one request to a member's health page, for images that
//! have no other client.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use crate::config::Url;

const TIMEOUT: Duration = Duration::from_secs(2);

/// Asks the member at `url` for its health. The text is what it said.
///
/// # Errors
/// When it cannot be asked or is not healthy, with the reason.
pub fn probe(url: &str) -> Result<String, String> {
    let url = Url::parse(url)?;
    let port = url.port().unwrap_or(2379);
    let address = (url.host(), port)
        .to_socket_addrs()
        .map_err(|error| error.to_string())?
        .next()
        .ok_or_else(|| format!("{} has no address", url.host()))?;
    let answer = ask(&address, url.authority()).map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    match status {
        "200" => Ok(body.to_owned()),
        _ => Err(format!("HTTP {status}: {}", body.trim_end())),
    }
}

fn ask(address: &std::net::SocketAddr, host: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    // A health page is some hundred bytes; more is not one.
    stream.take(64 * 1024).read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn answering(answer: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        url
    }

    #[test]
    fn health_is_what_the_member_says() {
        let url = answering("HTTP/1.1 200 OK\r\n\r\n{\"health\":\"true\"}");
        assert_eq!(probe(&url), Ok("{\"health\":\"true\"}".to_owned()));
        let url = answering("HTTP/1.1 503 Service Unavailable\r\n\r\nno leader\n");
        assert_eq!(probe(&url), Err("HTTP 503: no leader".to_owned()));
    }
}
