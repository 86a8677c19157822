//! Whole specs, lowered and run with the built-in step types.

mod seed;
