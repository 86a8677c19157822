//! Step types written by others, run as sandboxed WebAssembly components.
//!
//! A plugin is one component that fits the contract in `wit/transformer.wit`. [`Host::inspect`] takes its bytes, checks them
//! against a digest and asks the plugin what it is; [`Granted::new`] says which rights it gets; a [`Plugin`] made of both
//! gives [`ocm_engine::StepType`]s, which are added to the table beside the built-in ones and are like them in everything:
//! static types, ports, help, the editor's schema, reports.
//!
//! ```text
//! engine             this crate                              guest
//! run(step) ───────► fresh instance, `run`         ────────► reads its spec, perhaps its inputs
//!    ◄── Outcome ─── output judged; per port:
//!                      same-as: the input's own handle; stored: a spool; lazy: a blob whose source is …
//! reader opens ────► … a fresh instance, `produce` ────────► read, work, write
//! reader pulls ◄──── pipe, one window              ◄──────── waits for room without holding a thread
//! reader drops ────► the instance is dropped
//! ```
//!
//! Invariants: it sees the engine and content, never a repository: what a plugin may reach is handed to it. A guest has no
//! right that is not granted, ends by a limit if not by itself, and what it does wrong is its own step's error.

mod activity;
mod bindings;
mod cache;
pub mod conformance;
mod description;
mod fetch;
mod folder;
mod host;
mod input;
mod limits;
mod memo;
mod pipe;
mod plugin;
mod produce;
mod results;
mod rights;
mod step;
mod store;
mod stored;
pub mod template;
mod watch;

pub use cache::{Cache, Entry};
pub use description::{
    Description, PortDescription, StepDescription, check_schema, is_plugin_name, summary,
};
pub use fetch::{Http, HttpRequest, HttpResponse, REQUEST_BODY};
pub use host::{COMPONENT_LIMIT, Host, HostConfig, Inspected};
pub use limits::{PluginLimits, Usage};
pub use plugin::Plugin;
pub use results::Results;
pub use rights::{Allowed, Capability, Granted, HostPattern, Need, Rights};
