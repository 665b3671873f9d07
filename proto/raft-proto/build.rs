//! Compiles eraftpb.proto and writes the accessors and codec glue raft calls on each message.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, error, fs};

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto};

fn main() -> Result<(), Box<dyn error::Error>> {
    println!("cargo:rerun-if-changed=proto/eraftpb.proto");
    let descriptors = protox::compile(["eraftpb.proto"], ["proto"])?;
    let mut glue = String::new();
    for message in descriptors.file.iter().flat_map(|file| &file.message_type) {
        write_message(&mut glue, message)?;
    }
    prost_build::Config::new().bytes(["."]).compile_fds(descriptors)?;
    fs::write(Path::new(&env::var("OUT_DIR")?).join("eraftpb_glue.rs"), glue)?;
    Ok(())
}

/// Writes one message's accessors and its `wire_message!` call.
fn write_message(out: &mut String, message: &DescriptorProto) -> std::fmt::Result {
    writeln!(out, "impl {} {{", message.name())?;
    for field in &message.field {
        write_field(out, field)?;
    }
    writeln!(out, "}}\nwire_message!({});", message.name())
}

/// Writes the accessors of one field, in the naming raft expects.
fn write_field(out: &mut String, field: &FieldDescriptorProto) -> std::fmt::Result {
    let name = field.name();
    let message = field.type_name().rsplit('.').next().unwrap_or_default();
    if field.label() == Label::Repeated {
        let item = if field.r#type() == Type::Message { message } else { scalar(field.r#type()) };
        return write_owned(out, name, &format!("Vec<{item}>"), &format!("[{item}]"));
    }
    match field.r#type() {
        Type::Message => write_optional(out, name, message),
        // prost itself writes the setter of an enum field.
        Type::Enum => writeln!(
            out,
            "#[inline] pub fn get_{name}(&self) -> {message} {{ self.{name}() }}
             #[inline] pub fn clear_{name}(&mut self) {{ self.{name} = 0; }}"
        ),
        Type::Bytes => write_owned(out, name, "Bytes", "[u8]"),
        kind => write_scalar(out, name, scalar(kind)),
    }
}

/// The Rust type of a scalar kind; the proto uses only these three.
fn scalar(kind: Type) -> &'static str {
    match kind {
        Type::Uint64 => "u64",
        Type::Int64 => "i64",
        Type::Bool => "bool",
        other => panic!("eraftpb.proto uses {other:?}, which has no accessors yet"),
    }
}

fn write_scalar(out: &mut String, name: &str, ty: &str) -> std::fmt::Result {
    writeln!(
        out,
        "#[inline] pub fn get_{name}(&self) -> {ty} {{ self.{name} }}
         #[inline] pub fn set_{name}(&mut self, value: {ty}) {{ self.{name} = value; }}
         #[inline] pub fn clear_{name}(&mut self) {{ self.{name} = Default::default(); }}"
    )
}

fn write_owned(out: &mut String, name: &str, ty: &str, slice: &str) -> std::fmt::Result {
    writeln!(
        out,
        "#[inline] pub fn get_{name}(&self) -> &{slice} {{ &self.{name} }}
         #[inline] pub fn set_{name}(&mut self, value: {ty}) {{ self.{name} = value; }}
         #[inline] pub fn mut_{name}(&mut self) -> &mut {ty} {{ &mut self.{name} }}
         #[inline] pub fn take_{name}(&mut self) -> {ty} {{ std::mem::take(&mut self.{name}) }}
         #[inline] pub fn clear_{name}(&mut self) {{ self.{name}.clear(); }}"
    )
}

fn write_optional(out: &mut String, name: &str, ty: &str) -> std::fmt::Result {
    writeln!(
        out,
        "#[inline] pub fn has_{name}(&self) -> bool {{ self.{name}.is_some() }}
         #[inline] pub fn get_{name}(&self) -> &{ty} {{
             self.{name}.as_ref().unwrap_or_else(|| {ty}::default_ref())
         }}
         #[inline] pub fn set_{name}(&mut self, value: {ty}) {{ self.{name} = Some(value); }}
         #[inline] pub fn mut_{name}(&mut self) -> &mut {ty} {{
             self.{name}.get_or_insert_with(Default::default)
         }}
         #[inline] pub fn take_{name}(&mut self) -> {ty} {{
             self.{name}.take().unwrap_or_default()
         }}
         #[inline] pub fn clear_{name}(&mut self) {{ self.{name} = None; }}"
    )
}
