//! How a line looks.

use super::Level;
use super::timestamp;
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};
use std::io;
use std::time::SystemTime;

/// A line's parts.
pub(super) struct Record<'a> {
    pub(super) level: Level,
    pub(super) time: SystemTime,
    /// The part of the program that speaks, when it has a name.
    pub(super) logger: Option<&'a str>,
    pub(super) file: &'a str,
    pub(super) line: u32,
    pub(super) message: &'a str,
    pub(super) fields: &'a [(&'static str, Value)],
}

impl Record<'_> {
    /// The last folder, the file and the line.
    fn caller(&self) -> String {
        let start = self.file.rmatch_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
        format!("{}:{}", &self.file[start..], self.line)
    }

    fn timestamp(&self) -> String {
        let mut out = String::with_capacity(32);
        timestamp::write_local(self.time, &mut out);
        out
    }

    /// One JSON object and a newline.
    pub(super) fn json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        push_member(&mut out, "level", self.level.as_str());
        push_member(&mut out, "ts", &self.timestamp());
        if let Some(logger) = self.logger {
            push_member(&mut out, "logger", logger);
        }
        push_member(&mut out, "caller", &self.caller());
        push_member(&mut out, "msg", self.message);
        for (name, value) in self.fields {
            push_member(&mut out, name, value);
        }
        out.extend_from_slice(b"}\n");
        out
    }

    /// Columns for people: time, level, name, caller, message, fields.
    pub(super) fn console(&self) -> Vec<u8> {
        let mut columns = vec![self.timestamp(), self.level.as_str().to_owned()];
        columns.extend(self.logger.map(str::to_owned));
        columns.push(self.caller());
        columns.push(self.message.to_owned());
        let mut out = columns.join("\t").into_bytes();
        if !self.fields.is_empty() {
            out.push(b'\t');
            let start = out.len();
            let fields = Fields(self.fields);
            if fields.serialize(&mut Serializer::with_formatter(&mut out, Spaced)).is_err() {
                // Values are JSON already, and memory takes any bytes.
                out.truncate(start);
            }
        }
        out.push(b'\n');
        out
    }
}

/// Appends `"name":value` to an object that is being written.
fn push_member(out: &mut Vec<u8>, name: &str, value: &(impl Serialize + ?Sized)) {
    out.push(if out.is_empty() { b'{' } else { b',' });
    let start = out.len();
    let written = serde_json::to_writer(&mut *out, name).and_then(|()| {
        out.push(b':');
        serde_json::to_writer(&mut *out, value)
    });
    if written.is_err() {
        // Values are JSON already, and memory takes any bytes.
        out.truncate(start);
        out.extend_from_slice(b"\"\":null");
    }
}

struct Fields<'a>(&'a [(&'static str, Value)]);

impl Serialize for Fields<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

/// JSON on one line with a space after each comma and colon.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: io::Write + ?Sized>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }

    fn begin_object_key<W: io::Write + ?Sized>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, w: &mut W) -> io::Result<()> {
        w.write_all(b": ")
    }
}
