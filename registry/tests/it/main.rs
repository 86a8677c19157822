//! The registry as its clients see it: HTTP over a socket, by the categories of the OCI distribution specification.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

mod auth;
mod client;
mod discovery;
mod hostile;
mod management;
mod pull;
mod push;
mod skopeo;
mod streams;
