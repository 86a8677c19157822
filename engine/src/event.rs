//! Everything anyone may observe of a run, as one closed enum: progress bars, logs, reports and tests all read it.

use std::sync::Arc;
use std::time::Duration;

use ocm_content::meter::Metered;

use crate::error::StepError;

/// Something happened in a run. Events of one step come in the order of the variants.
#[derive(Clone, Debug)]
pub enum Event {
    /// A step has begun.
    Started {
        /// Its id.
        step: Arc<str>,
    },
    /// Bytes moved (told every [`crate::RunOptions::progress`], only when the number changed).
    Bytes {
        /// The step that moves them.
        step: Arc<str>,
        /// Bytes it has read so far.
        done: u64,
        /// Bytes it will have read at least, where that is known.
        total: Option<u64>,
    },
    /// A step wants the user to know something.
    Warning {
        /// Its id.
        step: Arc<str>,
        /// What.
        message: String,
    },
    /// A step's result is there; others may use it. It is not visible under a name yet.
    Prepared {
        /// Its id.
        step: Arc<str>,
    },
    /// A step has ended well, and what it publishes is visible.
    Finished {
        /// Its id.
        step: Arc<str>,
        /// What it moved.
        metered: Box<Metered>,
        /// From its start to now.
        took: Duration,
    },
    /// A step has failed.
    Failed {
        /// Its id.
        step: Arc<str>,
        /// Why.
        error: StepError,
        /// What it moved until then.
        metered: Box<Metered>,
        /// From its start to now; zero when it failed before.
        took: Duration,
    },
    /// A step was not run, or what it prepared was not published.
    Skipped {
        /// Its id.
        step: Arc<str>,
        /// The failed step that it depends on; `None` when the run was stopped or cancelled.
        because: Option<Arc<str>>,
    },
}

impl Event {
    /// The step it is about.
    pub fn step(&self) -> &Arc<str> {
        match self {
            Self::Started { step }
            | Self::Bytes { step, .. }
            | Self::Warning { step, .. }
            | Self::Prepared { step }
            | Self::Finished { step, .. }
            | Self::Failed { step, .. }
            | Self::Skipped { step, .. } => step,
        }
    }
}

/// Who listens to a run. Called from the run's own loop: it must not block.
pub type Observer = Box<dyn FnMut(Event) + Send>;
