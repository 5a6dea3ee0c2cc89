//! The command line for operators. Each command is a thin layer over a public call of the library.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod confirm;
mod failure;
mod output;
mod progress;
mod variables;

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use clap::error::ErrorKind;

use args::{Args, Command};
use failure::{Code, Failure};
use output::Output;
use variables::Variables;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return usage(&error),
    };
    let output = Output::new(args.format);
    let outcome = run(&args, &output);
    match outcome {
        Ok(code) => code.into(),
        Err(failure) => {
            // The terminal shows `^C` in the line of a question.
            if failure.code == Code::Interrupted && io::stderr().is_terminal() {
                eprintln!();
            }
            output.failure(&failure);
            failure.code.into()
        }
    }
}

/// Prints help, or what is wrong with the arguments.
fn usage(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            output::print_all(&text);
            Code::Ok.into()
        }
        _ => {
            eprint!("{}", output::escaped_lines(&text));
            Code::Usage.into()
        }
    }
}

fn run(args: &Args, output: &Output) -> Result<Code, Failure> {
    match &args.command {
        Command::Completions { shell } => return Ok(commands::setup::completions(*shell)),
        Command::Man { directory } => return commands::setup::man(directory.as_deref()),
        Command::Init { directory } => return commands::setup::init(directory, output),
        Command::CheckManifest(_) | Command::Manifest(_) => {
            let variables = Variables::read_plain(args.config.as_deref())?;
            return commands::manifest::run(&args.command, &variables, output);
        }
        _ => {}
    }
    let variables = Variables::read(args.config.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::Failed, format!("no runtime: {error}")))?;
    let outcome = runtime.block_on(commands::run(args, &variables, output));
    // A thread that waits for the terminal never ends.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}
