//! Prints the path of a protoc that came as a crate, for `PROTOC=…`.

fn main() -> Result<(), protoc_bin_vendored::Error> {
    println!("{}", protoc_bin_vendored::protoc_bin_path()?.display());
    Ok(())
}
