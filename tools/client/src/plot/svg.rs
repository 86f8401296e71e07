//! The picture itself.
//!
//! All panels have the same axes, so that they can be compared by eye. What is drawn for a
//! column of pixels is what is worst in it: of 99th percentiles the highest, never a mean.

use std::fmt::Write;

use super::seen::{Bucket, Run};

/// Pixels.
const WIDTH: f64 = 880.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 20.0;
const TITLE: f64 = 64.0;
const LATENCY: f64 = 190.0;
const GAP: f64 = 14.0;
const STRIP: f64 = 46.0;
const FAULTS: f64 = 14.0;
const BOTTOM: f64 = 40.0;
const PANEL: f64 = TITLE + LATENCY + GAP + STRIP + FAULTS + BOTTOM;
/// Columns that the buckets are put into: two pixels each.
const COLUMNS: u64 = ((WIDTH - LEFT - RIGHT) / 2.0) as u64;

const STYLE: &str = "\
svg{--paper:#fff;--ink:#1c2733;--faint:#667482;--grid:#e3e8ed;--p50:#2166ac;--p99:#c26a00;\
--worst:#8a94a0;--strip:#9cc3e6;--preload:#dcebdc;--freeze:#1a7f37;--fault:#c9252d}\
@media(prefers-color-scheme:dark){svg{--paper:#0d1117;--ink:#e6edf3;--faint:#9aa7b4;\
--grid:#262d36;--p50:#6cb6ff;--p99:#f0a04b;--worst:#7d8896;--strip:#2d5a85;--preload:#1c3325;\
--freeze:#57d77a;--fault:#ff6b6b}}\
text{font:12px system-ui,sans-serif;fill:var(--faint)}\
.t{font-size:16px;font-weight:600;fill:var(--ink)}\
path{fill:none;stroke-linejoin:round}";

/// Draws the runs, one below the other.
#[must_use]
pub fn picture(runs: &[Run]) -> String {
    let height = PANEL * runs.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\
         <title>{}</title><desc>Latency over time on a log scale, answers a second, and faults: \
         {}</desc><style>{STYLE}</style>\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"var(--paper)\"/>\n",
        escaped(&titles(runs)),
        escaped(&descriptions(runs)),
    );
    let axes = Axes::of(runs);
    for (number, run) in runs.iter().enumerate() {
        let _ = writeln!(
            out,
            "<g transform=\"translate(0 {})\">",
            PANEL * number as f64
        );
        panel(&mut out, run, &axes);
        out.push_str("</g>\n");
    }
    out.push_str("</svg>\n");
    out
}

fn titles(runs: &[Run]) -> String {
    let titles: Vec<&str> = runs.iter().map(|run| run.title.as_str()).collect();
    titles.join("; ")
}

fn descriptions(runs: &[Run]) -> String {
    let each = runs.iter().map(|run| {
        let verdict = run
            .verdict
            .as_deref()
            .unwrap_or("it did not come to its end");
        format!("{}: {verdict}", run.title)
    });
    each.collect::<Vec<_>>().join("; ")
}

/// What all panels have in common.
struct Axes {
    /// Nanoseconds from left to right.
    span: u64,
    /// Powers of ten of nanoseconds, at the bottom and the top.
    low: i32,
    high: i32,
    /// Answers in a column of buckets that fill the strip.
    most: f64,
    /// Nanoseconds of a column: a multiple of every run's bucket.
    column: u64,
}

impl Axes {
    fn of(runs: &[Run]) -> Axes {
        let ends = runs.iter().filter_map(|run| {
            let last = run.buckets.last()?;
            Some(last.at + run.bucket)
        });
        let span = ends.max().unwrap_or(1).max(1);
        let bucket = runs.iter().map(|run| run.bucket).max().unwrap_or(1).max(1);
        let column = (span / COLUMNS / bucket + 1) * bucket;
        let latencies = || {
            runs.iter()
                .flat_map(|run| &run.buckets)
                .filter(|it| it.answers > 0)
        };
        let low = latencies().map(|it| it.p50).min().unwrap_or(1).max(1);
        let high = latencies().map(|it| it.worst).max().unwrap_or(10).max(10);
        let columns = runs.iter().flat_map(|run| columns(run, column));
        let most = columns.map(|it| it.answers).max().unwrap_or(1).max(1);
        Axes {
            span,
            low: (low as f64).log10().floor() as i32,
            high: ((high as f64).log10().ceil() as i32).max((low as f64).log10() as i32 + 1),
            most: most as f64,
            column,
        }
    }

    fn x(&self, at: u64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * at as f64 / self.span as f64
    }

    fn y(&self, nanoseconds: u64) -> f64 {
        let power = (nanoseconds.max(1) as f64).log10();
        let share = (power - f64::from(self.low)) / f64::from(self.high - self.low);
        TITLE + LATENCY * (1.0 - share.clamp(0.0, 1.0))
    }
}

/// The buckets of each column, put together.
fn columns(run: &Run, column: u64) -> Vec<Bucket> {
    let mut columns: Vec<Bucket> = Vec::new();
    for bucket in &run.buckets {
        let at = bucket.at - bucket.at % column;
        match columns.last_mut() {
            Some(last) if last.at == at => {
                last.answers += bucket.answers;
                last.p50 = last.p50.max(bucket.p50);
                last.p99 = last.p99.max(bucket.p99);
                last.worst = last.worst.max(bucket.worst);
                last.faults += bucket.faults;
            }
            _ => columns.push(Bucket { at, ..*bucket }),
        }
    }
    columns
}

fn panel(out: &mut String, run: &Run, axes: &Axes) {
    heading(out, run);
    bands(out, run, axes);
    grid(out, axes);
    let columns = columns(run, axes.column);
    let middle = axes.column / 2;
    let answered = || columns.iter().filter(|it| it.answers > 0);
    line(
        out,
        "p99",
        answered().map(|it| (axes.x(it.at + middle), axes.y(it.p99))),
        axes,
    );
    line(
        out,
        "p50",
        answered().map(|it| (axes.x(it.at + middle), axes.y(it.p50))),
        axes,
    );
    let mut dots = String::new();
    for it in answered() {
        let _ = write!(
            dots,
            "M{:.1} {:.1}h0",
            axes.x(it.at + middle),
            axes.y(it.worst)
        );
    }
    let _ = writeln!(
        out,
        "<path d=\"{dots}\" stroke=\"var(--worst)\" stroke-width=\"2.4\" stroke-linecap=\"round\"/>"
    );
    strip(out, &columns, axes);
    faults(out, &columns, axes);
}

fn heading(out: &mut String, run: &Run) {
    let verdict = run
        .verdict
        .as_deref()
        .unwrap_or("it did not come to its end");
    let _ = writeln!(
        out,
        "<text class=\"t\" x=\"{LEFT}\" y=\"24\">{}</text><text x=\"{LEFT}\" y=\"44\">{}: {}</text>",
        escaped(&run.title),
        escaped(&run.load),
        escaped(verdict),
    );
    let mut x = WIDTH - RIGHT - 316.0;
    for (name, colour) in [
        ("p50", "p50"),
        ("p99", "p99"),
        ("worst", "worst"),
        ("preload", "preload"),
        ("freeze", "freeze"),
        ("lost", "fault"),
    ] {
        let _ = write!(
            out,
            "<rect x=\"{x}\" y=\"14\" width=\"10\" height=\"10\" fill=\"var(--{colour})\"/>\
             <text x=\"{}\" y=\"23\">{name}</text>",
            x + 14.0,
        );
        x += 24.0 + 6.4 * name.len() as f64;
    }
    out.push('\n');
}

/// The service's phases. A freeze is far thinner than a pixel, and gets a line.
fn bands(out: &mut String, run: &Run, axes: &Axes) {
    for takeover in &run.takeovers {
        let (from, held) = (axes.x(takeover.preload), axes.x(takeover.held));
        let freeze = (takeover.served - takeover.held) as f64 / 1e6;
        let _ = writeln!(
            out,
            "<rect x=\"{from:.1}\" y=\"{TITLE}\" width=\"{:.1}\" height=\"{:.1}\" \
             fill=\"var(--preload)\"/>\
             <path d=\"M{held:.1} {TITLE}v{:.1}\" stroke=\"var(--freeze)\" stroke-width=\"1.2\">\
             <title>freeze {freeze:.3} ms</title></path>\
             <text x=\"{:.1}\" y=\"{:.1}\">{freeze:.3} ms</text>",
            (held - from).max(0.5),
            LATENCY + GAP + STRIP,
            LATENCY + GAP + STRIP,
            held + 3.0,
            TITLE + 12.0,
        );
    }
}

fn grid(out: &mut String, axes: &Axes) {
    for power in axes.low..=axes.high {
        let y = axes.y(10_u64.pow(power.max(0).cast_unsigned()));
        let _ = write!(
            out,
            "<path d=\"M{LEFT} {y:.1}H{}\" stroke=\"var(--grid)\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            y + 4.0,
            named(power),
        );
    }
    let seconds = axes.span as f64 / 1e9;
    let step = [
        0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0,
    ]
    .into_iter()
    .find(|step| seconds / step <= 12.0)
    .unwrap_or(seconds);
    let base = TITLE + LATENCY + GAP + STRIP + FAULTS;
    let mut at = 0.0;
    while at <= seconds {
        let x = axes.x((at * 1e9) as u64);
        let _ = write!(
            out,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            base + 18.0,
            (at * 10.0).round() / 10.0,
        );
        at += step;
    }
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">seconds</text>",
        WIDTH - RIGHT,
        base + 32.0
    );
}

/// A line that is broken where nothing came for longer than some columns.
fn line(out: &mut String, colour: &str, points: impl Iterator<Item = (f64, f64)>, axes: &Axes) {
    let far = 4.0 * (axes.x(axes.column) - LEFT).max(1.0);
    let (mut path, mut before) = (String::new(), f64::NEG_INFINITY);
    for (x, y) in points {
        let verb = if x - before > far { 'M' } else { 'L' };
        let _ = write!(path, "{verb}{x:.1} {y:.1}");
        before = x;
    }
    let _ = writeln!(
        out,
        "<path d=\"{path}\" stroke=\"var(--{colour})\" stroke-width=\"1.5\"/>"
    );
}

/// Answers a second, as bars.
fn strip(out: &mut String, columns: &[Bucket], axes: &Axes) {
    let base = TITLE + LATENCY + GAP + STRIP;
    let width = axes.x(axes.column) - LEFT;
    let mut bars = String::new();
    for it in columns {
        let height = STRIP * it.answers as f64 / axes.most;
        let _ = write!(
            bars,
            "M{:.1} {base:.1}v-{height:.1}",
            axes.x(it.at) + width / 2.0
        );
    }
    let most = axes.most * 1e9 / axes.column as f64;
    let most = if most < 10_000.0 {
        format!("{most:.0}/s")
    } else {
        format!("{:.0}k/s", most / 1e3)
    };
    let _ = writeln!(
        out,
        "<path d=\"{bars}\" stroke=\"var(--strip)\" stroke-width=\"{width:.2}\"/>\
         <path d=\"M{LEFT} {base:.1}H{}\" stroke=\"var(--grid)\"/>\
         <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{most}</text>\
         <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">answers</text>",
        WIDTH - RIGHT,
        LEFT - 8.0,
        base - STRIP + 10.0,
        LEFT - 8.0,
        base,
    );
}

fn faults(out: &mut String, columns: &[Bucket], axes: &Axes) {
    let top = TITLE + LATENCY + GAP + STRIP + 2.0;
    for it in columns.iter().filter(|it| it.faults > 0) {
        let _ = write!(
            out,
            "<path d=\"M{:.1} {top}v{}\" stroke=\"var(--fault)\" stroke-width=\"2\">\
             <title>{} lost or reset</title></path>",
            axes.x(it.at + axes.column / 2),
            FAULTS - 2.0,
            it.faults,
        );
    }
    out.push('\n');
}

/// A power of ten of nanoseconds.
fn named(power: i32) -> String {
    let (unit, below) = match power {
        ..3 => ("ns", 0),
        3..6 => ("µs", 3),
        6..9 => ("ms", 6),
        _ => ("s", 9),
    };
    format!(
        "{} {unit}",
        10_u64.pow((power - below).max(0).cast_unsigned())
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::seen::Takeover;
    use super::*;

    fn run(faults: u64) -> Run {
        Run {
            title: "5 < 6 & \"more\"".into(),
            load: "3 connections".into(),
            verdict: None,
            bucket: 10_000_000,
            buckets: (0..2_000)
                .map(|number| Bucket {
                    at: number * 10_000_000,
                    answers: 10,
                    p50: 40_000,
                    p99: 90_000,
                    worst: 1_000_000,
                    faults: if number == 7 { faults } else { 0 },
                })
                .collect(),
            takeovers: vec![Takeover {
                preload: 1_000_000_000,
                held: 1_100_000_000,
                served: 1_100_030_000,
            }],
        }
    }

    #[test]
    fn picture_is_well_formed_small_and_has_no_script() {
        let text = picture(&[run(0), run(3)]);
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
        assert!(text.len() < 60_000, "{} bytes", text.len());
        assert!(!text.contains("<script") && text.contains("prefers-color-scheme"));
        assert!(text.contains("5 &lt; 6 &amp; &quot;more&quot;"));
        assert_eq!(text.matches("<g ").count(), text.matches("</g>").count());
        assert!(text.contains("freeze 0.030 ms"));
    }

    #[test]
    fn faults_are_ticks_and_only_where_they_are() {
        assert!(!picture(&[run(0)]).contains("lost or reset"));
        assert_eq!(picture(&[run(2)]).matches("2 lost or reset").count(), 1);
    }

    #[test]
    fn columns_keep_what_is_worst_and_every_answer() {
        let mut run = run(0);
        run.buckets[3].worst = 5_000_000;
        let columns = columns(&run, 50_000_000);
        assert_eq!(columns.len(), 400);
        assert_eq!((columns[0].worst, columns[0].answers), (5_000_000, 50));
        assert_eq!(columns[1].worst, 1_000_000);
    }

    #[test]
    fn powers_have_units() {
        let names: Vec<String> = (3..=9).map(named).collect();
        assert_eq!(
            names,
            ["1 µs", "10 µs", "100 µs", "1 ms", "10 ms", "100 ms", "1 s"]
        );
    }
}
