//! Media types this project reads or writes, and what kind of content they announce.

/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// The empty JSON object used where a blob must stand but says nothing.
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// OCI image configuration.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// An uncompressed OCI layer.
pub const OCI_LAYER_TAR: &str = "application/vnd.oci.image.layer.v1.tar";
/// A gzip-compressed OCI layer.
pub const OCI_LAYER_TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Helm chart configuration (the config blob of a chart artifact).
pub const HELM_CONFIG: &str = "application/vnd.cncf.helm.config.v1+json";
/// Helm chart content layer.
pub const HELM_CHART_LAYER: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
/// Helm chart provenance layer.
pub const HELM_PROVENANCE_LAYER: &str = "application/vnd.cncf.helm.chart.provenance.v1.prov";
/// An OCI image layout as a tar, as the Go library v2 writes it.
pub const OCI_LAYOUT_TAR: &str = "application/vnd.ocm.software.oci.layout.v1+tar";
/// An OCI image layout as a gzip-compressed tar.
pub const OCI_LAYOUT_TAR_GZIP: &str = "application/vnd.ocm.software.oci.layout.v1+tar+gzip";
/// A gzip-compressed tar, as OCM names it.
pub const TGZ: &str = "application/x-tgz";
/// Bytes of no declared kind.
pub const OCTET_STREAM: &str = "application/octet-stream";
/// The config blob of a component version's manifest (OCM spec, OCI mapping).
pub const COMPONENT_CONFIG: &str = "application/vnd.ocm.software.component.config.v1+json";
/// Component descriptor v2 as JSON.
pub const DESCRIPTOR_JSON: &str = "application/vnd.ocm.software.component-descriptor.v2+json";
/// Component descriptor v2 as YAML.
pub const DESCRIPTOR_YAML: &str = "application/vnd.ocm.software.component-descriptor.v2+yaml";
/// Component descriptor v2 as YAML in a tar.
pub const DESCRIPTOR_YAML_TAR: &str =
    "application/vnd.ocm.software.component-descriptor.v2+yaml+tar";
/// Artifact type of a component version's manifest.
pub const DESCRIPTOR_ARTIFACT_TYPE: &str = "application/vnd.ocm.software.component-descriptor.v2";

/// Artifact type of the one manifest that all component versions of a repository may refer to (OCM spec, OCI mapping 8.1).
pub const COMPONENT_INDEX_ARTIFACT_TYPE: &str =
    "application/vnd.ocm.software.component-index.v1+json";

/// Is this an image index or a manifest list?
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_MANIFEST_LIST)
}

/// Is this a manifest or an index, of OCI or of Docker: something that a registry keeps under `/manifests/`?
pub fn is_manifest(media_type: &str) -> bool {
    is_index(media_type) || matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
}

/// Is this an archive that holds a whole OCI artifact: an OCI layout or one of the artifact sets of the Go library v1?
pub fn is_artifact_archive(media_type: &str) -> bool {
    let base = media_type
        .strip_suffix("+gzip")
        .or_else(|| media_type.strip_suffix(".gz"))
        .unwrap_or(media_type);
    base == OCI_LAYOUT_TAR
        || base
            .strip_suffix("+tar")
            .or_else(|| base.strip_suffix(".tar"))
            .is_some_and(|inner| is_manifest(inner) || is_manifest(&format!("{inner}+json")))
}

/// Is this an OCI image layout in a tar?
pub fn is_layout(media_type: &str) -> bool {
    matches!(media_type, OCI_LAYOUT_TAR | OCI_LAYOUT_TAR_GZIP)
}

/// Does the media type say that the bytes are gzip-compressed?
pub fn is_gzip(media_type: &str) -> bool {
    media_type.ends_with("+gzip")
        || media_type.ends_with(".gzip")
        || media_type.ends_with("-tgz")
        || media_type.ends_with("/gzip")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn artifact_archives_of_both_generations() {
        for (media_type, expected) in [
            (OCI_LAYOUT_TAR, true),
            (OCI_LAYOUT_TAR_GZIP, true),
            ("application/vnd.oci.image.manifest.v1+tar+gzip", true),
            ("application/vnd.oci.image.index.v1+tar+gzip", true),
            ("application/vnd.oci.image.index.v1+tar", true),
            (
                "application/vnd.docker.distribution.manifest.v2+tar+gzip",
                true,
            ),
            (OCI_MANIFEST, false),
            (OCI_LAYER_TAR_GZIP, false),
            ("application/x-tar", false),
        ] {
            assert_eq!(is_artifact_archive(media_type), expected, "{media_type}");
        }
    }
}
