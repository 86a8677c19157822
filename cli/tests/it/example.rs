//! The shipped example: what README tells people to try first.
