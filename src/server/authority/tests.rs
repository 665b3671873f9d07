//! Connections made by hand, cut anywhere, and served by the server that is meant.

use std::convert::Infallible;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::filter::{
    BLOCK_BYTES_MAX, CONTINUATION, END_HEADERS, END_STREAM, HEAD_BYTES, HEADERS, PADDED,
    PAYLOAD_BYTES_MAX, PREFACE, PRIORITY,
};
use super::hpack::{Decoder, write_field};
use super::*;

const DATA: u8 = 0;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;
const WHOLE: u8 = END_HEADERS | END_STREAM;

/// What etcd's Go clients have been seen to send, or may.
const REFUSED: [&str; 6] = [
    "http://127.0.0.1:2379",
    "https://127.0.0.1:2379",
    "#initially=[127.0.0.1:2379]",
    "#initially=[127.0.0.1:2379;127.0.0.1:22379]",
    "unix:/some/socket",
    "",
];

type Fields = Vec<(String, String)>;

/// A frame as [`frames`] finds it: its kind, flags, stream and payload.
type Frame = (u8, u8, u32, Vec<u8>);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The frames that are complete.
fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(HEAD_BYTES) {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        frames.push((head[3], head[4], stream, payload.to_vec()));
        bytes = rest;
    }
    frames
}

/// A block as Go clients write it: what they say again and again goes into the table.
fn block(authority: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x84];
    if authority.len() < 127 {
        block.extend_from_slice(&[0x41, authority.len() as u8]);
        block.extend_from_slice(authority.as_bytes());
    } else {
        write_field(&mut block, b":authority", authority.as_bytes());
    }
    block.extend_from_slice(b"\x40\x02te\x08trailers");
    block
}

/// The block of a second request like the first, all from tables.
const AGAIN: [u8; 5] = [0x82, 0x86, 0x84, 0xbf, 0xbe];

fn expected(authority: Option<&str>) -> Fields {
    let authority = authority.map(|authority| (":authority", authority));
    let start = [(":method", "GET"), (":scheme", "http"), (":path", "/")];
    let all = start.into_iter().chain(authority).chain([("te", "trailers")]);
    all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A connection of these frames.
fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[]), &frames.concat()].concat()
}

/// A connection of two requests that say the same.
fn requests(authority: &str) -> Vec<u8> {
    connection(&[
        frame(HEADERS, END_HEADERS, 1, &block(authority)),
        frame(DATA, END_STREAM, 1, b"body"),
        frame(HEADERS, WHOLE, 3, &AGAIN),
    ])
}

/// What comes out of a filter for these pieces.
fn filtered<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Result<(), Malformed>) {
    let (mut filter, mut output) = (Filter::new(), Vec::new());
    for mut piece in pieces {
        while !piece.is_empty() {
            let before = piece.len();
            if let Err(malformed) = filter.step(&mut piece, &mut output) {
                return (output, Err(malformed));
            }
            assert!(piece.len() < before);
        }
    }
    filter.finish(&mut output);
    (output, Ok(()))
}

fn whole(bytes: &[u8]) -> Vec<u8> {
    let (output, result) = filtered([bytes]);
    assert_eq!(result, Ok(()));
    output
}

fn read_block(decoder: &mut Decoder, block: &[u8]) -> Fields {
    let mut fields = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let read = decoder.decode(block, |name, value| {
        fields.push((text(name), text(value)));
        Ok(())
    });
    read.unwrap();
    fields
}

/// The frames after the preface and the settings of a connection that was rewritten.
fn rewritten(bytes: &[u8]) -> Vec<Frame> {
    let output = whole(bytes);
    let mut frames = frames(output.strip_prefix(PREFACE).unwrap());
    assert_eq!(frames.remove(0).0, SETTINGS);
    frames
}

#[test]
fn what_needs_no_help_is_not_touched() {
    let other = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec();
    let bare = connection(&[frame(HEADERS, WHOLE, 1, &[0x82, 0x86, 0x84])]);
    for bytes in [requests("127.0.0.1:2379"), requests("localhost"), bare, other] {
        assert_eq!(whole(&bytes), bytes);
    }
}

#[test]
fn a_refused_authority_is_dropped_from_every_request() {
    for authority in REFUSED {
        let frames = rewritten(&requests(authority));
        let [first, body, second] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!((first.0, first.1, first.2), (HEADERS, END_HEADERS, 1));
        assert_eq!(read_block(&mut Decoder::new(), &first.3), expected(None));
        assert_eq!(*body, (DATA, END_STREAM, 1, b"body".to_vec()));
        assert_eq!((second.0, second.1, second.2), (HEADERS, WHOLE, 3));
        assert_eq!(read_block(&mut Decoder::new(), &second.3), expected(None));
    }
}

#[test]
fn a_good_authority_stays_on_a_connection_that_is_rewritten() {
    let bytes = connection(&[
        frame(HEADERS, WHOLE, 1, &block("http://a")),
        frame(HEADERS, WHOLE, 3, &block("a:1")),
    ]);
    let frames = rewritten(&bytes);
    assert_eq!(read_block(&mut Decoder::new(), &frames[1].3), expected(Some("a:1")));
}

#[test]
fn padding_goes_and_priority_stays() {
    let priority = [0, 0, 0, 0, 7];
    let payload = [&[3][..], &priority, &block("http://a"), &[0; 3]].concat();
    let bytes = connection(&[frame(HEADERS, WHOLE | PADDED | PRIORITY, 1, &payload)]);
    let frames = rewritten(&bytes);
    assert_eq!(frames[0].1, WHOLE | PRIORITY);
    assert_eq!(frames[0].3[..5], priority);
    assert_eq!(read_block(&mut Decoder::new(), &frames[0].3[5..]), expected(None));
}

#[test]
fn a_block_in_many_frames_becomes_one() {
    let block = block("http://a");
    let (last, start) = block.split_last().unwrap();
    let mut parts = vec![frame(HEADERS, END_STREAM, 1, &[])];
    parts.extend(start.iter().map(|byte| frame(CONTINUATION, 0, 1, &[*byte])));
    parts.push(frame(CONTINUATION, END_HEADERS, 1, &[*last]));
    let frames = rewritten(&connection(&parts));
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].1, WHOLE);
    assert_eq!(read_block(&mut Decoder::new(), &frames[0].3), expected(None));
}

#[test]
fn a_block_that_grows_is_continued() {
    let value = "v".repeat(4000);
    let mut first = block("http://a");
    // An entry that fills the table, said again seven times in a byte each.
    first.extend_from_slice(&[0x40, 1, b'n', 0x7f, 0xa1, 0x1e]);
    first.extend_from_slice(value.as_bytes());
    first.extend_from_slice(&[0xbe; 7]);
    let frames = rewritten(&connection(&[frame(HEADERS, WHOLE, 1, &first)]));
    assert_eq!(frames.len(), 2);
    assert_eq!((frames[0].0, frames[0].1), (HEADERS, END_STREAM));
    assert_eq!(frames[0].3.len(), PAYLOAD_BYTES_MAX);
    assert_eq!((frames[1].0, frames[1].1, frames[1].2), (CONTINUATION, END_HEADERS, 1));
    let joined = [&frames[0].3[..], &frames[1].3].concat();
    let fields = read_block(&mut Decoder::new(), &joined);
    assert_eq!(fields.iter().filter(|field| field.1 == value).count(), 8);
}

#[test]
fn blocks_are_bounded() {
    let part = [0; PAYLOAD_BYTES_MAX];
    let mut endless = vec![frame(HEADERS, 0, 5, &part)];
    endless.extend((0..4).map(|_| frame(CONTINUATION, 0, 5, &part)));
    // One that nobody has changed is the server's to refuse.
    let bytes = connection(&endless);
    assert_eq!(whole(&bytes), bytes);

    endless.insert(0, frame(HEADERS, WHOLE, 1, &block("http://a")));
    assert_eq!(filtered([&connection(&endless)[..]]).1, Err(Malformed));

    // Nor may a small block stand for a large one.
    let mut bomb = vec![0x40, 1, b'n', 0x7f, 0xa1, 0x1e];
    bomb.extend_from_slice(&[b'v'; 4000]);
    bomb.extend_from_slice(&[0xbe; BLOCK_BYTES_MAX / 4000 + 1]);
    let first = frame(HEADERS, WHOLE, 1, &block("http://a"));
    let bytes = connection(&[first, frame(HEADERS, WHOLE, 3, &bomb)]);
    assert_eq!(filtered([&bytes[..]]).1, Err(Malformed));
}

#[test]
fn what_is_no_http_2_is_passed_on_or_ends_the_connection() {
    let first = frame(HEADERS, WHOLE, 1, &block("http://a"));
    for nonsense in [
        vec![frame(HEADERS, 0, 3, &[0x82]), frame(DATA, 0, 3, &[])],
        vec![frame(HEADERS, 0, 3, &[0x82]), frame(CONTINUATION, END_HEADERS, 5, &[])],
        vec![frame(HEADERS, WHOLE, 3, &[0xff; 9])],
        vec![frame(HEADERS, WHOLE | PADDED, 3, &[])],
        vec![frame(HEADERS, WHOLE | PADDED, 3, &[2, 0x82])],
        vec![frame(HEADERS, WHOLE | PRIORITY, 3, &[0; 4])],
    ] {
        let bytes = connection(&nonsense);
        assert_eq!(whole(&bytes), bytes);
        let bytes = connection(&[vec![first.clone()], nonsense].concat());
        assert_eq!(filtered([&bytes[..]]).1, Err(Malformed));
    }
    let long = connection(&[frame(HEADERS, WHOLE, 1, &[0; PAYLOAD_BYTES_MAX + 1])]);
    assert_eq!(whole(&long), long);
}

#[test]
fn cuts_change_nothing() {
    let mut first = block("http://127.0.0.1:2379");
    let rest = first.split_off(7);
    let split = connection(&[
        frame(HEADERS, PADDED, 1, &[&[1], &first[..], &[0]].concat()),
        frame(CONTINUATION, END_HEADERS, 1, &rest),
        frame(DATA, 0, 1, b"body"),
        frame(HEADERS, WHOLE, 3, &AGAIN),
    ]);
    for bytes in [requests("a:1"), requests("http://a:1"), split, b"PRI * HTTP/1".to_vec()] {
        let expected = whole(&bytes);
        for cut in 0..=bytes.len() {
            let (start, end) = bytes.split_at(cut);
            assert_eq!(filtered([start, end]), (expected.clone(), Ok(())), "cut at {cut}");
        }
        assert_eq!(filtered(bytes.chunks(1)), (expected, Ok(())));
    }
}

/// Anything that looks like frames, most often.
fn any_connection() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        Just(block("http://a")),
        Just(block("a")),
        Just(AGAIN.to_vec()),
    ];
    let kind = prop_oneof![Just(HEADERS), Just(CONTINUATION), Just(DATA), any::<u8>()];
    let flags = prop_oneof![Just(END_HEADERS), Just(0), any::<u8>()];
    let any_frame = (kind, flags, 0..4_u32, payload)
        .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload));
    let frames = prop::collection::vec(any_frame, 0..8);
    let start = prop_oneof![
        Just(connection(&[])),
        Just(connection(&[frame(HEADERS, WHOLE, 1, &block("http://a"))])),
    ];
    let tail = prop::collection::vec(any::<u8>(), 0..60);
    (start, frames, tail).prop_map(|(start, frames, tail)| [start, frames.concat(), tail].concat())
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_give_the_same(
        bytes in prop_oneof![any_connection(), prop::collection::vec(any::<u8>(), 0..200)],
        size in 1..50_usize,
    ) {
        let (output, result) = filtered([&bytes[..]]);
        let (other, other_result) = filtered(bytes.chunks(size));
        prop_assert_eq!(&result, &other_result);
        prop_assert_eq!(output, other);
    }

    #[test]
    fn any_block_is_read_or_refused(block in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut decoder = Decoder::new();
        for _ in 0..2 {
            // Reading may fail; it may not panic.
            let _ = decoder.decode(&block, |_, _| Ok(()));
        }
    }
}

/// Serves one connection as the server's do, with the path and authority of a request
/// for an answer.
fn serve() -> DuplexStream {
    let (near, far) = tokio::io::duplex(64 << 10);
    tokio::spawn(async move {
        let service = service_fn(|request: Request<Incoming>| async move {
            let uri = request.uri().to_string();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let answer = format!("{uri} {}", body.len());
            Ok::<_, Infallible>(Response::new(Full::<bytes::Bytes>::from(answer)))
        });
        let io = TokioIo::new(any_authority(near));
        // The client's end tells what happened.
        let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
    });
    far
}

#[tokio::test]
async fn a_server_answers_clients_that_it_would_refuse() {
    for authority in REFUSED {
        let mut client = serve();
        client.write_all(&requests(authority)).await.unwrap();
        client.write_all(&frame(SETTINGS, ACK, 0, &[])).await.unwrap();
        let mut received = Vec::new();
        let mut answers: Vec<_> = loop {
            let data = |frame: &Frame| frame.0 == DATA && !frame.3.is_empty();
            let answers: Vec<_> = frames(&received).into_iter().filter(data).collect();
            if answers.len() == 2 {
                break answers.into_iter().map(|(.., stream, text)| (stream, text)).collect();
            }
            assert_ne!(client.read_buf(&mut received).await.unwrap(), 0, "{authority}");
        };
        answers.sort();
        assert_eq!(answers, [(1, b"/ 4".to_vec()), (3, b"/ 0".to_vec())], "{authority}");
    }
}

#[tokio::test]
async fn a_real_client_is_served_unchanged() {
    let (mut client, connection) = h2::client::handshake(serve()).await.unwrap();
    tokio::spawn(connection);
    for bytes in [0, 1, 40_000] {
        let request = Request::post("http://127.0.0.1:2379/some/path").body(()).unwrap();
        let (response, mut body) = client.send_request(request, false).unwrap();
        body.send_data(vec![0; bytes].into(), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let answer = response.into_body().data().await.unwrap().unwrap();
        assert_eq!(answer, format!("http://127.0.0.1:2379/some/path {bytes}").as_bytes());
    }
}

/// A real client's Huffman code is read, for every byte that a header may have.
#[tokio::test]
async fn a_real_client_is_understood() {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let value: Vec<u8> = (0x20..=0xff).filter(|byte| *byte != 0x7f).collect();
    let (mut client, connection) = h2::client::handshake(near).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("http://a/").header("x-all", &value[..]).body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    far.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    let mut sent = Vec::new();
    let block = loop {
        assert_ne!(far.read_buf(&mut sent).await.unwrap(), 0);
        let found = frames(&sent[PREFACE.len()..]).into_iter().find(|frame| frame.0 == HEADERS);
        if let Some(headers) = found {
            break headers.3;
        }
    };
    drop((response, connection));
    let mut all = None;
    let read = Decoder::new().decode(&block, |name, value| {
        if name == b"x-all" {
            all = Some(value.to_vec());
        }
        Ok(())
    });
    assert_eq!(read, Ok(()));
    assert_eq!(all, Some(value));
}

/// A socket that passes costs its reader no copy: what is asked for is what it gives.
#[tokio::test]
async fn a_connection_that_passes_is_no_longer_watched() {
    let (near, mut far) = tokio::io::duplex(1 << 10);
    let mut socket = any_authority(near);
    let bytes = requests("a:1");
    far.write_all(&bytes).await.unwrap();
    let mut read = vec![0; bytes.len()];
    socket.read_exact(&mut read).await.unwrap();
    assert_eq!(read, bytes);
    assert!(socket.reader.is_none());
    far.write_all(b"more").await.unwrap();
    drop(far);
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"more");
}

/// A reader with little room gets everything all the same, and the error after it.
#[tokio::test]
async fn small_reads_get_everything_then_the_error() {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let mut socket = any_authority(near);
    let good = requests("http://a");
    let bad = frame(HEADERS, WHOLE, 5, &[0xff; 9]);
    far.write_all(&[&good[..], &bad].concat()).await.unwrap();
    let (mut all, mut part) = (Vec::new(), [0; 3]);
    let error = loop {
        match socket.read(&mut part).await {
            Ok(read) => all.extend_from_slice(&part[..read]),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert_eq!(all, whole(&good));
}
