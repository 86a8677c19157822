//! Platforms of images as people write them: `os/architecture[/variant]`.

/// What to do about a text that is none.
pub const HINT: &str = "write os/architecture, as in linux/amd64 or linux/arm/v7";

/// Is a platform written as platforms are?
///
/// # Errors
/// What is wrong, for a person; [`HINT`] says what to do.
pub fn check(text: &str) -> Result<(), String> {
    let parts: Vec<&str> = text.split('/').collect();
    match matches!(parts.len(), 2 | 3) && parts.iter().all(|part| !part.is_empty()) {
        true => Ok(()),
        false => Err(format!("`{text}` is no platform")),
    }
}
