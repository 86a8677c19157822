//! What kind of content some bytes look like, where nobody says. The names are those that the CLI v2 gives.

/// Bytes that are looked at.
pub(super) const SNIFFED: usize = 3072;

/// Starts of files, with their media types.
const MAGIC: [(&[u8], &str); 19] = [
    (b"\x1f\x8b", "application/gzip"),
    (b"PK\x03\x04", "application/zip"),
    (b"PK\x05\x06", "application/zip"),
    (b"%PDF-", "application/pdf"),
    (b"\x7fELF", "application/x-elf"),
    (b"\0asm", "application/wasm"),
    (b"BZh", "application/x-bzip2"),
    (b"\xfd7zXZ\0", "application/x-xz"),
    (b"\x28\xb5\x2f\xfd", "application/zstd"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"MZ", "application/vnd.microsoft.portable-executable"),
    (b"\xca\xfe\xba\xbe", "application/x-java-applet"),
    (b"\xed\xab\xee\xdb", "application/x-rpm"),
    (b"!<arch>\ndebian", "application/vnd.debian.binary-package"),
    (b"!<arch>", "application/x-archive"),
    (b"SQLite format 3\0", "application/vnd.sqlite3"),
];

/// The media type that the start of a file suggests; `complete` tells that there is no more.
pub(super) fn media_type(head: &[u8], complete: bool) -> &'static str {
    if let Some((_, media_type)) = MAGIC.iter().find(|(magic, _)| head.starts_with(magic)) {
        return elf(head).unwrap_or(media_type);
    }
    if head.get(257..262) == Some(b"ustar") {
        return "application/x-tar";
    }
    text(head, complete).unwrap_or("application/octet-stream")
}

/// Kinds of ELF files, by their header's `e_type`.
fn elf(head: &[u8]) -> Option<&'static str> {
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    let (kind, order) = (head.get(16..18)?, head.get(5)?);
    match if *order == 2 { kind[1] } else { kind[0] } {
        1 => Some("application/x-object"),
        2 => Some("application/x-executable"),
        3 => Some("application/x-sharedlib"),
        4 => Some("application/x-coredump"),
        _ => None,
    }
}

fn text(head: &[u8], complete: bool) -> Option<&'static str> {
    for (mark, charset) in [
        (&b"\xef\xbb\xbf"[..], "text/plain; charset=utf-8"),
        (b"\xfe\xff", "text/plain; charset=utf-16be"),
        (b"\xff\xfe", "text/plain; charset=utf-16le"),
    ] {
        if head.starts_with(mark) {
            return Some(charset);
        }
    }
    // Control characters that no text has.
    let is_binary = |byte: &u8| matches!(byte, 0..=8 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f);
    if head.iter().any(is_binary) {
        return None;
    }
    let start = head.trim_ascii_start();
    if start.is_empty() {
        return Some(if head.is_empty() {
            "text/plain"
        } else {
            "text/plain; charset=utf-8"
        });
    }
    if is_json(start, complete) {
        return Some("application/json");
    }
    let lower = start[..start.len().min(64)].to_ascii_lowercase();
    for (opening, media_type) in [
        (&b"<?xml"[..], "text/xml; charset=utf-8"),
        (b"<!doctype html", "text/html; charset=utf-8"),
        (b"<html", "text/html; charset=utf-8"),
        (b"#!/usr/bin/env python", "text/x-python; charset=utf-8"),
        (b"#!/usr/bin/python", "text/x-python; charset=utf-8"),
        (b"#!/bin/sh", "text/x-shellscript; charset=utf-8"),
        (b"#!/bin/bash", "text/x-shellscript; charset=utf-8"),
        (b"#!/usr/bin/env bash", "text/x-shellscript; charset=utf-8"),
        (b"#!/usr/bin/env sh", "text/x-shellscript; charset=utf-8"),
    ] {
        if lower.starts_with(opening) {
            return Some(media_type);
        }
    }
    let utf8 = match std::str::from_utf8(head) {
        Ok(_) => true,
        // A character may be cut at the end.
        Err(error) => !complete && error.error_len().is_none(),
    };
    Some(if utf8 {
        "text/plain; charset=utf-8"
    } else {
        "text/plain; charset=iso-8859-1"
    })
}

/// Is it a JSON object or list, or the start of one?
fn is_json(start: &[u8], complete: bool) -> bool {
    if !matches!(start.first(), Some(b'{' | b'[')) {
        return false;
    }
    let mut values =
        serde_json::Deserializer::from_slice(start).into_iter::<serde::de::IgnoredAny>();
    match values.next() {
        Some(Ok(_)) => start[values.byte_offset()..].trim_ascii().is_empty(),
        Some(Err(error)) => error.is_eof() && !complete,
        None => false,
    }
}

/// The media type of content after gzip: `+gzip` behind what is known, before parameters.
pub(super) fn gzipped(media_type: &str) -> String {
    if media_type.is_empty() || media_type == "application/octet-stream" {
        return "application/gzip".to_owned();
    }
    match media_type.split_once(';') {
        Some((kind, parameters)) => format!("{}+gzip;{parameters}", kind.trim_end()),
        None => format!("{media_type}+gzip"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_content() {
        let mut tar = vec![b'a'; 512];
        tar[257..262].copy_from_slice(b"ustar");
        let mut program = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        program.extend([2, 0]);
        for (bytes, expected) in [
            (&b""[..], "text/plain"),
            (b"hello\n", "text/plain; charset=utf-8"),
            ("h\u{e4}llo".as_bytes(), "text/plain; charset=utf-8"),
            (b"h\xe4llo", "text/plain; charset=iso-8859-1"),
            (b" {\"a\": [1]}\n", "application/json"),
            (b"[]", "application/json"),
            (b"{not: json}", "text/plain; charset=utf-8"),
            (b"{\"a\": 1} x", "text/plain; charset=utf-8"),
            (b"\n<?xml version=\"1.0\"?>", "text/xml; charset=utf-8"),
            (b"<!DOCTYPE html>", "text/html; charset=utf-8"),
            (b"#!/bin/sh\n", "text/x-shellscript; charset=utf-8"),
            (b"apiVersion: v1\n", "text/plain; charset=utf-8"),
            (b"\x1f\x8b\x08", "application/gzip"),
            (b"PK\x03\x04", "application/zip"),
            (b"\0\x01\x02", "application/octet-stream"),
            (&tar, "application/x-tar"),
            (&program, "application/x-executable"),
        ] {
            assert_eq!(
                media_type(bytes, true),
                expected,
                "{:?}",
                String::from_utf8_lossy(bytes)
            );
        }
        assert_eq!(media_type(b"{\"a\": [1, 2", false), "application/json");
        assert_eq!(media_type(b"x\xc3", false), "text/plain; charset=utf-8");
    }

    #[test]
    fn compressed_kinds() {
        for (media_type, expected) in [
            ("application/octet-stream", "application/gzip"),
            ("application/x-tar", "application/x-tar+gzip"),
            (
                "text/plain; charset=utf-8",
                "text/plain+gzip; charset=utf-8",
            ),
        ] {
            assert_eq!(gzipped(media_type), expected);
        }
    }
}
