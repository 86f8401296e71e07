//! Every state that a takeover can be in.
//!
//! The real step functions of donor and taker, joined to a small world, are run through
//! every order of steps that is possible: who is scheduled, what clients send, which
//! deadline passes early, who is killed, stopped or told to stop, and when.
//!
//! ```text
//!   scenario   what may happen, and how often
//!   world      donor process + taker process + kernel, and every step from one state
//!   kernel     connections, edge-triggered readiness, channel, lease, pidfd
//!   donor      the machine and its driver; one action is one step, and a SIGKILL may
//!   taker      fall between any two
//!   rules      what must hold always, and what must have come about in the end
//!   explore    breadth first, so that a counterexample is as short as can be
//!   mutants    wrong machines and wrong drivers: `caught` shows that the rules bite
//!   crowd      a preload of more items than this can hold, walked at random
//! ```
//!
//! What the drivers here do is what a driver has to do, and the mutants show which of it
//! the protocol relies on:
//! - what changed is told the donor before anything else is;
//! - an action's outcome is told after the whole list was performed and before any other
//!   event;
//! - a broken channel is read to its end, and the end is what is reported, not the `EPIPE`;
//! - the taker reads what has arrived before it judges its deadline;
//! - the donor reads what the taker has said before it hears of its death;
//! - the donor looks at the taker's pidfd before it judges the deadline of Bereaved;
//! - a taker that leaves closes its copies before the channel.
//!
//! The channel takes two records or more. With one, PREPARE to a taker that has not read
//! WELCOME yet would not fit if there was no item to wait for in between; a real channel
//! holds some hundred.

mod caught;
mod census;
mod crowd;
mod donor;
mod explore;
mod kernel;
mod mixer;
mod mutants;
mod names;
mod rules;
mod scenario;
mod soundness;
mod taker;
mod world;
