//! What the conformance kit sees of the calls of a host: what a guest said, and what the host knows better.
//!
//! Invariant: nothing here changes what a call does; only how long a guest whose reader left may go on is the watch's.

use std::sync::{Mutex, PoisonError};

use ocm_content::{Error, ErrorKind};
use tokio::task::JoinSet;

use crate::bindings::ocm::transformer::types;
use crate::host::Answer;
use crate::store::Ctx;

/// One call, when it had ended.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// What the guest answered in error: in `run` and `produce` one, in `validate` any number.
    pub(crate) told: Vec<types::StepError>,
    /// Why the call ended without an answer.
    pub(crate) broke: Option<Error>,
    /// Did the guest say that all is well?
    pub(crate) is_well: bool,
    /// Why an input failed while it was read.
    pub(crate) failed_input: Option<Error>,
    /// Bytes written to standard output and error, and the last of them.
    pub(crate) printed: (u64, String),
    /// Most linear memory at a time, in bytes.
    pub(crate) memory: usize,
}

impl Seen {
    /// Was that the end of a limit?
    pub(crate) fn broke_limit(&self) -> bool {
        let broke = self.broke.as_ref();
        broke.is_some_and(|error| error.kind() == ErrorKind::Limit)
    }
}

/// Looks at every call of a host.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    calls: Mutex<Vec<Seen>>,
    /// Guests that go on although their reader left; `None` when they are ended at once, as in any run.
    lingering: Mutex<Option<Vec<JoinSet<()>>>>,
}

impl Watch {
    pub(crate) fn saw(&self, answer: &Result<Answer, Error>, ctx: &Ctx) {
        let (told, is_well) = match answer {
            Ok(Answer::Described(_)) => (Vec::new(), true),
            Ok(Answer::Validated(errors)) => (errors.clone(), errors.is_empty()),
            Ok(Answer::Ran(Err(error)) | Answer::Produced(Err(error))) => {
                (vec![error.clone()], false)
            }
            Ok(Answer::Ran(Ok(_)) | Answer::Produced(Ok(()))) => (Vec::new(), true),
            Err(_) => (Vec::new(), false),
        };
        let printed = {
            let tail = ctx.tail.lock().unwrap_or_else(PoisonError::into_inner);
            (tail.written, tail.text())
        };
        let seen = Seen {
            told,
            broke: answer.as_ref().err().cloned(),
            is_well,
            failed_input: ctx.activity.failed_input(),
            printed,
            memory: ctx.share.peak,
        };
        self.calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(seen);
    }

    /// The calls since this was asked the last time.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on guests whose readers leave may go on until [`Watch::end_lingering`].
    pub(crate) fn let_linger(&self) {
        *self
            .lingering
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
    }

    /// Ends the guests that still go on, and those to come as soon as their readers leave.
    pub(crate) fn end_lingering(&self) {
        self.lingering
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    /// Takes a guest at work over from its reader; gives it back where it is to end with that.
    pub(crate) fn keep(&self, task: JoinSet<()>) -> Option<JoinSet<()>> {
        let mut lingering = self
            .lingering
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match &mut *lingering {
            Some(tasks) => {
                tasks.push(task);
                None
            }
            None => Some(task),
        }
    }
}
