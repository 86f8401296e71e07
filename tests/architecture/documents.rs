//! What the documents name is there: files, folders, test binaries, and tests.

use std::fs;
use std::path::{Path, PathBuf};

/// Where a name in a document leads nowhere.
pub(crate) fn dead_names(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for document in documents(root) {
        let text = fs::read_to_string(&document).unwrap();
        let about = document.strip_prefix(root).unwrap().display();
        for code in text.split('`').skip(1).step_by(2) {
            if let Some(what) = dead_path(root, code).or_else(|| dead_command(root, code)) {
                found.push(format!("{about}: `{code}`: {what}"));
            }
        }
        for line in text.lines() {
            found.extend(dead_tests(root, line).map(|what| format!("{about}: {what}")));
        }
    }
    found
}

fn documents(root: &Path) -> Vec<PathBuf> {
    let folders = [root.to_owned(), root.join("docs")];
    let entries = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap());
    let paths = entries.map(|entry| entry.unwrap().path());
    let found: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|ext| ext == "md"))
        .collect();
    assert!(found.len() > 4, "{found:?}");
    found
}

/// A path from the root that is not there.
fn dead_path(root: &Path, code: &str) -> Option<&'static str> {
    let rooms = ["src/", "tests/", "tools/", "docs/", "examples/", "fuzz/"];
    let path = code.split_whitespace().next()?.trim_start_matches("./");
    let is_path = rooms.iter().any(|room| path.starts_with(room));
    (is_path && !root.join(path).exists()).then_some("there is no such file")
}

/// `cargo test --test BINARY -- WORDS`: no such binary, or no file of it that a word names.
fn dead_command(root: &Path, code: &str) -> Option<&'static str> {
    let mut binaries = Vec::new();
    let words: Vec<&str> = code.strip_prefix("cargo test ")?.split(' ').collect();
    for pair in words.windows(2) {
        if pair[0] == "--test" && pair[1] != "NAME" {
            binaries.push(pair[1]);
        }
    }
    let tests = root.join("tests");
    let file = |name: &str| tests.join(name).with_extension("rs").is_file();
    let exists = |name: &&str| file(name) || tests.join(name).join("main.rs").is_file();
    if !binaries.iter().all(exists) {
        return Some("there is no such test binary");
    }
    let mut modules = words.iter().filter_map(|word| word.strip_suffix("::"));
    let is_there = |module: &str| {
        binaries
            .iter()
            .any(|name| file(&format!("{name}/{module}")))
    };
    (!modules.all(is_there)).then_some("there is no such module")
}

/// In a line such as "`takeover/hostile.rs` stranger_knocks_…, flood_…": the files under `tests`
/// that are not there, and the beginnings of names that no test of theirs has.
fn dead_tests(root: &Path, line: &str) -> impl Iterator<Item = String> {
    let mut found = Vec::new();
    let mut text = None;
    for word in line.split([' ', ',', '|']).filter(|word| !word.is_empty()) {
        let file = word.trim_matches('`');
        if word.starts_with('`') && file.ends_with(".rs") {
            let path = root.join("tests").join(file);
            text = fs::read_to_string(&path).ok();
            let is_elsewhere = ["src/", "tests/", "examples/"]
                .iter()
                .any(|at| file.starts_with(at));
            if text.is_none() && !is_elsewhere && line.starts_with("| to ") {
                found.push(format!("tests/{file} is not there"));
            }
        } else if let (Some(begins), Some(text)) = (word.strip_suffix('…'), &text)
            && !text.contains(&format!("\nfn {begins}"))
        {
            found.push(format!("no test is called {word}"));
        }
    }
    found.into_iter()
}
