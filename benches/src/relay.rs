//! What moving bytes costs: one big layer from registry to registry, verified.

use std::io::{Read, Write};
use std::net::TcpStream;

use ocm_content::Referrers;
use ocm_specs::{Algorithm, Hasher};

use crate::child::{Job, Sample, cpu_seconds};
use crate::content::Generated;
use crate::figures::least;
use crate::null_registry::{Config, NullRegistries};
use crate::report::Report;
use crate::transfer::{relay_spec, transfer};
use crate::{Result, Sizes};

/// The layer whose memory is looked at.
const LARGE: u64 = 4 << 30;
/// The one that it is compared with.
const SMALL: u64 = 400 << 20;
/// The layer whose processor time is compared with the floor: long enough that starting does not count.
const TIMED: u64 = 1 << 30;
/// How often each side of the comparison runs, in turn; the least counts.
const ROUNDS: usize = 3;

/// Measures `relay.*`.
pub(crate) fn measure(sizes: Sizes, report: &mut Report) -> Result<()> {
    let memory = report.wants("relay.peak_rss_mib") || report.wants("relay.rss_growth_mib");
    if memory {
        let peak = |size| -> Result<f64> { Ok(Relay::new(size)?.relay()?.peak_rss_mib()) };
        let small = peak(sizes.of(SMALL, 4 << 20))?;
        let large = peak(sizes.of(LARGE, 40 << 20))?;
        report.put("relay.peak_rss_mib", large);
        report.put("relay.rss_growth_mib", large - small);
    }
    if report.wants("relay.floor_ratio") || report.wants("relay.cpu_s_per_gib") {
        compare(sizes.of(TIMED, 40 << 20), sizes.of(ROUNDS, 1), report)?;
    }
    Ok(())
}

fn compare(size: u64, rounds: usize, report: &mut Report) -> Result<()> {
    let relay = Relay::new(size)?;
    let (mut ours, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        floors.push(relay.floor()?.cpu);
        ours.push(relay.relay()?.cpu);
    }
    let (ours, floor) = (least(ours), least(floors));
    let gib = size as f64 / f64::from(1 << 30);
    report.put("relay.floor_ratio", ours / floor);
    report.put("relay.cpu_s_per_gib", ours / gib);
    report.note(
        "relay.floor_ratio",
        format!("the bare loop takes {:.3} s for a GiB", floor / gib),
    );
    Ok(())
}

/// One layer and the registries it goes between.
struct Relay {
    registries: NullRegistries,
    digest: String,
}

impl Relay {
    fn new(size: u64) -> Result<Self> {
        let layer = Generated::new(1, size);
        Ok(Self {
            digest: layer.digest.clone(),
            registries: NullRegistries::start(&Config {
                layers: vec![layer],
                targets: 1,
            })?,
        })
    }

    fn relay(&self) -> Result<Sample> {
        let (source, target) = (self.registries.source(), self.registries.target(0));
        Job::Relay { source, target }.measure()
    }

    fn floor(&self) -> Result<Sample> {
        let job = Job::Floor {
            source: self.registries.source(),
            target: self.registries.target(0),
            digest: self.digest.clone(),
        };
        job.measure()
    }
}

/// Runs a plan that copies one artifact. Gives the CPU seconds of the whole process.
pub(crate) fn relay(source: &str, target: &str) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(transfer(relay_spec(source, target), Referrers::All))?;
    Ok(cpu_seconds())
}

/// Moves the same bytes over the same kind of sockets and hashes them, and does nothing else. Gives the CPU seconds of the
/// whole process.
pub(crate) fn floor(source: &str, target: &str, digest: &str) -> Result<f64> {
    /// As much as fits into the second-level cache: less means more system calls, more means slower memory.
    const BUFFER: usize = 256 << 10;
    let mut buffer = vec![0; BUFFER];
    let mut reader = connect(source)?;
    let request = format!("GET /v2/bench/source/blobs/{digest} HTTP/1.1\r\nHost: bench\r\n\r\n");
    reader.write_all(request.as_bytes())?;
    let (mut start, mut end) = head(&mut reader, &mut buffer)?;
    let length: u64 = header(&buffer[..start], "content-length")
        .and_then(|text| text.parse().ok())
        .ok_or("the source tells no length")?;
    let mut writer = connect(target)?;
    let request = format!(
        "PUT /v2/bench/target/blobs/uploads/1?digest={digest} HTTP/1.1\r\nHost: bench\r\nContent-Length: {length}\r\n\r\n"
    );
    writer.write_all(request.as_bytes())?;
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut moved = 0;
    loop {
        hasher.update(&buffer[start..end]);
        writer.write_all(&buffer[start..end])?;
        moved += (end - start) as u64;
        if moved >= length {
            break;
        }
        (start, end) = (0, reader.read(&mut buffer)?);
        if end == 0 {
            return Err("the source ended early".into());
        }
    }
    let (end, _) = head(&mut writer, &mut buffer)?;
    let created = buffer[..end].starts_with(b"HTTP/1.1 201");
    if !created || hasher.finish().to_string() != digest {
        return Err("the bytes did not arrive as they are".into());
    }
    Ok(cpu_seconds())
}

fn connect(reference: &str) -> Result<TcpStream> {
    let (host, _) = reference.split_once('/').unwrap_or((reference, ""));
    Ok(TcpStream::connect(host)?)
}

/// Reads the head of an answer, and whatever came with it. Gives where the head ends and where the bytes do.
fn head(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<(usize, usize)> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Err("an answer ended within its head".into());
        }
        filled += read;
        let end = buffer[..filled]
            .windows(4)
            .position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            return Ok((end + 4, filled));
        }
    }
}

fn header<'h>(head: &'h [u8], name: &str) -> Option<&'h str> {
    let head = std::str::from_utf8(head).ok()?;
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n";
        assert_eq!(header(head, "content-length"), Some("12"));
        assert_eq!(header(head, "location"), None);
    }
}
