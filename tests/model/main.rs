//! Every state that a takeover can be in.
//!
//! The real step functions of donor and taker, joined to a small world, are run through
//! every order of steps that is possible: who is scheduled, what clients send, reset, open and
//! close, which deadline passes early, what is declined, refused or said at the wrong time, who
//! is killed, stopped, continued or told to stop, who calls meanwhile, and when.
//!
//! ```text
//!   scenario   what may happen, and how often; `scenarios` are those that are explored
//!   world      the processes and the kernel, and every step from one state
//!   kernel     connections, edge-triggered readiness, channel, lease, pidfd
//!   donor      the machine and its driver; one action is one step, and a SIGKILL may
//!   taker      fall between any two
//!   rules      what must hold always, and what must have come about in the end, each by name
//!   explore    breadth first, so that a counterexample is as short as can be
//!   census     how many states, steps and ends there were, and what happened in which state
//!   soundness  no scenario breaks a rule, and everything that can happen does somewhere
//!   mutants    wrong machines and wrong drivers: `caught` shows that the rules bite
//!   crowd      a preload of more items than this can hold, walked at random
//! ```
//!
//! The drivers here do what the sessions do. The table in `src/takeover/session.rs` has the rules
//! that the proof relies on, and for each the mutant that breaks it.
//!
//! Not in this world: a taker that serves a copy without having claimed, or lies about which
//! items it has. Whoever has a descriptor can do that without any word; it is why only trusted
//! users get any.

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
mod scenarios;
mod soundness;
mod taker;
mod world;
