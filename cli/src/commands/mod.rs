//! One file per verb: parse, call, render.

pub(crate) mod docs;
pub(crate) mod get;
pub(crate) mod registry;
pub(crate) mod session;
pub(crate) mod transfer;
pub(crate) mod types;
