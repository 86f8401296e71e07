//! A donor, and clients that check every byte it echoes: what most takeovers start from.

use super::{Kind, Peers, Server, Stage, seed};

/// See the file's own description.
#[derive(Debug)]
pub struct Scene {
    pub stage: Stage,
    pub donor: Server,
    pub peers: Peers,
    /// The donor's descriptors at first.
    pub fds: Vec<(i32, String)>,
}

impl Scene {
    /// Clients for more than one batch of items.
    pub const PEERS: usize = 73;

    /// With these options. A taker that a test plays may be slower than one that a machine runs: the
    /// deadlines after the hold are long, unless an option sets them.
    pub fn new(options: &[&str]) -> Scene {
        let mut options = options.to_vec();
        for (name, patient) in [("end=", "end=2000"), ("claim=", "claim=2000")] {
            if !options.iter().any(|option| option.starts_with(name)) {
                options.extend(["--deadline", patient]);
            }
        }
        let stage = Stage::new();
        let donor = stage.serve(&options);
        Scene::of(
            stage,
            donor,
            &[(Kind::Talking, Scene::PEERS - 3), (Kind::Idle, 3)],
        )
    }

    /// With a donor that serves already, and other clients.
    pub fn of(stage: Stage, donor: Server, kinds: &[(Kind, usize)]) -> Scene {
        let peers = Peers::connect(donor.address(), seed(), kinds);
        peers.echoes(4);
        donor.wait_accepted(kinds.iter().map(|(_, count)| count).sum());
        let fds = donor.fds();
        Scene {
            stage,
            donor,
            peers,
            fds,
        }
    }

    /// The donor serves, and holds what it held at first: nothing of an attempt has stayed.
    #[track_caller]
    pub fn is_as_before(&self) {
        self.donor.wait_fds(|fds| fds == self.fds);
        self.peers.echoes(4);
    }

    /// A takeover is still possible, and all that came over the clients was right.
    #[track_caller]
    pub fn end(mut self) {
        let mut next = self.stage.replace(&mut self.donor, &[]);
        self.peers.echoes(4);
        self.peers.finish().assert_flawless();
        assert!(next.is_running());
    }
}
