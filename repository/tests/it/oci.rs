//! The registry client, against Debian's `docker-registry` and against servers that misbehave on purpose.

mod debian;
