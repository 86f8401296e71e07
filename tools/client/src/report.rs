//! The verdict: for people, for scripts, and the line in between.

use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::Failure;
use crate::cli::Load;
use crate::tally::Tally;

/// When 1 % of the messages left later than this, the times say more about this program
/// than about the server. Nanoseconds.
const TOO_LATE: u64 = 1_000_000;

/// Exit code if this machine had no room for the load (`EX_OSERR` of sysexits.h).
pub const UNABLE: u8 = 71;

/// The points of a distribution, by their names in the JSON verdict.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999)];

/// What a run came to.
#[derive(Debug)]
pub struct Summary {
    /// What repeats its random choices.
    pub seed: u64,
    /// Which loop it was.
    pub load: Load,
    /// Connections asked for.
    pub connections: usize,
    /// How long it sent.
    pub elapsed: Duration,
    /// When sending began, in nanoseconds of the run's clock.
    pub started_at: u64,
    /// Whether a signal ended it.
    pub interrupted: bool,
    /// The counts.
    pub tally: Tally,
}

impl Summary {
    /// Adds what another process has found, at the same time.
    pub fn add(&mut self, other: Summary) {
        self.connections += other.connections;
        self.elapsed = self.elapsed.max(other.elapsed);
        self.interrupted |= other.interrupted;
        self.tally.add(other.tally);
    }

    /// The distribution of the latencies as HdrHistogram's own tools read it: value in
    /// milliseconds, percentile, how many up to there, and 1 / (1 - percentile).
    #[must_use]
    pub fn hgrm(&self) -> String {
        let times = &self.tally.latency;
        let mut text = format!(
            "{:>12} {:>14} {:>10} {:>14}\n\n",
            "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
        );
        let mut count = 0;
        for step in times.iter_quantiles(5) {
            count += step.count_since_last_iteration();
            let (value, quantile) = (milliseconds(step.value_iterated_to()), step.quantile());
            let _ = write!(text, "{value:12.3} {quantile:2.12} {count:10}");
            if quantile < 1.0 {
                let _ = write!(text, " {:14.2}", 1.0 / (1.0 - quantile));
            }
            text.push('\n');
        }
        let _ = writeln!(
            text,
            "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n\
             #[Max     = {:12.3}, Total count    = {:12}]\n\
             #[Buckets = {:12}, SubBuckets     = {:12}]",
            times.mean() / 1e6,
            times.stdev() / 1e6,
            milliseconds(times.max()),
            times.len(),
            times.buckets(),
            1 << (64 - (2 * 10_u64.pow(times.sigfig().into()) - 1).leading_zeros()),
        );
        text
    }

    /// Whether everything came back right, and all of the load that was asked for was there.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.tally.is_clean()
    }

    /// The exit code that tells the verdict: a fault of the server is one, whatever else
    /// there is.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.tally.fault_count() {
            0 if self.is_clean() => 0,
            0 => UNABLE,
            _ => 1,
        }
    }

    /// The same as a word of the JSON verdict.
    fn verdict(&self) -> &'static str {
        match self.exit_code() {
            0 => "ok",
            UNABLE => "incomplete",
            _ => "fail",
        }
    }

    /// The verdict in a few lines, worst first.
    #[must_use]
    pub fn text(&self) -> String {
        let tally = &self.tally;
        let mut text = match self.failures().as_slice() {
            [] if self.is_clean() => {
                "OK: every message came back once, in order and unchanged\n".to_owned()
            }
            [] => "INCOMPLETE: no fault of the server was seen, but less load than was asked for\n"
                .to_owned(),
            failures => format!("FAIL: {}\n", failures.join(", ")),
        };
        let _ = writeln!(
            text,
            "connections  {} up, {} failed to connect, {} reset, {} closed by the server, \
             {} stalled, {} churned",
            tally.established,
            tally.connect_failures,
            tally.resets,
            tally.closed_by_server,
            tally.stalled,
            tally.churned
        );
        if tally.client_failures > 0 {
            let _ = writeln!(
                text,
                "this client  {} times had no port, descriptor or memory: more source addresses \
                 (--sources,\n             --source), a wider net.ipv4.ip_local_port_range, a higher \
                 ulimit -n help",
                tally.client_failures
            );
        }
        let _ = writeln!(
            text,
            "messages     {} sent, {} received, {} lost, {} doubled, {} reordered, \
             {} corrupted ({} bytes, {} messages damaged)",
            tally.sent,
            tally.received,
            tally.lost,
            tally.doubled,
            tally.reordered,
            tally.corrupted,
            tally.corrupted_bytes,
            tally.damaged
        );
        let _ = writeln!(text, "longest gap  {}", self.gap_text());
        let from = match self.load {
            Load::Open { .. } => "open loop, from when it was due",
            Load::Closed => "closed loop, from when it was sent",
        };
        let _ = writeln!(text, "latency      {} ({from})", times_text(&tally.latency));
        if matches!(self.load, Load::Open { .. }) {
            let _ = writeln!(
                text,
                "late         {} (this client)",
                times_text(&tally.late)
            );
            if tally.late.value_at_quantile(0.99) > TOO_LATE {
                text.push_str("             this client was late itself: do not trust the times\n");
            }
        }
        let cut = if self.interrupted {
            ", ended by a signal"
        } else {
            ""
        };
        let seconds = self.elapsed.as_secs_f64();
        let _ = writeln!(text, "run          {seconds:.3} s, seed {}{cut}", self.seed);
        text
    }

    /// The verdict as one line of JSON; `--help` names the keys.
    #[must_use]
    pub fn json(&self) -> String {
        let tally = &self.tally;
        let faults = tally.faults().into_iter().filter(|&(_, count)| count > 0);
        let failures: Vec<&str> = faults.map(|(name, _)| name).collect();
        let gap = tally.longest_gap;
        json!({
            "verdict": self.verdict(),
            "failures": failures,
            "seed": self.seed,
            "loop": match self.load {
                Load::Open { .. } => "open",
                Load::Closed => "closed",
            },
            "elapsed_s": self.elapsed.as_secs_f64(),
            "interrupted": self.interrupted,
            "connections": self.connections,
            "established": tally.established,
            "connect_failures": tally.connect_failures,
            "client_failures": tally.client_failures,
            "resets": tally.resets,
            "closed_by_server": tally.closed_by_server,
            "stalled": tally.stalled,
            "churned": tally.churned,
            "sent": tally.sent,
            "received": tally.received,
            "lost": tally.lost,
            "doubled": tally.doubled,
            "reordered": tally.reordered,
            "corrupted": tally.corrupted,
            "corrupted_bytes": tally.corrupted_bytes,
            "damaged": tally.damaged,
            "longest_gap_ms": gap.map(|gap| milliseconds(gap.length)),
            "longest_gap_connection": gap.map(|gap| gap.slot),
            "longest_gap_at_s": gap.map(|gap| self.seconds_into(gap.at)),
            "max_gap_ms": tally.max_gap().map(milliseconds),
            "gaps_over_max": tally.gaps_over_max,
            "latency_us": times_json(&tally.latency),
            "late_us": times_json(&tally.late),
        })
        .to_string()
    }

    fn failures(&self) -> Vec<String> {
        let faults = self
            .tally
            .faults()
            .into_iter()
            .filter(|&(_, count)| count > 0);
        faults
            .map(|(name, count)| format!("{count} {}", name.replace('_', " ")))
            .collect()
    }

    fn gap_text(&self) -> String {
        let Some(gap) = self.tally.longest_gap else {
            return "none, nothing was waited for".to_owned();
        };
        let limit = self.tally.max_gap().map_or(String::new(), |limit| {
            format!(
                "; {} over {} ms",
                self.tally.gaps_over_max,
                milliseconds(limit)
            )
        });
        format!(
            "{:.3} ms (connection {}, at {:.3} s{limit})",
            milliseconds(gap.length),
            gap.slot,
            self.seconds_into(gap.at)
        )
    }

    fn seconds_into(&self, at: u64) -> f64 {
        Duration::from_nanos(at.saturating_sub(self.started_at)).as_secs_f64()
    }
}

/// What is going on, in one line of at most 100 columns.
#[must_use]
pub fn progress(tally: &Tally, connections: usize, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    let rate = if seconds > 0.0 {
        tally.received as f64 / seconds
    } else {
        0.0
    };
    let faults = tally.fault_count();
    format!(
        "{seconds:6.1} s  {connections} connections  {rate:.0} msg/s  p99 {:.3} ms  gap {:.1} ms  \
         {faults} faults",
        milliseconds(tally.latency.value_at_quantile(0.99)),
        milliseconds(tally.longest_gap.map_or(0, |gap| gap.length)),
    )
}

/// Writes to stdout at once.
///
/// # Errors
/// `Failed` if stdout takes nothing: a verdict that nobody got is no verdict.
pub fn print(text: &str) -> Result<(), Failure> {
    takeover_say::print(text).map_err(|error| Failure::Failed(format!("stdout: {error}")))
}

fn times_text(times: &Histogram<u64>) -> String {
    let mut text = String::new();
    for (name, quantile) in QUANTILES {
        let value = milliseconds(times.value_at_quantile(quantile));
        let _ = write!(text, "{} {value:.3}  ", name.replace('_', "."));
    }
    let _ = write!(text, "max {:.3} ms", milliseconds(times.max()));
    text
}

fn times_json(times: &Histogram<u64>) -> Value {
    let mut object = json!({
        "count": times.len(),
        "mean": times.mean() / 1e3,
        "max": microseconds(times.max()),
    });
    for (name, quantile) in QUANTILES {
        object[name] = microseconds(times.value_at_quantile(quantile)).into();
    }
    object
}

fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Gap;

    fn summary() -> Summary {
        let mut tally = Tally::new(Some(5_000_000));
        tally.add_gap(Gap {
            length: 8_400_000,
            slot: 812,
            at: 3_000_000_000,
        });
        tally.lost = 3;
        tally.latency.record(61_000).unwrap();
        Summary {
            seed: 42,
            load: Load::Open { rate: None },
            connections: 1000,
            elapsed: Duration::from_millis(1500),
            started_at: 1_000_000_000,
            interrupted: true,
            tally,
        }
    }

    #[test]
    fn text_names_the_faults_first_and_the_seed() {
        let text = summary().text();
        assert!(
            text.starts_with("FAIL: 3 lost, 1 gaps over max\n"),
            "{text}"
        );
        assert!(
            text.contains("8.400 ms (connection 812, at 2.000 s; 1 over 5 ms)"),
            "{text}"
        );
        assert!(text.contains("seed 42, ended by a signal"), "{text}");
        assert!(text.contains("p99.9 0.061"), "{text}");
    }

    #[test]
    fn late_client_says_so() {
        let mut summary = summary();
        assert!(!summary.text().contains("do not trust"));
        summary.tally.late.record(2 * TOO_LATE).unwrap();
        assert!(summary.text().contains("do not trust"));
    }

    #[test]
    fn clean_run_is_ok_in_both_forms() {
        let summary = Summary {
            tally: Tally::new(None),
            ..summary()
        };
        assert!(summary.text().starts_with("OK: "));
        let json: Value = serde_json::from_str(&summary.json()).unwrap();
        assert_eq!(json["verdict"], "ok");
        assert_eq!(json["failures"], json!([]));
        assert_eq!(json["longest_gap_ms"], Value::Null);
    }

    #[test]
    fn run_that_this_machine_had_no_room_for_is_neither_ok_nor_the_servers_fault() {
        let mut summary = Summary {
            tally: Tally::new(None),
            ..summary()
        };
        summary.tally.client_failures = 7;
        assert_eq!(summary.exit_code(), UNABLE);
        let text = summary.text();
        assert!(text.starts_with("INCOMPLETE: "), "{text}");
        assert!(
            text.contains("7 times") && text.contains("--sources"),
            "{text}"
        );
        let json: Value = serde_json::from_str(&summary.json()).unwrap();
        assert_eq!(json["verdict"], "incomplete");
        assert_eq!(json["failures"], json!([]));
        assert_eq!(json["client_failures"], 7);
        summary.tally.lost = 1;
        assert_eq!(summary.exit_code(), 1);
        assert!(summary.text().starts_with("FAIL: 1 lost\n"));
    }

    #[test]
    fn json_is_one_line_and_help_names_every_key() {
        let line = summary().json();
        assert!(!line.contains('\n'));
        let Value::Object(object) = serde_json::from_str(&line).unwrap() else {
            panic!()
        };
        let help = crate::cli::HELP;
        for key in object.keys() {
            assert!(help.contains(key.as_str()), "{key}");
        }
        for key in object["latency_us"].as_object().unwrap().keys() {
            assert!(help.contains(key.as_str()), "{key}");
        }
        assert_eq!(object["verdict"], "fail");
        assert_eq!(object["failures"], json!(["lost", "gaps_over_max"]));
        assert_eq!(object["longest_gap_ms"], 8.4);
    }
}
