//! The transcripts in `transcripts/` say what happens. `CASTD_REWRITE=1` has them say what
//! happens now.

use std::path::{Path, PathBuf};

use castd_sim::script::replay;

fn transcripts() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let entries = std::fs::read_dir(folder).expect("the transcripts can be read");
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.expect("an entry of the folder").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    files
}

/// The first lines that differ.
fn difference(said: &str, happened: &str) -> String {
    let lines = said.lines().zip(happened.lines()).enumerate();
    let differing = lines.skip_while(|(_, (said, happened))| said == happened).take(1);
    let mut text: String = differing
        .map(|(number, (said, happened))| {
            format!("line {}:\n  said      {said}\n  happened  {happened}", number + 1)
        })
        .collect();
    if text.is_empty() {
        let (said, happened) = (said.lines().count(), happened.lines().count());
        text = format!("it says {said} lines, and {happened} happened");
    }
    text
}

#[test]
fn transcripts_say_what_happens() {
    let rewrite = std::env::var("CASTD_REWRITE").is_ok_and(|value| value == "1");
    let files = transcripts();
    assert!(files.len() >= 15, "the transcripts are there: {files:?}");
    let mut wrong = Vec::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let said = std::fs::read_to_string(&file).expect("a transcript is text");
        match replay(&said) {
            Err(error) => wrong.push(format!("{name}: {error}")),
            Ok(happened) if happened.contains("\n!! ") => {
                wrong.push(format!("{name}: a promise is broken:\n{happened}"));
            }
            Ok(happened) if rewrite => {
                std::fs::write(&file, happened).expect("a transcript can be written");
            }
            Ok(happened) if happened != said => {
                wrong.push(format!("{name}: {}", difference(&said, &happened)));
            }
            Ok(_) => {}
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\n\nCASTD_REWRITE=1 has the files say what happens now; read what that changes.",
        wrong.join("\n")
    );
}
