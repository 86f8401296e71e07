//! What the taker hears: the donor's records, as events.

use std::hint;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::TakerSide;
use crate::event::{Cx, Event as Ready, Next, RESERVE, Time};
use crate::proto::records::{self, FailCode, Record, Welcome};
use crate::proto::wire::{DecodeError, FEATURES, Header, Versions};
use crate::takeover::application::Application;
use crate::takeover::core::taker::{Event, State};
use crate::takeover::os::channel::{Fault, Got};
use crate::takeover::os::lease::Lease;
use crate::takeover::os::limits;
use crate::takeover::session::Deadlines;
use crate::takeover::session::import::Problem;
use crate::takeover::session::{Session, is_our_clock, with};

/// Records taken in one turn: some batches, and in the freeze nearly always all there are.
const RECORDS: usize = 64;

impl TakerSide {
    /// What has arrived, as far as the budget goes: deadlines and signals are to be seen too.
    pub(super) fn receive<S: Application>(&mut self, app: &mut S, cx: &mut Cx<S>) -> Next {
        for _ in 0..RECORDS {
            if matches!(self.machine.state(), State::Active | State::Gone) {
                return Next::Keep;
            }
            let event = match self.next_incoming() {
                Got::Record(length) => match self.understand(app, cx, length) {
                    Ok(Some(event)) => event,
                    Ok(None) => continue,
                    Err(problem) => self.unusable_unless_aborted(problem),
                },
                Got::Empty => return Next::Keep,
                Got::End => Event::Eof,
                Got::Broken(fault) => {
                    let code = match fault {
                        Fault::TooLong | Fault::Unexpected(_) => FailCode::Malformed,
                        _ => FailCode::Fds,
                    };
                    self.unusable(Problem::new(code, fault.to_string()))
                }
            };
            self.step(app, cx, event);
        }
        Next::Again
    }

    /// What has arrived. Once all is settled the final array is some microseconds away, and is
    /// waited for awake.
    fn next_incoming(&mut self) -> Got {
        loop {
            match self.channel.receive() {
                Got::Empty if self.stays_awake() => hint::spin_loop(),
                incoming => return incoming,
            }
        }
    }

    fn stays_awake(&self) -> bool {
        self.machine.state() == State::Settle && Time::now() < self.awake_until
    }

    /// What a donor sent before it stopped may be unusable by now, its listener above all.
    /// Then it has said so since, and that is the truth of the matter.
    pub(super) fn unusable_unless_aborted(&mut self, problem: Problem) -> Event {
        for _ in 0..RECORDS {
            match self.channel.receive() {
                Got::Record(length) => {
                    let buffer = self.channel.take_buffer();
                    let decoded = records::decode(&buffer[..length], self.channel.fds.len());
                    let aborted = match decoded {
                        Ok((_, Record::Abort(abort))) => Some(self.aborted(abort.reason)),
                        _ => None,
                    };
                    self.channel.fds.clear();
                    self.channel.put_buffer(buffer);
                    if let Some(event) = aborted {
                        return event;
                    }
                }
                Got::Empty | Got::End | Got::Broken(Fault::Os(_)) => break,
                Got::Broken(_) => {}
            }
        }
        self.unusable(problem)
    }

    pub(super) fn aborted(&mut self, reason: &str) -> Event {
        self.report.failure = format!("the donor ended the takeover: {reason}");
        Event::Abort
    }

    pub(super) fn understand<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        length: usize,
    ) -> Result<Option<Event>, Problem> {
        let buffer = self.channel.take_buffer();
        let bytes = &buffer[..length];
        let fds = std::mem::take(&mut self.channel.fds);
        let event = match records::decode(bytes, fds.len()) {
            Ok((header, record)) => self.event_of(app, cx, bytes, &header, record, fds),
            Err(error) => {
                let code = match error {
                    DecodeError::MustUnderstand(_) | DecodeError::Version { .. } => {
                        FailCode::Features
                    }
                    DecodeError::Fds { .. } => FailCode::Fds,
                    _ => FailCode::Malformed,
                };
                Err(Problem::new(code, error.to_string()))
            }
        };
        self.channel.put_buffer(buffer);
        event
    }

    pub(super) fn event_of<S: Application>(
        &mut self,
        app: &mut S,
        cx: &mut Cx<S>,
        bytes: &[u8],
        header: &Header,
        record: Record<'_>,
        fds: Vec<OwnedFd>,
    ) -> Result<Option<Event>, Problem> {
        let kind = record.kind();
        if !self.machine.expects(kind) {
            let what = format!("{kind:?} is not for now");
            return Err(Problem::new(FailCode::Malformed, what));
        }
        Ok(Some(match record {
            Record::Welcome(welcome) => {
                self.welcome::<S>(header, &welcome, fds)?;
                Event::Welcome
            }
            Record::Refuse(refuse) => {
                self.refused = Some(refuse.code);
                self.report.failure = format!("refused: {} ({})", refuse.code, refuse.reason);
                Event::Refused
            }
            Record::Items(_) | Record::State(_) | Record::Closed(_) => {
                let is_final = self.machine.state() == State::Settle;
                if is_final {
                    self.import.digest.update(bytes);
                }
                self.import.take(app, cx, &record, fds, is_final)?;
                match (header.is_last(), is_final) {
                    (true, _) => Event::Batch {
                        sequence: header.sequence,
                        declined: self.import.batch_complete()?,
                    },
                    (false, true) => Event::FinalPart,
                    (false, false) => return Ok(None),
                }
            }
            Record::Prepare => {
                // Better found now than in the freeze.
                self.import.complete()?;
                self.report.times.prepare = Some(Time::now());
                Event::Prepare
            }
            Record::End(end) => {
                self.report.times.end = Some(Time::now());
                self.end = Some(end);
                Event::End
            }
            Record::Abort(abort) => self.aborted(abort.reason),
            // What a taker says itself is never expected.
            _ => return Ok(None),
        }))
    }

    pub(super) fn welcome<S: Application>(
        &mut self,
        header: &Header,
        welcome: &Welcome<'_>,
        fds: Vec<OwnedFd>,
    ) -> Result<(), Problem> {
        let version = welcome.version;
        if !Versions::OURS.contain(version) || version != header.version {
            let what = format!("version {version} was never offered");
            return Err(Problem::new(FailCode::Features, what));
        }
        if welcome.features & !FEATURES != 0 {
            let what = format!("features {:#x} were never offered", welcome.features);
            return Err(Problem::new(FailCode::Features, what));
        }
        if welcome.application != S::NAME {
            let what = format!(
                "the donor is {:?}, we are {:?}",
                welcome.application,
                S::NAME
            );
            return Err(Problem::new(FailCode::Invalid, what));
        }
        if !is_our_clock(welcome.now_ns) {
            let what = "the donor's monotonic clock is not ours".to_owned();
            return Err(Problem::new(FailCode::Invalid, what));
        }
        let lease = fds
            .into_iter()
            .next()
            .ok_or_else(|| Problem::new(FailCode::Fds, "WELCOME has no lease".into()))?;
        let lease = Lease::from_fd(lease)
            .map_err(|error| Problem::new(FailCode::Invalid, format!("lease: {error}")))?;
        self.lease = Some(lease);
        self.channel.agree(version);
        self.donors = Deadlines {
            preload: Duration::from_millis(welcome.preload_ms.into()),
            freeze: Duration::from_millis(welcome.freeze_ms.into()),
            claim: Duration::from_millis(welcome.claim_ms.into()),
            ..self.own
        };
        // Grown once and while we are alone: with a second thread each doubling waits for
        // a grace period of the kernel.
        let slots = usize::try_from(welcome.items).unwrap_or(usize::MAX);
        limits::size_table(slots.saturating_add(RESERVE))
            .map_err(|error| Problem::new(FailCode::Resources, format!("slots: {error}")))?;
        // No more than there are slots for; what comes beyond that is refused elsewhere.
        self.import
            .expect(slots.min(limits::free_slots().unwrap_or(0)));
        self.report.id = welcome.id;
        self.report.generation = welcome.generation;
        self.report.times.welcome = Some(Time::now());
        Ok(())
    }
}

pub(super) fn channel_event<S: Application>(
    _: &mut OwnedFd,
    app: &mut S,
    cx: &mut Cx<S>,
    ready: Ready,
) -> io::Result<Next> {
    let mut next = Next::Keep;
    with(app, cx, |side: &mut TakerSide, app, cx| {
        if ready.is_writable() {
            // What does not go now goes with the next event, or its deadline passes.
            let _ = side.channel.flush();
        }
        next = side.receive(app, cx);
    });
    Ok(next)
}
