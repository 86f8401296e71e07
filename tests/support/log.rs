//! The lines that a process has written to its stderr, and waiting for the next.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

/// A process's log so far. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    text: Mutex<Text>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Text {
    lines: Vec<String>,
    /// Nobody can write to it any more.
    ended: bool,
}

impl Log {
    /// Reads `source` to its end, on a thread of its own.
    pub fn of(source: impl Read + Send + 'static) -> Log {
        let log = Log::default();
        let shared = Arc::clone(&log.0);
        thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while let Ok(1..) = source.read_until(b'\n', &mut line) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                shared.lock().lines.push(text);
                shared.more.notify_all();
            }
            shared.lock().ended = true;
            shared.more.notify_all();
        });
        log
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().lines.clone()
    }

    /// How many lines contain `part`.
    pub fn count(&self, part: &str) -> usize {
        let text = self.0.lock();
        text.lines.iter().filter(|line| line.contains(part)).count()
    }

    /// Waits for the `nth` line (the first is 1) that contains `part`. `None` if it cannot
    /// come any more, or not within `bound`.
    pub fn wait(&self, part: &str, nth: usize, bound: Duration) -> Option<String> {
        self.find(bound, |text| {
            let mut found = text.lines.iter().filter(|line| line.contains(part));
            found.nth(nth - 1).cloned()
        })
    }

    /// The same for the first line that contains any of the parts.
    pub fn wait_any(&self, parts: &[&str], bound: Duration) -> Option<String> {
        let has_one = |line: &&String| parts.iter().any(|part| line.contains(part));
        self.find(bound, |text| text.lines.iter().find(has_one).cloned())
    }

    fn find(&self, bound: Duration, find: impl Fn(&Text) -> Option<String>) -> Option<String> {
        let waiting = |text: &mut Text| find(text).is_none() && !text.ended;
        let text = self.0.lock();
        let (text, _) = self
            .0
            .more
            .wait_timeout_while(text, bound, waiting)
            .expect("no thread panics with it");
        find(&text)
    }

    /// Waits until nobody can write to it any more. False if that takes longer than `bound`.
    pub fn wait_end(&self, bound: Duration) -> bool {
        let text = self.0.lock();
        let (text, _) = self
            .0
            .more
            .wait_timeout_while(text, bound, |text| !text.ended)
            .expect("no thread panics with it");
        text.ended
    }
}

/// The number behind `name=` in a line.
///
/// # Panics
/// If there is none.
pub fn figure(line: &str, name: &str) -> f64 {
    let mut words = line.split(' ');
    let number = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let number = number.and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("no {name} in {line:?}"))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Text> {
        self.text.lock().expect("no thread panics with it")
    }
}
