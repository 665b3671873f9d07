//! What a line looks like, and which lines there are.

use super::encode::Record;
use super::layer::LogLayer;
use super::{FATAL, Format, Json, Level, LogConfig, LogError, Logger, Notice, Output};
use serde_json::{Value, json};
use std::path::Path;
use std::time::UNIX_EPOCH;
use tracing_subscriber::layer::SubscriberExt;

fn record<'a>(fields: &'a [(&'static str, Value)], logger: Option<&'a str>) -> Record<'a> {
    Record {
        level: Level::Info,
        time: UNIX_EPOCH,
        logger,
        file: "actors/src/raft/core.rs",
        line: 7,
        message: "a \"b\"\n",
        fields,
    }
}

/// The line with its local time taken out.
fn text(line: Vec<u8>) -> String {
    let line = String::from_utf8(line).unwrap();
    let start = line.find("19").unwrap();
    let end = start + line[start..].find(['"', '\t']).unwrap();
    format!("{}TIME{}", &line[..start], &line[end..])
}

#[test]
fn a_json_line_has_etcds_members_in_etcds_order() {
    let fields = [("urls", json!(["http://a:1"])), ("n", json!(3)), ("ok", json!(true))];
    assert_eq!(
        text(record(&fields, Some("raft")).json()),
        "{\"level\":\"info\",\"ts\":\"TIME\",\"logger\":\"raft\",\"caller\":\"raft/core.rs:7\",\
         \"msg\":\"a \\\"b\\\"\\n\",\"urls\":[\"http://a:1\"],\"n\":3,\"ok\":true}\n"
    );
}

#[test]
fn a_console_line_has_columns() {
    let fields = [("urls", json!(["http://a:1", "b"])), ("n", json!(3))];
    assert_eq!(
        text(record(&fields, None).console()),
        "TIME\tinfo\traft/core.rs:7\ta \"b\"\n\t{\"urls\": [\"http://a:1\", \"b\"], \"n\": 3}\n"
    );
    assert_eq!(
        text(record(&[], Some("raft")).console()),
        "TIME\tinfo\traft\traft/core.rs:7\ta \"b\"\n\n"
    );
}

/// The lines that `events` leave in a file at that level.
fn lines(level: Level, events: impl FnOnce()) -> Vec<Value> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let outputs = vec![Output::File(path.clone())];
    let config = LogConfig { level, format: Format::Json, outputs };
    let logger = Logger::open(&config).unwrap();
    let subscriber = tracing_subscriber::registry().with(LogLayer(logger));
    tracing::subscriber::with_default(subscriber, events);
    let written = std::fs::read_to_string(path).unwrap();
    written.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn events_become_typed_fields() {
    let urls = Json::of(&["http://a:1", "http://b:2"]);
    let found = lines(Level::Info, || {
        tracing::info!(
            {
                "local-member-id" = "8e9e05c52164694d",
                "listen-urls" = urls.field(),
                term = 3u64,
                offset = -1i64,
                ratio = f64::NAN,
                took = ?std::time::Duration::from_millis(2),
                error = %std::fmt::Error,
                logger = "raft",
                ready = true,
            },
            "ready to serve client requests"
        );
    });
    let line = found[0].as_object().unwrap();
    let caller = line["caller"].as_str().unwrap();
    assert!(caller.starts_with("logging/tests.rs:"), "{caller}");
    let mut rest = line.clone();
    rest.remove("ts");
    rest.remove("caller");
    assert_eq!(
        Value::Object(rest),
        json!({
            "level": "info", "logger": "raft", "msg": "ready to serve client requests",
            "local-member-id": "8e9e05c52164694d",
            "listen-urls": ["http://a:1", "http://b:2"],
            "term": 3, "offset": -1, "ratio": "NaN", "took": "2ms", "ready": true,
            "error": "an error occurred when formatting an argument",
        })
    );
}

fn levels(found: &[Value]) -> Vec<&str> {
    found.iter().map(|line| line["level"].as_str().unwrap()).collect()
}

/// An event at each level, and a fatal one.
fn one_of_each() {
    tracing::trace!("t");
    tracing::debug!("d");
    tracing::info!("i");
    tracing::warn!("w");
    tracing::error!("e");
    tracing::error!(target: FATAL, "f");
}

#[test]
fn levels_below_the_configured_one_are_not_written() {
    assert_eq!(
        levels(&lines(Level::Debug, one_of_each)),
        ["debug", "info", "warn", "error", "fatal"]
    );
    assert_eq!(levels(&lines(Level::Info, one_of_each)), ["info", "warn", "error", "fatal"]);
    assert_eq!(levels(&lines(Level::Error, one_of_each)), ["error", "fatal"]);
    assert_eq!(levels(&lines(Level::Fatal, one_of_each)), ["fatal"]);
}

#[test]
fn every_output_gets_every_line() {
    let dir = tempfile::tempdir().unwrap();
    let paths = [dir.path().join("a"), dir.path().join("b")];
    let outputs = paths.iter().cloned().map(Output::File).collect();
    let logger = Logger::open(&LogConfig { outputs, ..LogConfig::default() }).unwrap();
    logger.write(&Notice::info("one").with("n", 1));
    logger.write(&Notice::new(Level::Debug, "below the level"));
    for path in paths {
        let line: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!((&line["msg"], &line["n"]), (&json!("one"), &json!(1)));
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_named() {
    let outputs = vec![Output::File(Path::new("/nonexistent/x").to_owned())];
    let error = Logger::open(&LogConfig { outputs, ..LogConfig::default() }).err().unwrap();
    assert!(matches!(error, LogError::Open { .. }));
    assert_eq!(
        error.to_string(),
        "couldn't open sink \"/nonexistent/x\": open /nonexistent/x: no such file or directory"
    );
}

#[test]
fn level_names() {
    for level in ["debug", "info", "warn", "error", "dpanic", "panic", "fatal"] {
        assert_eq!(Level::parse(level).unwrap().as_str(), level);
        assert_eq!(Level::parse(&level.to_uppercase()).unwrap().as_str(), level);
    }
    assert_eq!(Level::parse("foo"), Err("unrecognized level: \"foo\"".to_owned()));
}
