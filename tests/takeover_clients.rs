//! Clients that end their connections, by FIN or by RST, in every state of a takeover: each
//! gets the end that it would have had without one, nobody else notices, and the takeover goes
//! on or rolls back as it would have.

mod support;

use socket_takeover::proto::records::Kind;
use support::pinned::{Pinned, Step};
use support::side::{At, FakeTaker};
use support::{Client, Scene};

/// Clients that are about to leave, each in its own way.
struct Leaving {
    /// Says nothing more, and FIN.
    silent: Client,
    /// Says one more message and FIN behind it: both can be one event.
    parting: Client,
    /// RST.
    resetting: Client,
    /// Says one more message, and RST.
    slamming: Client,
}

/// Those that wait for their end.
struct Left {
    silent: Client,
    parting: Client,
}

impl Leaving {
    fn connect(scene: &Scene) -> Leaving {
        let connect = || {
            let mut client = Client::connect(scene.donor.address());
            client.talk();
            client
        };
        Leaving {
            silent: connect(),
            parting: connect(),
            resetting: connect(),
            slamming: connect(),
        }
    }

    fn leave(self) -> Left {
        let Leaving {
            mut silent,
            mut parting,
            resetting,
            mut slamming,
        } = self;
        silent.finish();
        parting.say();
        parting.finish();
        resetting.reset();
        slamming.say();
        slamming.reset();
        Left { silent, parting }
    }
}

impl Left {
    /// Whoever serves now has answered what was said, and ended what was ended.
    #[track_caller]
    fn see_the_end(mut self) {
        assert!(self.silent.ended(), "FIN is answered by FIN");
        self.parting.hear();
        assert!(self.parting.ended(), "FIN is answered by FIN");
    }
}

#[test]
fn any_state_clients_leave_and_taker_hangs_up() {
    let scene = Scene::new(&[]);
    for at in At::ALL {
        let leaving = Leaving::connect(&scene);
        let taker = FakeTaker::at(&scene.stage.path(), at);
        let left = leaving.leave();
        drop(taker);
        left.see_the_end();
        scene.is_as_before();
    }
    scene.end();
}

/// Where a real taker is held while they leave. Up to PREPARE the donor serves; from END on
/// nobody does, until the taker claims.
const MOMENTS: [(Step, usize); 8] = [
    (Step::Sent(Kind::Hello), 1),
    (Step::Received(Kind::Welcome), 1),
    (Step::Received(Kind::Items), 1),
    (Step::Received(Kind::State), 1),
    (Step::Received(Kind::Items), 2),
    (Step::Received(Kind::Prepare), 1),
    (Step::Received(Kind::End), 1),
    // It has claimed, and is about to say so.
    (Step::Sending(Kind::Active), 1),
];

#[test]
fn any_state_clients_leave_and_taker_goes_on() {
    let mut scene = Scene::new(&[]);
    // A successor without a disturbance: what each of them is to hold.
    scene.donor = scene.stage.replace(&mut scene.donor, &[]);
    scene.peers.echoes(4);
    scene.donor.wait_fds(|fds| fds.len() == scene.fds.len());
    for (step, nth) in MOMENTS {
        let leaving = Leaving::connect(&scene);
        let mut taker = Pinned::take_over(&scene.stage.path(), &[]);
        taker.run_to(step, nth);
        let left = leaving.leave();
        let taker = taker.release();
        taker.wait_line("Serving on ");
        left.see_the_end();
        assert_eq!(scene.donor.wait_exit(), 0, "{step:?}");
        scene.donor = taker;
        scene.donor.wait_fds(|fds| fds.len() == scene.fds.len());
        scene.peers.echoes(4);
    }
    scene.peers.finish().assert_flawless();
}

/// They come while nobody accepts, and some are gone again before anybody does.
#[test]
fn await_claim_clients_come_and_go() {
    let mut scene = Scene::new(&[]);
    let address = scene.donor.address();
    let mut taker = Pinned::take_over(&scene.stage.path(), &[]);
    taker.run_to(Step::Received(Kind::End), 1);
    let mut staying: Vec<Client> = (0..20).map(|_| Client::connect(address)).collect();
    staying.iter_mut().for_each(Client::say);
    for _ in 0..20 {
        Client::connect(address).reset();
        Client::connect(address).finish();
    }
    let taker = taker.release();
    staying.iter_mut().for_each(Client::hear);
    staying.iter_mut().for_each(Client::talk);
    assert_eq!(scene.donor.wait_exit(), 0);
    scene.donor = taker;
    scene.peers.echoes(4);
    scene.end();
}
