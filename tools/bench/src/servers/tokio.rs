//! The same on tokio: a task for each connection on a current-thread runtime.
//!
//! Tasks read into one room, as the others do; one buffer a task would be the usual way, and
//! would cost its size in memory. The read is `poll_read`, which knows that after a short read
//! there is nothing more, and so needs no further system call to find that out.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::ROOM;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; ROOM]);
}

/// Serves until the process is killed.
pub(super) fn serve(listener: std::net::TcpListener) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            // How one connection ends is nobody else's concern.
            tokio::spawn(async { echo(stream).await.ok() });
        }
    })
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    while let Some(unsent) = poll_fn(|context| exchange(&mut stream, context)).await? {
        stream.write_all(&unsent).await?;
    }
    Ok(())
}

/// Reads once and answers once; what was not taken, or none at the end of the stream.
fn exchange(
    stream: &mut TcpStream,
    context: &mut Context<'_>,
) -> Poll<io::Result<Option<Vec<u8>>>> {
    BUFFER.with_borrow_mut(|room| {
        let mut read = ReadBuf::new(room);
        std::task::ready!(Pin::new(&mut *stream).poll_read(context, &mut read))?;
        let read = read.filled();
        if read.is_empty() {
            return Poll::Ready(Ok(None));
        }
        let sent = match stream.try_write(read) {
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => return Poll::Ready(Err(error)),
        };
        Poll::Ready(Ok(Some(read[sent..].to_vec())))
    })
}
