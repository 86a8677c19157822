//! Helm charts as OCI artifacts: a config with the chart's metadata, a layer with the packed chart, its provenance.
//!
//! *Invariant*: a packed chart keeps its bytes; a folder is packed the same on every machine, its files as they are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use globset::{GlobBuilder, GlobMatcher};
use ocm_content::{Artifact, Blob, Error, Limits};
use ocm_repository::ChartMetadata;
use ocm_specs::media_type::{HELM_CHART_LAYER, HELM_PROVENANCE_LAYER};

use super::folder::Walk;
use super::patterns::Decision;
use super::root::Root;
use crate::helm::package;
use crate::pipe::Compressed;

/// Most bytes of a chart's metadata, of its provenance and of its ignore file: 1 MiB.
const SMALL_FILE: u64 = 1 << 20;

const METADATA: &str = "Chart.yaml";

/// A chart beside the constructor: a folder, or a packed one, perhaps with its provenance.
pub(super) async fn local(
    root: &Root,
    path: &Path,
    mtime: u64,
    limits: &Arc<Limits>,
) -> Result<Artifact, Error> {
    if !path.is_dir() {
        let archive = Blob::from_file(HELM_CHART_LAYER, path).await?;
        return packed(&archive, provenance(path)?.as_ref(), limits).await;
    }
    let (folder, root) = (path.to_owned(), root.clone());
    let listed = tokio::task::spawn_blocking(move || list(&root, &folder, mtime)).await;
    let tar = listed.map_err(|error| Error::internal(format!("file work ended: {error}")))??;
    let compressed = Compressed {
        inner: tar,
        limits: limits.clone(),
    };
    let archive = Blob::new(HELM_CHART_LAYER, Arc::new(compressed));
    packed(&archive, None, limits).await
}

/// A packed chart, wherever it is from.
pub(super) async fn packed(
    archive: &Blob,
    provenance: Option<&Blob>,
    limits: &Arc<Limits>,
) -> Result<Artifact, Error> {
    let chart = package(archive, provenance, limits).await;
    chart
        .map(|chart| chart.artifact)
        .map_err(|error| error.context("read the packed chart"))
}

/// The provenance file beside a packed chart.
fn provenance(chart: &Path) -> Result<Option<Blob>, Error> {
    let mut beside = chart.as_os_str().to_owned();
    beside.push(".prov");
    let bytes = small_file(&PathBuf::from(beside))?;
    Ok(bytes.map(|bytes| Blob::from_bytes(HELM_PROVENANCE_LAYER, bytes)))
}

fn read_error(path: &Path, error: &std::io::Error) -> Error {
    Error::io(format!("read {}", path.display()), error)
}

/// A chart's folder as tar. Blocks.
fn list(root: &Root, folder: &Path, mtime: u64) -> Result<Blob, Error> {
    let bytes = small_file(&folder.join(METADATA))?.ok_or_else(|| {
        Error::invalid(format!(
            "{} is no Helm chart: it has no {METADATA}",
            folder.display()
        ))
        .with_hint("give the `path` of the folder that has it")
    })?;
    let name = name(&bytes).map_err(|error| error.context(format!("read {}", folder.display())))?;
    let ignored = Ignored::read(small_file(&folder.join(".helmignore"))?.as_deref())?;
    let walk = Walk {
        root,
        follow: true,
        folders: false,
        prefix: format!("{name}/"),
        mtime,
    };
    let mut listing = walk.list(folder, &|path, is_folder| {
        if ignored.has(path, is_folder) {
            Decision::Exclude
        } else {
            Decision::Include
        }
    })?;
    listing.put_first(&format!("{name}/{METADATA}"));
    listing.into_tar("application/x-tar")
}

/// A small file; `None` when it is not there.
fn small_file(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(read_error(path, &error)),
        Ok(found) if found.len() > SMALL_FILE => Err(Error::limit(format!(
            "{} is larger than {SMALL_FILE} bytes",
            path.display()
        ))),
        Ok(_) => std::fs::read(path)
            .map(Some)
            .map_err(|error| read_error(path, &error)),
    }
}

/// The name of a chart, which is that of the folder in its archive.
fn name(metadata: &[u8]) -> Result<String, Error> {
    let text = std::str::from_utf8(metadata)
        .map_err(|_| Error::invalid(format!("{METADATA} is no text in UTF-8")))?;
    let chart = ChartMetadata::parse(text)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match chart.name() {
        name if name.chars().all(plain) && !name.starts_with('.') => Ok(name.to_owned()),
        name => Err(Error::invalid(format!("`{name}` is not a name of a chart"))),
    }
}

/// What `.helmignore` leaves out, by Helm's rules: a negated line that does not match leaves out, too.
#[derive(Debug)]
struct Ignored(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    glob: GlobMatcher,
    /// Is the last part of the path compared, or all of it?
    whole: bool,
    only_folders: bool,
    negated: bool,
}

impl Ignored {
    fn read(bytes: Option<&[u8]>) -> Result<Self, Error> {
        let text = String::from_utf8_lossy(bytes.unwrap_or_default());
        // Helm leaves hidden templates out, whatever the file says.
        let lines = text.lines().map(str::trim).chain(["templates/.?*"]);
        let rules = lines
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(Rule::new);
        rules.collect::<Result<_, _>>().map(Self)
    }

    fn has(&self, path: &str, is_folder: bool) -> bool {
        for rule in &self.0 {
            let matches = rule.matches(path);
            match rule.negated {
                true if !matches || (rule.only_folders && !is_folder) => return true,
                true => {}
                false if matches && (is_folder || !rule.only_folders) => return true,
                false => {}
            }
        }
        false
    }
}

impl Rule {
    fn new(line: &str) -> Result<Self, Error> {
        let (negated, text) = line
            .strip_prefix('!')
            .map_or((false, line), |rest| (true, rest));
        let (only_folders, text) = text
            .strip_suffix('/')
            .map_or((false, text), |rest| (true, rest));
        let whole = text.contains('/');
        let text = text.trim_start_matches('/');
        let plain = text.replace('{', "[{]").replace('}', "[}]");
        let glob = GlobBuilder::new(&plain)
            .literal_separator(true)
            .backslash_escape(true)
            .build()
            .map_err(|error| {
                Error::invalid(format!(
                    ".helmignore: `{line}` is no pattern: {}",
                    error.kind()
                ))
            })?;
        Ok(Self {
            glob: glob.compile_matcher(),
            whole,
            only_folders,
            negated,
        })
    }

    fn matches(&self, path: &str) -> bool {
        let last = path.rsplit('/').next().unwrap_or_default();
        self.glob.is_match(if self.whole { path } else { last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use ocm_content::gzip::gunzip;
    use ocm_content::limits::LimitsConfig;
    use ocm_specs::media_type::HELM_CONFIG;
    use ocm_specs::oci::Manifest;

    const CHART: &str =
        "apiVersion: v2\nname: shop\nversion: 1.2.3+x\ndescription: A shop\nkeywords: [b, a]\n";

    fn limits() -> Arc<Limits> {
        Limits::new(LimitsConfig {
            temp_folder: Some(std::env::temp_dir()),
            ..LimitsConfig::default()
        })
    }

    fn chart() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("chart/templates")).expect("make it");
        for (path, text) in [
            ("Chart.yaml", CHART),
            ("values.yaml", "a: 1 # kept\n"),
            (".helmignore", "# what\n*.bak\n/ci/\n"),
            ("old.bak", "x"),
            ("templates/a.yaml", "a"),
            ("templates/.hidden", "x"),
        ] {
            std::fs::write(folder.path().join("chart").join(path), text).expect("write");
        }
        folder
    }

    async fn files(artifact: &Artifact) -> (Manifest, Vec<String>, Bytes) {
        let Artifact::Stored(stored) = artifact else {
            panic!("it is assembled")
        };
        let manifest = stored
            .store
            .manifest(&stored.root.digest.to_string())
            .await
            .expect("a manifest");
        let manifest = manifest.parse().expect("a manifest");
        let layer = &manifest.layers.as_ref().expect("layers")[0];
        let bytes = stored
            .store
            .fetch(layer)
            .read(1 << 20)
            .await
            .expect("a layer");
        let plain: Vec<Bytes> = futures::TryStreamExt::try_collect(gunzip(
            Box::pin(futures::stream::iter([Ok(bytes.clone())])),
            &limits(),
        ))
        .await
        .expect("gzip");
        let plain = plain.concat();
        let mut archive = tar::Archive::new(plain.as_slice());
        let entries = archive.entries().expect("a tar");
        let paths = entries.map(|it| {
            it.expect("an entry")
                .path()
                .expect("a path")
                .display()
                .to_string()
        });
        (manifest.clone(), paths.collect(), bytes)
    }

    #[tokio::test]
    async fn a_folder_and_its_packed_form_are_one_artifact() {
        let folder = chart();
        let root = Root::open(folder.path()).expect("a root");
        let path = root.resolve("chart").expect("a path");
        let artifact = local(&root, &path, 0, &limits()).await.expect("a chart");
        assert_eq!(artifact.tag(), Some("1.2.3_x"));
        let (manifest, paths, packed) = files(&artifact).await;
        assert_eq!(
            paths,
            [
                "shop/Chart.yaml",
                "shop/.helmignore",
                "shop/templates/a.yaml",
                "shop/values.yaml"
            ]
        );
        assert_eq!(
            manifest.config.as_ref().map(|it| it.media_type.as_str()),
            Some(HELM_CONFIG)
        );
        assert_eq!(
            manifest.annotations.expect("annotations")["org.opencontainers.image.title"],
            "shop"
        );
        std::fs::write(folder.path().join("shop.tgz"), &packed).expect("write");
        let again = local(
            &root,
            &root.resolve("shop.tgz").expect("a path"),
            7,
            &limits(),
        )
        .await
        .expect("a chart");
        assert_eq!(again.root(), artifact.root());
        std::fs::write(folder.path().join("shop.tgz.prov"), "signed").expect("write");
        let signed = local(
            &root,
            &root.resolve("shop.tgz").expect("a path"),
            7,
            &limits(),
        )
        .await
        .expect("a chart");
        let (manifest, _, same) = files(&signed).await;
        assert_eq!(
            manifest.layers.expect("layers")[1].media_type,
            HELM_PROVENANCE_LAYER
        );
        assert_eq!(same, packed);
    }

    #[tokio::test]
    async fn what_is_no_chart_is_told() {
        let folder = chart();
        let root = Root::open(folder.path()).expect("a root");
        let write =
            |path: &str, text: &str| std::fs::write(folder.path().join(path), text).expect("write");
        std::fs::create_dir(folder.path().join("none")).expect("make it");
        write("text.tgz", "text");
        for (path, expected) in [
            ("none", "has no Chart.yaml"),
            ("text.tgz", "read the packed chart: gzip data is damaged"),
        ] {
            let error = local(&root, &root.resolve(path).expect(path), 0, &limits())
                .await
                .expect_err(path);
            assert!(error.to_string().contains(expected), "{error}");
        }
        for (text, expected) in [
            ("name: x\n", "Chart.yaml has no `version`"),
            ("version: 1.0.0\n", "Chart.yaml has no `name`"),
            ("name: ../x\nversion: 1.0.0\n", "is not a name of a chart"),
            ("name: [\n", "Chart.yaml:2:1"),
        ] {
            write("chart/Chart.yaml", text);
            let error = local(&root, &root.resolve("chart").expect("chart"), 0, &limits())
                .await
                .expect_err(text);
            assert!(error.to_string().contains(expected), "{error}");
        }
    }

    #[test]
    fn what_is_ignored() {
        for (lines, path, is_folder, expected) in [
            ("", "templates/.x", false, true),
            ("", "a", false, false),
            ("*.bak", "sub/a.bak", false, true),
            ("sub/*.bak", "sub/a.bak", false, true),
            ("sub/*.bak", "a.bak", false, false),
            ("ci/", "ci", true, true),
            ("ci/", "ci", false, false),
            ("/a", "a", false, true),
            ("/a", "b/a", false, false),
        ] {
            let ignored = Ignored::read(Some(lines.as_bytes())).expect(lines);
            assert_eq!(ignored.has(path, is_folder), expected, "{lines} {path}");
        }
    }
}
