//! What an application is told of a takeover, and what it usually does then.
//!
//! ```text
//!   cold start       ──▶ Open                        it serves, and can be taken over
//!   donor   Preload ─┬─▶ Released ─▶ Exit            it has been taken over
//!                    ├─▶ RolledBack                  nothing has happened, the next may come
//!                    └─▶ Held ─┬─▶ Released ─▶ Exit  the new owner was slow to say that it serves
//!                              └─▶ Orphaned          it died without a word: the donor owns again
//!   taker            ┬─▶ Owner ─▶ Active             it owns, and is a donor from now on
//!                    └─▶ Left                        it owns nothing
//!   either, while it owns: Stop
//! ```

use std::collections::HashSet;
use std::fmt;
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    Shutdown, SockType, SockaddrStorage, getpeername, getsockopt, shutdown, sockopt,
};

use super::application::{Application, Item};
use super::report::Report;
use super::session::Ending;
use crate::event::{Cx, SourceId};
use crate::proto::records::ItemKind;

/// What has become of a takeover.
///
/// | process | is told |
/// |---|---|
/// | a cold start | `Open` |
/// | a donor, each time that somebody takes over | `Preload`, then `Released` and `Exit`, or `RolledBack`. Before `Released` there may be `Held`, and after that `Orphaned` can come instead |
/// | a taker | `Owner` and `Active`, and it is a donor from now on; or `Left` |
/// | an owner that is told to stop | `Stop` |
#[derive(Debug)]
pub enum Moment {
    /// Cold start: everything is open, the takeover is offered, and no callback has run yet. Tell
    /// whoever waits for the start to be over; a taker does so at `Active`. See [In
    /// production](super#in-production).
    Open,
    /// Donor: a taker has been welcomed. This process serves on while the taker is told everything.
    Preload,
    /// Donor: the attempt failed. This process serves on as if nothing had happened.
    RolledBack(Report),
    /// Donor: the taker owns and has not said that it serves. This process stays held, with all its
    /// copies, until the taker says so or is dead, however long that takes. The report says since
    /// when.
    Held(Report),
    /// Donor: the taker owns and serves. When this returns every item is closed, except the
    /// declined ones. Until then the items may be looked at, and nothing else may be done with
    /// them.
    Released(Report),
    /// Donor: nothing is left to do, leave at once.
    Exit,
    /// Donor: the taker owned, and died before it had said that it serves. Nobody knows what it has
    /// done to its connections. End all of them, of whatever kind, except those that it had
    /// declined, which are named here. Nothing is served before this returns. Keep the listeners.
    /// Look anew at anything else whose state both processes may have used, such as a counter or a
    /// shared file. A socket without connections, such as UDP, simply goes on.
    Orphaned(Report, Vec<SourceId>),
    /// This process owns and was told to stop, perhaps at a time when stopping was not possible
    /// yet.
    Stop,
    /// Taker: this process owns, everything that was ready has been served in a first turn, and
    /// PATH leads here. The donor waits, and is told when this has returned. So do here what has to
    /// be true before the donor leaves, such as writing a pid file, and nothing else.
    Owner,
    /// Taker: the donor has been told that this process serves, and leaves. Write reports here, and
    /// tell whoever waits for the start to be over.
    Active(Report),
    /// Taker: this process owns nothing, and every copy is closed. The [`Ending`] says who serves.
    Left(Report, Ending),
}

impl Moment {
    /// The outcome of a takeover, in one word, and its report. `None` if nothing is over at this
    /// moment.
    #[must_use]
    pub fn outcome(&self) -> Option<(&'static str, &Report)> {
        match self {
            Moment::RolledBack(report) => Some(("rolled back", report)),
            Moment::Held(report) => Some(("held", report)),
            Moment::Released(report) => Some(("released", report)),
            Moment::Orphaned(report, _) => Some(("orphaned", report)),
            Moment::Active(report) => Some(("active", report)),
            Moment::Left(report, _) => Some(("left", report)),
            Moment::Open | Moment::Preload | Moment::Owner | Moment::Exit | Moment::Stop => None,
        }
    }

    /// Does what most applications do:
    ///
    /// - `Exit`, `Left`: the reactor stops.
    /// - `Stop`: everything that has arrived is served in one last turn, the TCP connections and
    ///   listeners are ended, and the reactor stops. Other kinds are left as they are, and close
    ///   when the process ends.
    /// - `Orphaned`: the connections that the dead owner had are ended and
    ///   [forgotten](Application::forget). A connection is an item of the kind *tcp peer*, or any
    ///   other connected socket with a stream or sequence of its own (SOCK_STREAM, SOCK_SEQPACKET).
    ///   Other kinds, and carried items, have no position in a stream that could be wrong: they are
    ///   kept and served as they are here.
    /// - the others: nothing.
    ///
    /// [`Application::describe`] says which kind an item has.
    pub fn follow<S: Application>(&self, app: &mut S, cx: &mut Cx<S>) {
        match self {
            Moment::Exit | Moment::Left(..) => cx.stop(),
            Moment::Stop => cx.hold(|app, cx| {
                for id in items_of(&[ItemKind::TcpPeer, ItemKind::Listener], app, cx) {
                    end(cx, id);
                }
                cx.stop();
            }),
            Moment::Orphaned(_, declined) => {
                let declined: HashSet<SourceId> = declined.iter().copied().collect();
                let mut ids = Vec::with_capacity(cx.items_len());
                cx.items(&mut ids);
                for id in ids {
                    if !declined.contains(&id) && is_connection(app, cx, id) {
                        end(cx, id);
                        app.forget(cx, Item::Source(id));
                    }
                }
            }
            Moment::Open
            | Moment::Preload
            | Moment::RolledBack(_)
            | Moment::Held(_)
            | Moment::Released(_)
            | Moment::Owner
            | Moment::Active(_) => {}
        }
    }
}

fn items_of<S: Application>(kinds: &[ItemKind], app: &mut S, cx: &mut Cx<S>) -> Vec<SourceId> {
    let mut ids = Vec::with_capacity(cx.items_len());
    cx.items(&mut ids);
    ids.retain(|id| {
        let about = app.describe(cx, Item::Source(*id));
        about.is_ok_and(|about| kinds.contains(&about.kind))
    });
    ids
}

/// Whether the item has another end, and a position in a stream to it.
fn is_connection<S: Application>(app: &mut S, cx: &mut Cx<S>, id: SourceId) -> bool {
    let about = app.describe(cx, Item::Source(id));
    about.is_ok_and(|about| about.kind == ItemKind::TcpPeer)
        || cx.fd(id).is_some_and(|fd| {
            let has_order = matches!(
                getsockopt(&fd, sockopt::SockType),
                Ok(SockType::Stream | SockType::SeqPacket)
            );
            has_order && getpeername::<SockaddrStorage>(fd.as_raw_fd()).is_ok()
        })
}

/// Ends a socket for all its holders. A taker that failed and hangs may still have a copy. Then a
/// plain close would tell the peer nothing, and the port would stay taken by nobody.
fn end<S>(cx: &Cx<S>, id: SourceId) {
    if let Some(fd) = cx.fd(id) {
        // One that was reset has nothing left to shut down.
        let _ = shutdown(fd.as_raw_fd(), Shutdown::Both);
    }
}

/// One line for a log.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moment::Open => f.write_str("open"),
            Moment::Preload => f.write_str("a successor is told everything"),
            Moment::RolledBack(report) => {
                write!(
                    f,
                    "serving on, not taken over: {}; {report}",
                    report.failure
                )
            }
            Moment::Held(report) => write!(
                f,
                "held: the new owner, pid {}, has not said that it serves",
                report.other
            ),
            Moment::Released(report) => write!(f, "released to pid {}: {report}", report.other),
            Moment::Exit => f.write_str("leaving"),
            Moment::Orphaned(report, _) => {
                write!(f, "the new owner, pid {}, died: serving on", report.other)
            }
            Moment::Stop => f.write_str("stopping"),
            Moment::Owner => f.write_str("owner; the donor is about to be told"),
            Moment::Active(report) => write!(f, "taken over from pid {}: {report}", report.other),
            Moment::Left(report, _) => write!(f, "not taken over: {}; {report}", report.failure),
        }
    }
}
