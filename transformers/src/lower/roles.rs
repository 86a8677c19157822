//! What the step types mean to the lowering: which of them bring components, which bring resources, which take them away.
//!
//! Invariant: the lowering names no step type but by its role here.

use std::collections::BTreeMap;

/// The fields that say which repository a step talks to.
pub const REPOSITORY_FIELDS: [&str; 3] = ["filePath", "baseUrl", "subPath"];

/// What a step type does with components and resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Gives a `descriptor`, and its bytes as `data`.
    ComponentDownload,
    /// Takes a `componentDescriptor`, or the bytes of one as `data`, and makes the component version visible.
    ComponentUpload,
    /// Takes `componentDescriptor` and `resource`, gives the resource's `data`.
    ResourceDownload,
    /// Takes `data`, gives a `resource` whose access is valid everywhere.
    ResourceUpload,
    /// Takes `data` and `componentDescriptor`, gives a `resource` whose access is valid in one repository, and the patched
    /// `descriptor`.
    LocalBlobUpload,
    /// Takes a descriptor as the field named here and gives a changed one as `descriptor`.
    DescriptorChange(&'static str),
}

impl Role {
    /// Does it put a resource somewhere?
    pub fn is_upload(self) -> bool {
        matches!(self, Self::ResourceUpload | Self::LocalBlobUpload)
    }

    /// The input field with the descriptor that this step passes on or changes.
    pub fn descriptor_field(self) -> Option<&'static str> {
        match self {
            Self::ComponentDownload => None,
            Self::DescriptorChange(field) => Some(field),
            _ => Some("componentDescriptor"),
        }
    }
}

/// Roles by the names of step types.
#[derive(Clone, Debug, Default)]
pub struct Roles(BTreeMap<String, Role>);

impl Roles {
    /// The roles of the built-in types.
    pub fn built_in() -> Self {
        let table = [
            ("downloader.component.ctf", Role::ComponentDownload),
            ("downloader.component.oci", Role::ComponentDownload),
            ("downloader.resource.oci", Role::ResourceDownload),
            ("downloader.localblob.ctf", Role::ResourceDownload),
            ("downloader.localblob.oci", Role::ResourceDownload),
            ("uploader.resource.oci", Role::ResourceUpload),
            ("uploader.localblob.ctf", Role::LocalBlobUpload),
            ("uploader.localblob.oci", Role::LocalBlobUpload),
            ("uploader.component.ctf", Role::ComponentUpload),
            ("uploader.component.oci", Role::ComponentUpload),
            ("merge.component", Role::DescriptorChange("base")),
            ("hash.component", Role::DescriptorChange("descriptor")),
            ("sign.component", Role::DescriptorChange("descriptor")),
            ("verify.component", Role::DescriptorChange("descriptor")),
            (
                "filter.resource",
                Role::DescriptorChange("componentDescriptor"),
            ),
        ];
        table
            .into_iter()
            .fold(Self::default(), |roles, (name, role)| {
                roles.with(format!("{name}/v1alpha1"), role)
            })
    }

    /// Adds a type by its full name.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, role: Role) -> Self {
        self.0.insert(name.into(), role);
        self
    }

    /// The role of the type with that full name.
    pub fn of(&self, name: &str) -> Option<Role> {
        self.0.get(name).copied()
    }
}
