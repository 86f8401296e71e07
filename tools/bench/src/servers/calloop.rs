//! The same on calloop: a source for each connection, level-triggered as is its custom, so
//! that a read which was full needs no bookkeeping.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use calloop::generic::Generic;
use calloop::{
    EventLoop, EventSource, Interest, Mode, Poll, PostAction, Readiness, Token, TokenFactory,
};

use super::ROOM;
use super::exchange::{After, exchange};

/// Serves until the process is killed.
pub(super) fn serve(listener: TcpListener) -> io::Result<()> {
    let mut event_loop: EventLoop<'static, Vec<u8>> = EventLoop::try_new()?;
    let handle = event_loop.handle();
    let accepting = event_loop.handle();
    let listener = Generic::new(listener, Interest::READ, Mode::Level);
    handle
        .insert_source(listener, move |_, listener, _| {
            let (stream, _) = listener.accept()?;
            let goes_on = |(), connection: &mut Connection, room: &mut Vec<u8>| {
                exchange(&connection.stream, &mut connection.unsent, room)
            };
            accepting
                .insert_source(Peer::new(stream)?, goes_on)
                .map_err(io::Error::other)?;
            Ok(PostAction::Continue)
        })
        .map_err(io::Error::other)?;
    event_loop.run(None, &mut vec![0; ROOM], |_| {})?;
    Ok(())
}

struct Connection {
    stream: Arc<TcpStream>,
    unsent: Vec<u8>,
}

/// A [`Generic`] that waits for room while something is unsent; it alone cannot change its
/// interest from within its callback, nor lend the stream and what belongs to it together.
struct Peer {
    watched: Generic<Arc<TcpStream>>,
    connection: Connection,
}

impl Peer {
    fn new(stream: TcpStream) -> io::Result<Peer> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let stream = Arc::new(stream);
        Ok(Peer {
            watched: Generic::new(Arc::clone(&stream), Interest::READ, Mode::Level),
            connection: Connection {
                stream,
                unsent: Vec::new(),
            },
        })
    }
}

impl EventSource for Peer {
    type Event = ();
    type Metadata = Connection;
    type Ret = After;
    type Error = io::Error;

    fn process_events<F>(
        &mut self,
        readiness: Readiness,
        token: Token,
        mut callback: F,
    ) -> io::Result<PostAction>
    where
        F: FnMut((), &mut Connection) -> After,
    {
        let connection = &mut self.connection;
        let was_blocked = !connection.unsent.is_empty();
        let mut is_blocked = was_blocked;
        let action = self.watched.process_events(readiness, token, |_, _| {
            let after = callback((), connection);
            is_blocked = after == After::Blocked;
            Ok(match after {
                After::Ended => PostAction::Remove,
                _ if is_blocked != was_blocked => PostAction::Reregister,
                _ => PostAction::Continue,
            })
        })?;
        self.watched.interest = if is_blocked {
            Interest::WRITE
        } else {
            Interest::READ
        };
        Ok(action)
    }

    fn register(&mut self, poll: &mut Poll, factory: &mut TokenFactory) -> calloop::Result<()> {
        self.watched.register(poll, factory)
    }

    fn reregister(&mut self, poll: &mut Poll, factory: &mut TokenFactory) -> calloop::Result<()> {
        self.watched.reregister(poll, factory)
    }

    fn unregister(&mut self, poll: &mut Poll) -> calloop::Result<()> {
        self.watched.unregister(poll)
    }
}
