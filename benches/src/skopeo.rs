//! The same copy by another tool.

use std::process::{Command, Stdio};

use crate::child::{Job, children_cpu_seconds};
use crate::content::Generated;
use crate::figures::least;
use crate::null_registry::{Config, NullRegistries};
use crate::report::Report;
use crate::{Result, Sizes};

const NAME: &str = "skopeo.ratio";

/// Layers of the image and the length of each: an image as large ones are, and enough that starting does not count.
const FULL: (u64, u64) = (8, 128 << 20);
const SMOKE: (u64, u64) = (2, 1 << 20);

/// Measures `skopeo.ratio`, if that tool is here.
pub(crate) fn measure(sizes: Sizes, report: &mut Report) -> Result<()> {
    let found = Command::new("skopeo")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        report.leave_out(NAME, "skopeo is not installed");
        return Ok(());
    }
    let (layers, size) = sizes.of(FULL, SMOKE);
    let registries = NullRegistries::start(&Config {
        layers: (0..layers)
            .map(|layer| Generated::new(layer, size))
            .collect(),
        targets: 1,
    })?;
    let (source, target) = (registries.source(), registries.target(0));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..sizes.of(3, 1) {
        let job = Job::Relay {
            source: source.clone(),
            target: target.clone(),
        };
        ours.push(job.measure()?.cpu);
        theirs.push(skopeo(&source, &target)?);
    }
    let (ours, theirs) = (least(ours), least(theirs));
    report.put(NAME, ours / theirs);
    let mib = (layers * size) >> 20;
    report.note(
        NAME,
        format!("{ours:.2} s against {theirs:.2} s for {mib} MiB"),
    );
    Ok(())
}

/// CPU seconds of one `skopeo copy --all`.
fn skopeo(source: &str, target: &str) -> Result<f64> {
    let before = children_cpu_seconds()?;
    let output = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "--all", "--quiet"])
        .args(["--src-tls-verify=false", "--dest-tls-verify=false"])
        .args([format!("docker://{source}"), format!("docker://{target}")])
        .output()?;
    if !output.status.success() {
        return Err(format!("skopeo: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
    }
    Ok(children_cpu_seconds()? - before)
}
