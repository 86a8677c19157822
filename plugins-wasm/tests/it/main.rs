//! Plugins in plans, as the engine runs them.

mod conformance;
mod contract;
mod guests;
mod hostile;
mod languages;
mod results;
mod run;
