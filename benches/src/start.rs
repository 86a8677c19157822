//! How long the command line takes before it does anything.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use tempfile::TempDir;

use crate::child::millis;
use crate::figures::least;
use crate::report::Report;
use crate::{Result, Sizes};

const FIGURES: [&str; 2] = ["start.version_ms", "start.dry_run_ms"];

/// A transfer of ten steps: an image and a chart whose values follow the image.
const SPEC: &str = r#"
type: transformation.ocm.component/v1alpha1
transformations:
- type: attributes.transformation/v1alpha1
  id: target
  attributes:
    archive: ./target
    registry: registry.example.org/team
- type: downloader.component.ctf/v1alpha1
  id: component
  name: acme.org/webapp
  version: 1.4.0
  filePath: ./source
- type: downloader.resource.oci/v1alpha1
  id: image
  componentDescriptor: ${component.outputs.descriptor}
  resource: {name: image}
- type: uploader.resource.oci/v1alpha1
  id: imageupload
  imageReference: ${target.spec.attributes.registry}/webapp:1.4.0
  componentDescriptor: ${component.outputs.descriptor}
  data: ${image.outputs.data}
- type: downloader.resource.oci/v1alpha1
  id: chart
  componentDescriptor: ${component.outputs.descriptor}
  resource: {name: chart}
- type: oci.to.tar.transformer/v1alpha1
  id: charttar
  data: ${chart.outputs.data}
- type: yaml.engine.localization/v1
  id: localized
  data: ${charttar.outputs.data}
  file: "*/values.yaml"
  mappings:
  - path: image.repository
    value: ${imageupload.resource.access.imageReference.parseRef().registry}/${imageupload.resource.access.imageReference.parseRef().repository}
- type: tar.to.oci.transformer/v1alpha1
  id: chartimage
  manifest: ${charttar.outputs.manifest}
  ref: ${charttar.outputs.ref}
  configLayer: ${charttar.outputs.configLayer}
  data: ${localized.outputs.data}
- type: uploader.resource.oci/v1alpha1
  id: chartupload
  imageReference: ${target.spec.attributes.registry}/charts/webapp:1.4.0
  componentDescriptor: ${component.outputs.descriptor}
  data: ${chartimage.outputs.data}
- type: uploader.component.ctf/v1alpha1
  id: upload
  filePath: ${target.spec.attributes.archive}
  data: ${component.outputs.data}
"#;

/// Measures `start.*` of the program beside this one.
pub(crate) fn measure(sizes: Sizes, report: &mut Report) -> Result<()> {
    let program = program()?;
    if !program.is_file() {
        for figure in FIGURES {
            let why = format!(
                "there is no {}: `cargo build --release --locked -p ocm-cli` builds it",
                program.display()
            );
            report.leave_out(figure, why);
        }
        return Ok(());
    }
    let folder = TempDir::new()?;
    std::fs::write(folder.path().join("spec.yaml"), SPEC)?;
    let runs = sizes.of(20, 2);
    let dry_run = ["transfer", "--transfer-spec", "spec.yaml", "--dry-run"];
    for (figure, arguments) in FIGURES.into_iter().zip([&["version"][..], &dry_run]) {
        if !report.wants(figure) {
            continue;
        }
        match (0..runs)
            .map(|_| run(&program, arguments, folder.path()))
            .collect::<Result<Vec<_>>>()
        {
            Ok(times) => report.put(figure, least(times)),
            Err(error) => report.leave_out(figure, error.to_string()),
        }
    }
    Ok(())
}

/// The command line beside this program.
fn program() -> Result<PathBuf> {
    let name = format!("ocm{}", std::env::consts::EXE_SUFFIX);
    Ok(std::env::current_exe()?.with_file_name(name))
}

/// Wall milliseconds of one process that ends well and says something.
fn run(program: &Path, arguments: &[&str], folder: &Path) -> Result<f64> {
    let start = Instant::now();
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()?;
    let took = millis(start.elapsed());
    let what = arguments.join(" ");
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        let first = error.trim().lines().take(5).collect::<Vec<_>>().join("; ");
        return Err(format!("`ocm {what}` ended with {}: {first}", output.status).into());
    }
    if output.stdout.is_empty() {
        return Err(format!("`ocm {what}` said nothing").into());
    }
    Ok(took)
}
