//! Content on the input ports of a step, as all its calls share it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ocm_content::limits::TransferSlots;
use ocm_content::{Access, Blob, Error, Host, Limits, spool};

use crate::bindings::ocm::transformer::types::ContentInfo;

/// The inputs of a step: ports and their bytes.
#[derive(Debug, Default)]
pub(crate) struct Inputs(Mutex<Vec<(String, Blob)>>);

impl Inputs {
    pub(crate) fn new(inputs: Vec<(String, Blob)>) -> Arc<Self> {
        Arc::new(Self(Mutex::new(inputs)))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(String, Blob)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn ports(&self) -> Vec<String> {
        self.lock().iter().map(|(port, _)| port.clone()).collect()
    }

    fn blob(&self, port: &str) -> Option<Blob> {
        let inputs = self.lock();
        inputs
            .iter()
            .find(|(name, _)| name == port)
            .map(|(_, blob)| blob.clone())
    }

    /// Hosts that reading the inputs talks to.
    pub(crate) fn hosts(&self) -> Vec<Host> {
        let mut hosts: Vec<Host> = self
            .lock()
            .iter()
            .flat_map(|(_, blob)| blob.hosts())
            .collect();
        hosts.sort();
        hosts.dedup();
        hosts
    }

    /// May all be read again?
    pub(crate) fn is_reopenable(&self) -> bool {
        self.lock()
            .iter()
            .all(|(_, blob)| blob.access() == Access::Reopenable)
    }

    /// Makes ready for a guest that reads in `run`: what it reads there is read again by whoever makes the output, so what
    /// can be read only once is kept. Takes the slots for reading; nothing else may be waited for under them.
    pub(crate) async fn prepare(&self, limits: &Arc<Limits>) -> Result<TransferSlots, Error> {
        let once: Vec<(String, Blob)> = self
            .lock()
            .iter()
            .filter(|(_, blob)| blob.access() == Access::Once)
            .cloned()
            .collect();
        for (port, blob) in once {
            let kept = spool(&blob, limits).await?;
            for (name, blob) in self.lock().iter_mut() {
                if *name == port {
                    *blob = kept.clone();
                }
            }
        }
        Ok(limits.transfer(&self.hosts()).await)
    }
}

/// Content on an input port, as a guest holds it.
#[derive(Clone, Debug)]
#[allow(unreachable_pub, reason = "generated code re-exports it")]
pub struct Input {
    pub(crate) port: String,
    pub(crate) inputs: Arc<Inputs>,
}

impl Input {
    pub(crate) fn blob(&self) -> Result<Blob, Error> {
        let blob = self.inputs.blob(&self.port);
        blob.ok_or_else(|| Error::internal("an input without content"))
    }

    pub(crate) fn info(&self) -> Result<ContentInfo, Error> {
        let blob = self.blob()?;
        Ok(ContentInfo {
            size: blob.size,
            digest: blob.digest.as_ref().map(ToString::to_string),
            media_type: blob.media_type,
        })
    }
}
