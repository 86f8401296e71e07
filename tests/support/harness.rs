//! What a test binary that brings its own `main` understands of `cargo test`.

// Each test binary uses a part of it.
#![allow(dead_code, unused_macros, unused_imports, unreachable_pub)]

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Harness {
    /// The names are to be listed, and nothing is run.
    pub list: bool,
    /// A test is run if its name contains one of these words, or if there are none.
    words: Vec<String>,
    /// And if it contains none of these.
    skipped: Vec<String>,
    /// A word is a whole name.
    exact: bool,
}

/// Options of the usual harness that are followed by a value.
const WITH_VALUE: &[&str] = &[
    "--test-threads",
    "--color",
    "--format",
    "--logfile",
    "--shuffle-seed",
    "-Z",
];

impl Harness {
    /// Reads what `cargo test` passes on. Other options mean nothing here.
    pub fn of(mut args: impl Iterator<Item = String>) -> Harness {
        let mut found = Harness::default();
        while let Some(arg) = args.next() {
            if arg == "--skip" {
                found.skipped.extend(args.next());
            } else if WITH_VALUE.contains(&arg.as_str()) {
                let _ = args.next();
            } else if arg == "--list" {
                found.list = true;
            } else if arg == "--exact" {
                found.exact = true;
            } else if !arg.starts_with('-') {
                found.words.push(arg);
            }
        }
        found
    }

    pub fn wants(&self, name: &str) -> bool {
        let fits = |word: &String| match self.exact {
            true => name == word,
            false => name.contains(word),
        };
        let is_asked_for = self.words.is_empty() || self.words.iter().any(fits);
        is_asked_for && !self.skipped.iter().any(fits)
    }

    /// Runs the scenarios that are wanted, one after the other in this process.
    pub fn run(&self, scenarios: &[(&str, fn())]) {
        for (name, scenario) in scenarios.iter().filter(|(name, _)| self.wants(name)) {
            if self.list {
                println!("{name}: test");
            } else {
                scenario();
                println!("test {name} ... ok");
            }
        }
    }
}

/// Functions with their names.
macro_rules! scenarios {
    ($($scenario:ident),* $(,)?) => {
        &[$((stringify!($scenario), $scenario as fn())),*]
    };
}

pub(crate) use scenarios;
