//! The engine from outside: toy step types, a paused clock, and the list of events.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]
#![allow(clippy::print_stderr, reason = "a test that is skipped says why")]

mod ask;
mod cases;
mod check;
mod identity;
mod print;
mod provenance;
mod random;
mod run;
mod scale;
mod schema;
mod toys;
