//! What a picture shows, out of what a run traced and the service reported.

use serde_json::Value;

/// A run: its buckets, and the takeovers that fall into it. Times are in nanoseconds since its
/// first bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// What stands above it.
    pub title: String,
    /// What was run, in a few words.
    pub load: String,
    /// What came of it, if it came to its end.
    pub verdict: Option<String>,
    /// How long a bucket is.
    pub bucket: u64,
    /// In the order of time.
    pub buckets: Vec<Bucket>,
    /// In the order of time.
    pub takeovers: Vec<Takeover>,
}

/// What came in one bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bucket {
    /// When it began.
    pub at: u64,
    /// Answers that came.
    pub answers: u64,
    /// Half of them took no longer.
    pub p50: u64,
    /// 99 of a hundred took no longer.
    pub p99: u64,
    /// None took longer.
    pub worst: u64,
    /// Whatever went wrong.
    pub faults: u64,
}

/// When the phases of a takeover began, and when the new owner served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Takeover {
    /// The successor is told everything.
    pub preload: u64,
    /// Nobody serves.
    pub held: u64,
    /// The successor serves.
    pub served: u64,
}

/// The takeovers in the lines of a service's `--report` file; those that failed are left out.
///
/// # Errors
/// A line that is none of it.
pub fn takeovers(text: &str) -> Result<Vec<Takeover>, String> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let wrong = || format!("line {} is no report of a takeover", number + 1);
        let line: Value = serde_json::from_str(line).map_err(|_| wrong())?;
        let at = |key: &str| line[key].as_u64();
        if line["outcome"].as_str().ok_or_else(wrong)? != "active" {
            continue;
        }
        if let (Some(preload), Some(held), Some(served)) =
            (at("welcome_at"), at("held_at"), at("decided_at"))
        {
            found.push(Takeover {
                preload,
                held,
                served,
            });
        }
    }
    found.sort_by_key(|takeover| takeover.held);
    Ok(found)
}

/// A run in the lines of a `--trace` file. It need not have come to its end.
///
/// # Errors
/// What is missing.
pub fn run(text: &str, title: &str, takeovers: &[Takeover]) -> Result<Run, String> {
    let mut lines = text.lines().map(serde_json::from_str::<Value>);
    let first = match lines.next() {
        Some(Ok(first)) if first["type"] == "run" => first,
        _ => return Err("it is no trace; give a file that --trace made".into()),
    };
    let bucket = first["bucket_ms"].as_u64().unwrap_or(10) * 1_000_000;
    let connections = first["connections"].as_u64().unwrap_or(0);
    let load = match (first["loop"].as_str(), first["rate"].as_f64()) {
        (Some("closed"), _) => format!("{connections} connections, closed loop"),
        (_, Some(rate)) => format!("{connections} connections, {rate} messages/s"),
        _ => format!("{connections} connections, 10 messages/s each"),
    };
    let (mut buckets, mut verdict) = (Vec::new(), None);
    for line in lines {
        // The last one may be cut short: the run was killed.
        let Ok(line) = line else { break };
        match line["type"].as_str() {
            Some("bucket") => buckets.push(read_bucket(&line)),
            Some("verdict") => verdict = Some(in_words(&line)),
            _ => return Err("it is no trace; give a file that --trace made".into()),
        }
    }
    let start = buckets.first().map(|bucket: &Bucket| bucket.at);
    let start = start.ok_or("nothing happened in it")?;
    for bucket in &mut buckets {
        bucket.at -= start;
    }
    let end = buckets.last().map_or(0, |last| last.at) + bucket;
    let within = |takeover: &&Takeover| takeover.held >= start && takeover.served <= start + end;
    let takeovers = takeovers.iter().filter(within).map(|takeover| Takeover {
        preload: takeover.preload.saturating_sub(start),
        held: takeover.held - start,
        served: takeover.served - start,
    });
    Ok(Run {
        title: title.to_owned(),
        load,
        verdict,
        bucket,
        takeovers: takeovers.collect(),
        buckets,
    })
}

fn read_bucket(line: &Value) -> Bucket {
    let number = |key: &str| line[key].as_u64().unwrap_or(0);
    Bucket {
        at: number("at_ns"),
        answers: number("answers"),
        p50: number("p50_ns"),
        p99: number("p99_ns"),
        worst: number("max_ns"),
        faults: number("faults"),
    }
}

/// The verdict's faults, or that there are none.
fn in_words(verdict: &Value) -> String {
    let received = verdict["received"].as_u64().unwrap_or(0);
    let failures = verdict["failures"].as_array();
    let words: Vec<String> = failures
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(|name| format!("{} {}", verdict[name], name.replace('_', " ")))
        .collect();
    if words.is_empty() {
        format!("{received} messages, nothing lost, doubled, reordered or reset")
    } else {
        format!("{received} messages; {}", words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = r#"{"type":"run","bucket_ms":10,"connections":3,"loop":"open","rate":50.0}
{"type":"bucket","at_ns":1000000000,"answers":5,"p50_ns":10,"p99_ns":20,"max_ns":30,"faults":0}
{"type":"bucket","at_ns":1020000000,"answers":1,"p50_ns":11,"p99_ns":21,"max_ns":31,"faults":2}
{"type":"verdict","received":6,"failures":["resets"],"resets":2}
"#;
    const REPORT: &str = r#"{"outcome":"released","welcome_at":1,"held_at":2,"decided_at":3}
{"outcome":"active","welcome_at":990000000,"held_at":1005000000,"decided_at":1005000100}
{"outcome":"active","welcome_at":1,"held_at":2,"decided_at":3}
{"outcome":"left","welcome_at":null,"held_at":null,"decided_at":null}
"#;

    #[test]
    fn times_count_from_the_first_bucket_and_other_takeovers_are_left_out() {
        let takeovers = takeovers(REPORT).unwrap();
        assert_eq!(takeovers.len(), 2);
        let run = run(TRACE, "a run", &takeovers).unwrap();
        assert_eq!(run.buckets[1].at, 20_000_000);
        assert_eq!((run.buckets[1].faults, run.buckets[0].worst), (2, 30));
        let takeover = Takeover {
            preload: 0,
            held: 5_000_000,
            served: 5_000_100,
        };
        assert_eq!(run.takeovers, [takeover]);
        assert_eq!(run.load, "3 connections, 50 messages/s");
        assert_eq!(run.verdict.as_deref(), Some("6 messages; 2 resets"));
    }

    #[test]
    fn run_that_was_cut_short_has_no_verdict_and_is_drawn() {
        let cut = &TRACE[..TRACE.len() - 20];
        let run = run(cut, "cut", &[]).unwrap();
        assert_eq!((run.buckets.len(), run.verdict), (2, None));
    }

    #[test]
    fn file_of_another_kind_is_refused() {
        assert!(run("hello", "", &[]).is_err());
        assert!(run("", "", &[]).is_err());
        assert!(takeovers("{\"no\":1}").is_err());
        let empty = TRACE.lines().next().unwrap();
        assert!(run(empty, "", &[]).unwrap_err().contains("nothing"));
    }
}
