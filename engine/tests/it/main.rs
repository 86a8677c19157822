//! The engine from outside: toy step types, a paused clock, and the list of events.

#![allow(clippy::unwrap_used, reason = "a test that can not go on has failed")]

mod cases;
mod random;
mod run;
mod toys;
