//! The program as its users meet it: a process in a folder, with registries within reach.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails there")]

mod add;
mod add_inputs;
mod bad_input;
mod bad_registries;
mod by_value;
mod carry;
mod carry_trust;
mod configuration;
mod corpus;
mod design;
mod dry_run;
mod example;
mod fan_out;
mod forgeries;
mod forms;
mod graphs;
#[cfg(feature = "wasm")]
mod guide;
mod help;
mod hostile;
mod invariants;
#[cfg(unix)]
mod kill;
mod login;
mod look;
mod output;
mod place;
#[cfg(feature = "wasm")]
mod plugin_authors;
mod plugin_misdeeds;
mod plugin_supply;
mod plugins;
mod scenario;
mod schemas;
mod secrets;
mod signing;
mod tls;
mod traps;
