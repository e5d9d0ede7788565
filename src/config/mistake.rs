//! Where a value came from, and what is wrong with it.

use std::fmt;
use std::rc::Rc;

/// Where a value was written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    Default,
    /// Lines count from 1; 0: the file as a whole.
    File {
        path: Rc<str>,
        line: usize,
    },
    Variable(String),
    /// Without the dashes.
    Flag(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Default => f.write_str("default"),
            Place::File { path, line: 0 } => f.write_str(path),
            Place::File { path, line } => write!(f, "{path}:{line}"),
            Place::Variable(name) => f.write_str(name),
            Place::Flag(name) => write!(f, "--{name}"),
        }
    }
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mistake {
    pub place: Place,
    /// One sentence.
    pub text: String,
    /// A valid name that may have been meant.
    pub nearest: Option<String>,
}

impl Mistake {
    pub fn new(place: &Place, text: impl Into<String>) -> Self {
        Mistake { place: place.clone(), text: text.into(), nearest: None }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is missing stands nowhere.
        match self.place {
            Place::Default => f.write_str(&self.text)?,
            _ => write!(f, "{}: {}", self.place, self.text)?,
        }
        match &self.nearest {
            Some(name) => write!(f, ": did you mean `{name}`?"),
            None => Ok(()),
        }
    }
}

/// All that is wrong, in the order of the places. Never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistakes(pub Vec<Mistake>);

impl Mistakes {
    /// More are counted, not shown.
    const SHOWN_MAX: usize = 50;
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.0.iter().take(Self::SHOWN_MAX);
        if let Some(first) = lines.next() {
            write!(f, "{first}")?;
        }
        for line in lines {
            write!(f, "\n{line}")?;
        }
        match self.0.len().saturating_sub(Self::SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl std::error::Error for Mistakes {}
