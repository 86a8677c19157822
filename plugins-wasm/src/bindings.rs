//! The contract as Rust types and traits, generated from `wit/transformer.wit`. Alone in its file: it is slow to compile.

#![allow(
    missing_docs,
    unreachable_pub,
    reason = "generated; the documentation is in the WIT files"
)]

wasmtime::component::bindgen!({
    path: "wit",
    world: "transformer-http",
    imports: { default: async | trappable },
    exports: { default: async },
    with: {
        "wasi:io": wasmtime_wasi::p2::bindings::io,
        "ocm:transformer/host.input": crate::input::Input,
        "ocm:transformer/host.stored": crate::stored::Stored,
        "ocm:transformer/fetch.exchange": crate::fetch::Exchange,
    },
});
