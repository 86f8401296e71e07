//! Real takers that are killed, or stop for longer than the donor waits, at every record of a
//! takeover up to the last moment before their claim: no client ever notices, and the next
//! takeover succeeds.
//!
//! Each taker is traced and held at an exact record (see `support/pinned.rs`), so that each
//! state is met as often as it shall be, and no run is left to chance.

use crate::support::pinned::{MOMENTS, Pinned, Step, Steps};
use crate::support::{Kind as Client, Peers, Server, Stage, seed};
use socket_takeover::proto::records::Kind;

/// How many of [`MOMENTS`] come before PREPARE.
const PRELOAD: usize = 6;
/// How often each moment is tried.
const TIMES: usize = 5;

/// A donor, and clients of several kinds that check every byte.
struct Scene {
    stage: Stage,
    donor: Server,
    peers: Peers,
    /// Options of every process in the chain: each donor goes by its own deadlines.
    deadlines: &'static [&'static str],
}

impl Scene {
    fn new(deadlines: &'static [&'static str]) -> Scene {
        let stage = Stage::new();
        let donor = stage.serve(deadlines);
        let kinds = [
            (Client::Talking, 64),
            (Client::Pipelining, 4),
            (Client::HalfSent, 2),
            (Client::Unread, 1),
        ];
        let peers = Peers::connect(donor.address(), seed(), &kinds);
        peers.say(2);
        peers.fill();
        Scene {
            stage,
            donor,
            peers,
            deadlines,
        }
    }

    /// A taker that is where `moment` says.
    fn taker_at(&self, moment: Steps) -> Pinned {
        let mut taker = Pinned::take_over(&self.stage.path(), &[]);
        for (step, nth) in moment {
            taker.run_to(*step, *nth);
            if *step == Step::Received(Kind::Prepare) {
                // Served by the donor: without a change there is no final array.
                self.peers.echoes(4);
            }
        }
        taker
    }

    /// The donor has rolled back and serves; then the next takeover succeeds.
    fn goes_on(&mut self) {
        self.donor.wait_line("takeover failed, we serve on");
        self.peers.echoes(4);
        self.donor = self.stage.replace(&mut self.donor, self.deadlines);
        self.peers.echoes(4);
    }

    fn end(self) {
        let verdict = self.peers.finish();
        println!("{verdict}");
        verdict.assert_flawless();
    }
}

#[test]
fn any_state_taker_killed_50_times() {
    let mut scene = Scene::new(&[]);
    for (name, moment) in MOMENTS {
        for _ in 0..TIMES {
            let mut taker = scene.taker_at(moment).kill();
            assert_eq!(taker.wait_exit(), 128 + libc::SIGKILL);
            scene.goes_on();
        }
        println!("killed in {name}: {TIMES}");
    }
    scene.end();
}

/// Stops the taker for longer than the donor waits. Every other one goes on after it was
/// given up and leaves by itself; the rest stays stopped and is killed by the donor, whose
/// next try it would poison.
fn stop(moments: &[(&str, Steps)], deadlines: &'static [&'static str]) {
    let mut scene = Scene::new(deadlines);
    for (name, moment) in moments {
        for time in 0..TIMES {
            let taker = scene.taker_at(moment);
            scene.donor.wait_line("takeover failed, we serve on");
            scene.peers.echoes(4);
            if time % 2 == 0 {
                let mut taker = taker.release();
                assert_eq!(
                    taker.wait_exit(),
                    75,
                    "{name}: given up while it was stopped"
                );
            } else {
                let mut taker = taker.into_server();
                assert_eq!(taker.wait_exit(), 128 + libc::SIGKILL, "{name}");
            }
            scene.goes_on();
        }
        println!("stopped in {name}: {TIMES}");
    }
    scene.end();
}

#[test]
fn preload_taker_stopped_30_times() {
    stop(&MOMENTS[..PRELOAD], &["--deadline", "preload=1000"]);
}

#[test]
fn freeze_taker_stopped_20_times() {
    let short = &["--deadline", "freeze=300", "--deadline", "claim=300"];
    stop(&MOMENTS[PRELOAD..], short);
}
