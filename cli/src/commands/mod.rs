//! One file per verb: parse, call, render.

pub(crate) mod add;
pub(crate) mod carry;
pub(crate) mod carry_uploads;
pub(crate) mod carry_verify;
pub(crate) mod check;
pub(crate) mod configuration;
pub(crate) mod ctf;
pub(crate) mod describe;
pub(crate) mod diff;
pub(crate) mod docs;
pub(crate) mod doctor;
pub(crate) mod download;
pub(crate) mod elements;
pub(crate) mod get;
pub(crate) mod hash;
pub(crate) mod keys;
pub(crate) mod login;
#[cfg(feature = "wasm")]
pub(crate) mod plugin;
pub(crate) mod registry;
pub(crate) mod select;
pub(crate) mod session;
pub(crate) mod sign;
pub(crate) mod transfer;
pub(crate) mod types;
pub(crate) mod verify;
