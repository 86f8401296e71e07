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
/// | who | is told |
/// |---|---|
/// | a cold start | `Open` |
/// | a donor, each time that somebody takes over | `Preload`, then `Released` and `Exit`, or `RolledBack`; before `Released` there may be `Held`, after which `Orphaned` can come instead |
/// | a taker | `Owner` and `Active`, and it is a donor from now on; or `Left` |
/// | who owns and is told to stop | `Stop` |
#[derive(Debug)]
pub enum Moment {
    /// Cold start: everything is open, the takeover is offered, and no callback has run yet.
    /// With `Active`, which a taker is told, the moment to tell whoever waits for the start to be
    /// over: see [In production](super#in-production).
    Open,
    /// Donor: a taker has been welcomed; we serve on while it is told everything.
    Preload,
    /// Donor: the attempt failed and we serve on as if nothing had happened.
    RolledBack(Report),
    /// Donor: the taker owns and has not said that it serves. We stay held, with all our copies,
    /// until it says so or is dead, however long that takes. The report says since when.
    Held(Report),
    /// Donor: the taker owns and serves. Every item but the declined ones is closed when
    /// this returns; they can be looked at, and nothing else may be done with them.
    Released(Report),
    /// Donor: nothing is left to do, leave at once.
    Exit,
    /// Donor: the taker owned and died before it had said that it serves. What it has done to its
    /// connections is not known: end all, of whatever kind, but those that it had declined, which
    /// are named here. Nothing is served before this returns. Keep the listeners. Whatever else
    /// has a state that both may have used (a counter, a shared file) is to be looked at anew; a
    /// socket without connections, as UDP, simply goes on.
    Orphaned(Report, Vec<SourceId>),
    /// We own, and were told to stop, perhaps when that was not possible yet.
    Stop,
    /// Taker: we own, what was ready has had its first turn, and PATH leads to us: callbacks
    /// have run before this. The donor waits, and is told when this has returned. So here is the
    /// place for what has to be true before it leaves, such as a pid file, and for nothing else.
    Owner,
    /// Taker: the donor has been told that we serve, and leaves. The place for reports and
    /// for whoever waits for the start to be over.
    Active(Report),
    /// Taker: we own nothing, every copy is closed. The [`Ending`] says who serves.
    Left(Report, Ending),
}

impl Moment {
    /// What has come of a takeover, in a word, and its report; none for a moment at which
    /// nothing is over.
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
    /// - `Stop`: all that has arrived is served in one last turn, the TCP connections and
    ///   listeners are ended, the reactor stops. Other kinds are left as they are, and close
    ///   when the process ends.
    /// - `Orphaned`: the connections that the dead owner had are ended and
    ///   [forgotten](Application::forget). A connection is an item of the kind *tcp peer*, and
    ///   any other that is a connected socket with a stream or sequence of its own (SOCK_STREAM,
    ///   SOCK_SEQPACKET). Other kinds, and what is carried, have no position in a stream that
    ///   could be wrong: they are kept and served as they are here.
    /// - the others: nothing.
    ///
    /// Which kind an item has is asked of [`Application::describe`].
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

/// Whether an item has another end, to which it has a position.
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

/// Ends a socket for all its holders: a taker that failed and hangs may still have a copy, and
/// a close would then tell a peer nothing, and leave a port taken by nobody.
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
