//! A run's session at work for the engine: content from files, and descriptors where a dialect needs them.

use std::sync::Arc;

use futures::future::BoxFuture;
use ocm_content::{Content, Error};
use ocm_engine::{ContentRef, OpenContent, StepTypes};
use ocm_repository::Session;
use ocm_specs::diagnostic::Diagnostics;
use ocm_specs::transfer::{Dialect, TransferSpec};

use crate::lower::{lower, lower_mapping};

/// Files that specs name (`file:///…`), opened from the session's working directory.
pub struct Files(pub Arc<Session>);

impl OpenContent for Files {
    fn open(&self, reference: &ContentRef) -> BoxFuture<'static, Result<Content, Error>> {
        let (session, reference) = (self.0.clone(), reference.clone());
        Box::pin(async move {
            let blob = session
                .file(&reference.uri, reference.media_type.as_deref())
                .await?;
            let Some(stated) = &reference.digest else {
                return Ok(blob.into());
            };
            let digest = stated
                .parse()
                .map_err(|error: ocm_specs::digest::DigestError| {
                    Error::invalid(error.to_string())
                })?;
            match blob.size {
                Some(size) => Ok(blob.expect_content(digest, size).into()),
                None => Ok(blob.into()),
            }
        })
    }
}

/// A spec of any dialect in the native form, with what was implied as warnings. Only mappings need their descriptors, so
/// only they read anything.
///
/// # Errors
/// All that is wrong with it, at once.
pub async fn to_native(
    spec: TransferSpec,
    types: &StepTypes,
    session: &Session,
) -> Result<(TransferSpec, Diagnostics), Diagnostics> {
    match spec.dialect {
        Dialect::Mapping => lower_mapping(spec, types, session).await,
        Dialect::Native | Dialect::Inline => lower(spec, types),
    }
}
