//! How the process ends: exit codes, defined here and nowhere else, and the sentence that goes with a failure.

use std::fmt;
use std::process::ExitCode;

/// What a script may tell apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    Ok,
    Failed,
    Usage,
    Unreachable,
    Refused,
}

impl Exit {
    pub const ALL: [Exit; 5] = [Exit::Ok, Exit::Failed, Exit::Usage, Exit::Unreachable, Exit::Refused];

    pub const fn code(self) -> u8 {
        match self {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
            Exit::Refused => 4,
        }
    }

    pub const fn meaning(self) -> &'static str {
        match self {
            Exit::Ok => "done",
            Exit::Failed => "something failed while running",
            Exit::Usage => "a mistake in the command line or the configuration",
            Exit::Unreachable => "no node could be reached",
            Exit::Refused => "the node answered, and refused",
        }
    }

    /// For `--help`.
    pub fn table() -> String {
        let lines = Exit::ALL.map(|exit| format!("  {}  {}", exit.code(), exit.meaning()));
        format!("Exit codes:\n{}", lines.join("\n"))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        exit.code().into()
    }
}

/// Why a command did not do what it should: one clear sentence that says what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
}

impl Failure {
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Failure { exit, message: message.to_string() }
    }

    pub fn failed(message: impl fmt::Display) -> Self {
        Failure::new(Exit::Failed, message)
    }

    pub fn usage(message: impl fmt::Display) -> Self {
        Failure::new(Exit::Usage, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
