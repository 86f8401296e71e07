//! Several runs in one verdict: a load that takes more than one process.
//!
//! A run that was given `--save FILE` leaves its verdict there with the whole distribution of
//! its times; this adds up the counts, puts the distributions together and picks the longest
//! gap. Percentiles of percentiles would be wrong, and are not made.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::Failure;
use crate::cli::Load;
use crate::report::Summary;
use crate::tally::{Gap, Tally};

/// What a run leaves for [`join`]: the verdict, and every time that was counted.
#[must_use]
pub fn saved(summary: &Summary) -> String {
    let times = |times: &Histogram<u64>| -> Value {
        let counted = times.iter_recorded();
        let pairs =
            counted.map(|it| json!([it.value_iterated_to(), it.count_since_last_iteration()]));
        pairs.collect()
    };
    json!({
        "verdict": serde_json::from_str::<Value>(&summary.json()).unwrap_or_default(),
        "latency": times(&summary.tally.latency),
        "late": times(&summary.tally.late),
    })
    .to_string()
}

/// One summary of all that was saved in these files.
///
/// # Errors
/// The first file that cannot be read, or was not made by `--save`.
pub fn join(files: &[PathBuf]) -> Result<Summary, Failure> {
    let mut whole: Option<Summary> = None;
    for file in files {
        let part = read(file).map_err(|what| {
            Failure::Usage(format!(
                "{}: {what}; give files that --save made",
                file.display()
            ))
        })?;
        match &mut whole {
            Some(whole) => whole.add(part),
            None => whole = Some(part),
        }
    }
    whole.ok_or_else(|| Failure::Usage("join which files? name those that --save made".into()))
}

fn read(file: &Path) -> Result<Summary, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let saved: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let verdict = &saved["verdict"];
    let number = |key: &str| -> Result<u64, String> {
        verdict[key]
            .as_u64()
            .ok_or_else(|| format!("it has no {key}"))
    };
    let nanoseconds = |key: &str| verdict[key].as_f64().map(|ms| (ms * 1e6).round() as u64);
    let mut tally = Tally::new(nanoseconds("max_gap_ms"));
    for (key, count) in tally.counts_mut() {
        *count = number(key)?;
    }
    tally.longest_gap = match nanoseconds("longest_gap_ms") {
        Some(length) => Some(Gap {
            length,
            slot: number("longest_gap_connection")? as usize,
            at: (verdict["longest_gap_at_s"].as_f64().unwrap_or(0.0) * 1e9) as u64,
        }),
        None => None,
    };
    add_times(&mut tally.latency, &saved["latency"])?;
    add_times(&mut tally.late, &saved["late"])?;
    Ok(Summary {
        seed: number("seed")?,
        load: match verdict["loop"].as_str() {
            Some("closed") => Load::Closed,
            _ => Load::Open { rate: None },
        },
        connections: number("connections")? as usize,
        elapsed: Duration::from_secs_f64(verdict["elapsed_s"].as_f64().unwrap_or(0.0)),
        started_at: 0,
        interrupted: verdict["interrupted"].as_bool().unwrap_or(false),
        tally,
    })
}

fn add_times(times: &mut Histogram<u64>, pairs: &Value) -> Result<(), String> {
    for pair in pairs.as_array().ok_or("it has no times")? {
        let (Some(value), Some(count)) = (pair[0].as_u64(), pair[1].as_u64()) else {
            return Err("a time is damaged".into());
        };
        times.saturating_record_n(value, count);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(received: u64, latency: u64, gap: u64) -> Summary {
        let mut tally = Tally::new(None);
        tally.received = received;
        tally.sent = received;
        tally.latency.record(latency).unwrap();
        tally.longest_gap = Some(Gap {
            length: gap,
            slot: 4,
            at: 0,
        });
        Summary {
            seed: 1,
            load: Load::Open { rate: None },
            connections: 10,
            elapsed: Duration::from_secs(2),
            started_at: 0,
            interrupted: false,
            tally,
        }
    }

    #[test]
    fn counts_add_up_times_are_put_together_and_the_longest_gap_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<PathBuf> = [(5, 1_000, 7_000_000), (6, 9_000, 3_000_000)]
            .iter()
            .enumerate()
            .map(|(number, &(received, latency, gap))| {
                let file = folder.path().join(number.to_string());
                std::fs::write(&file, saved(&summary(received, latency, gap))).unwrap();
                file
            })
            .collect();
        let whole = join(&files).unwrap();
        assert_eq!((whole.tally.received, whole.connections), (11, 20));
        assert_eq!(whole.tally.latency.len(), 2);
        assert!(whole.tally.latency.max() >= 9_000);
        assert_eq!(whole.tally.longest_gap.unwrap().length, 7_000_000);
        assert!(whole.is_clean());
    }

    #[test]
    fn file_that_save_did_not_make_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("other");
        std::fs::write(&file, "{}").unwrap();
        let refused = join(&[file]).unwrap_err().to_string();
        assert!(
            refused.contains("other") && refused.contains("--save"),
            "{refused}"
        );
        assert!(join(&[]).is_err());
    }
}
