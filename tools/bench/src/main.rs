//! What socket-takeover costs, beside the least that can do the same and beside other loops.
//!
//! | file | question |
//! |---|---|
//! | `echo` | what does a message cost, and how many are there in a second? |
//! | `instructions` | what does a message cost, whatever the machine's mood? |
//! | `dispatch` | what does a callback cost when its source is ready? |
//! | `timers` | what does a timer cost? |
//! | `memory` | how much does an idle connection hold, how much an armed timer? |
//! | `freeze` | how long does nobody serve during a takeover, how long does all of it take? |
//! | `sweep` | what does it take to replace many shards one after the other? |
//! | `fairness` | how long do quiet peers wait beside one that never stops sending? |
//!
//! Nothing here passes or fails: machines differ, and their moods do. Each figure is printed
//! with its spread and its ratio to what was measured beside it.

mod cli;
mod clients;
mod dispatch;
mod echo;
mod fairness;
mod figures;
mod freeze;
mod holder;
mod instructions;
mod load;
mod machine;
mod memory;
mod process;
mod reach;
mod ready;
mod servers;
mod subject;
mod sweep;
mod timers;

use std::error::Error;
use std::process::ExitCode;

use cli::{Command, Options};

use takeover_say::{say, tell};

/// The arguments make no sense.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let (command, options) = match cli::parse(std::env::args_os().skip(1)) {
        Ok(asked) => asked,
        Err(error) => {
            tell!("takeover-bench: {error}");
            return ExitCode::from(USAGE);
        }
    };
    match run(command, &options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell!("takeover-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, options: &Options) -> Result<(), Box<dyn Error>> {
    let open_files = machine::raise_open_files();
    match command {
        Command::Brief => echo::brief(options),
        Command::All => all(options, open_files),
        Command::Echo => echo::full(options),
        Command::Instructions => instructions::table(options),
        Command::Dispatch => dispatch::table(options),
        Command::Timers => timers::table(options),
        Command::Memory => memory::table(options, open_files),
        Command::Fairness => fairness::table(options),
        Command::Freeze => freeze::table(options, open_files),
        Command::Sweep => sweep::table(options, open_files),
        Command::Cold(path, count) => freeze::cold(&path, count),
        Command::Successor(path) => freeze::successor(&path),
        Command::Hold(port, count, talks) => holder::hold(port, count, talks),
        Command::Subject(server, port) => Ok(server.serve(port)?),
        Command::Armed(server, count) => memory::armed(server, count),
        Command::Help => Ok(takeover_say::print(cli::HELP)?),
    }
}

fn all(options: &Options, open_files: usize) -> Result<(), Box<dyn Error>> {
    say!("## Machine\n")?;
    machine::print_facts()?;
    say!("\n## Echo\n")?;
    echo::full(options)?;
    say!("\n## Dispatch\n")?;
    dispatch::table(options)?;
    say!("\n## Timers\n")?;
    timers::table(options)?;
    say!("\n## Memory\n")?;
    memory::table(options, open_files)?;
    say!("\n## Fairness\n")?;
    fairness::table(options)?;
    say!("\n## Freeze\n")?;
    freeze::table(options, open_files)?;
    say!("\n## Sweep\n")?;
    sweep::table(options, open_files)?;
    say!("\nLoad average at the end: {}.", machine::load_average())?;
    Ok(())
}
