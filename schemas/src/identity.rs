//! The identity audit: whether a service manifest and a launch manifest speak of one product, under one
//! name, launched hermetically, with no name of what it is built on where people look.
//!
//! It judges the pair and holds neither to its schema: what is not there, or says nothing, is wrong only
//! where the audit needs it.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use crate::contracts::{FINDINGS_MAX, Finding};
use crate::service::gates::says_something;
use crate::{launch, service};

/// Names of engines that must not show on a surface of a product.
const ENGINE_NAMES: [&str; 6] = ["firefox", "mozilla", "gecko", "chromium", "chrome", "webkit"];

/// What the audit found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IdentityAudit {
    /// Whether no error was found.
    pub status: AuditStatus,
    /// What makes the pair fail, at most [`FINDINGS_MAX`].
    pub errors: Vec<AuditFinding>,
    /// What is worth a look, at most [`FINDINGS_MAX`].
    pub warnings: Vec<AuditFinding>,
}

/// Whether a pair passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditStatus {
    /// No error.
    Pass,
    /// At least one error.
    Fail,
}

/// Which of the two manifests a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Manifest {
    /// The service manifest.
    Service,
    /// The launch manifest.
    Launch,
}

/// One thing that the audit found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditFinding {
    /// In which manifest.
    pub manifest: Manifest,
    /// Where in it, by which rule, and how to mend it.
    #[serde(flatten)]
    pub finding: Finding,
}

/// Audits a pair of manifests.
pub fn audit(service: &Value, launch: &Value) -> IdentityAudit {
    let mut audit = Audit { service, launch, errors: Vec::new(), warnings: Vec::new() };
    let name = audit.names();
    audit.surfaces(&name);
    audit.environment();
    audit.engine_names();
    audit.denials();
    let Audit { errors, warnings, .. } = audit;
    let status = if errors.is_empty() { AuditStatus::Pass } else { AuditStatus::Fail };
    IdentityAudit { status, errors, warnings }
}

struct Audit<'a> {
    service: &'a Value,
    launch: &'a Value,
    errors: Vec<AuditFinding>,
    warnings: Vec<AuditFinding>,
}

impl Audit<'_> {
    fn error(&mut self, manifest: Manifest, path: &str, rule: &'static str, message: &str) {
        if self.errors.len() < FINDINGS_MAX {
            self.errors.push(found(manifest, path, rule, message));
        }
    }

    fn warning(&mut self, manifest: Manifest, path: &str, rule: &'static str, message: &str) {
        if self.warnings.len() < FINDINGS_MAX {
            self.warnings.push(found(manifest, path, rule, message));
        }
    }

    fn at(&self, manifest: Manifest, path: &str) -> Option<&Value> {
        match manifest {
            Manifest::Service => self.service.pointer(path),
            Manifest::Launch => self.launch.pointer(path),
        }
    }

    fn text(&self, manifest: Manifest, path: &str) -> &str {
        self.at(manifest, path).and_then(Value::as_str).unwrap_or_default()
    }

    /// Versions and the name itself; answers with the product's name.
    fn names(&mut self) -> String {
        use Manifest::{Launch, Service};
        let versions = [(Service, service::SCHEMA_VERSION), (Launch, launch::SCHEMA_VERSION)];
        for (manifest, version) in versions {
            if self.text(manifest, "/schema_version") != version {
                let message = format!("schema_version must be {version}");
                self.error(manifest, "/schema_version", "identity.version", &message);
            }
        }
        let shown = |audit: &Self, manifest| audit.text(manifest, "/display_name").to_owned();
        let (of_service, of_launch) = (shown(self, Service), shown(self, Launch));
        let name = if of_launch.is_empty() { of_service.clone() } else { of_launch.clone() };
        if name.is_empty() {
            let message = "the product has no name: say display_name in both manifests";
            self.error(Launch, "/display_name", "identity.named", message);
        }
        if self.at(Service, "/display_name") != self.at(Launch, "/display_name") {
            let message = format!(
                "the service is called {of_service:?} and the launch {of_launch:?}: use one display_name"
            );
            self.error(Service, "/display_name", "identity.one-name", &message);
        }
        name
    }

    /// What must show or hold the product's name.
    fn surfaces(&mut self, name: &str) {
        let ids = [
            (Manifest::Service, "/service_id"),
            (Manifest::Launch, "/product_id"),
            (Manifest::Launch, "/bundle_identity/bundle_id"),
        ];
        for (manifest, path) in ids {
            // A missing id holds no name, not even an empty one.
            let id = self.at(manifest, path).and_then(Value::as_str);
            if !id.is_some_and(|id| normal(id).contains(&normal(name))) {
                let message = format!("the id must contain the product's name, {}", normal(name));
                self.error(manifest, path, "identity.id-names-product", &message);
            }
        }
        for path in launch::SURFACES {
            if self.at(Manifest::Launch, path).and_then(Value::as_str) != Some(name) {
                let message = format!("this surface must show the product's name, {name:?}");
                self.error(Manifest::Launch, path, "identity.surface-shows-product", &message);
            }
        }
        let path = "/identity_invariants/profile_path_policy";
        let policy = self.text(Manifest::Launch, path);
        if !policy.contains("MUST NOT") && !policy.contains("must not") {
            let message = "say in words what a profile's path must not show";
            self.warning(Manifest::Launch, path, "identity.profile-path", message);
        }
    }

    fn environment(&mut self) {
        let path = "/environment/inherit_user_shell";
        if self.at(Manifest::Launch, path) != Some(&Value::Bool(false)) {
            let message = "inherit_user_shell must be false: a user's shell changes what runs";
            self.error(Manifest::Launch, path, "identity.hermetic", message);
        }
        self.search_path();
        let path = "/environment/denied_variables";
        // Text denies no variable, and what denies none is no more than unwise.
        let denied = match self.at(Manifest::Launch, path) {
            Some(Value::String(_) | Value::Object(_)) => Vec::new(),
            _ => self.list(path),
        };
        let lacks: Vec<&str> = launch::TOOL_VARIABLES
            .into_iter()
            .filter(|variable| !denied.iter().any(|name| name.as_str() == Some(variable)))
            .collect();
        if !lacks.is_empty() {
            let message = format!("deny these variables too: {}", lacks.join(", "));
            self.warning(Manifest::Launch, path, "identity.tool-variables", &message);
        }
    }

    fn search_path(&mut self) {
        let path = "/environment/path";
        let mut seen = BTreeSet::new();
        for (place, folder) in self.list(path).into_iter().enumerate() {
            let here = format!("{path}/{place}");
            if !seen.insert(folder.to_string()) {
                let message = format!("{folder} stands here a second time: remove it");
                self.error(Manifest::Launch, &here, "identity.path-once", &message);
            }
            let Some(folder) = folder.as_str() else {
                let message = "a folder is named by text: write its path";
                self.warning(Manifest::Launch, &here, "identity.path-of-text", message);
                continue;
            };
            let lower = folder.to_lowercase();
            if lower.contains("homebrew") || lower.contains("/nix") {
                let message = format!("{folder} belongs to a user's package manager");
                self.warning(Manifest::Launch, &here, "identity.path-of-user", &message);
            }
        }
    }

    /// What a list of the launch manifest names. What says nothing names nothing; what else is no list
    /// of names cannot be shown to be right.
    fn list(&mut self, path: &str) -> Vec<Value> {
        match self.at(Manifest::Launch, path) {
            Some(Value::Array(items)) if items.iter().all(is_name) => items.clone(),
            Some(value) if says_something(value) => {
                self.error(Manifest::Launch, path, "identity.list", "this must be a list of names");
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Names of engines on surfaces that people see, and where one is documented.
    fn engine_names(&mut self) {
        let surfaces = [(Manifest::Service, "/display_name"), (Manifest::Launch, "/display_name")];
        let more = launch::SURFACES.map(|path| (Manifest::Launch, path));
        for (manifest, path) in surfaces.into_iter().chain(more) {
            let shown = self.text(manifest, path).to_lowercase();
            if let Some(engine) = ENGINE_NAMES.into_iter().find(|engine| shown.contains(engine)) {
                let message =
                    format!("upstream identity {engine} shows here: show the product's own name");
                self.error(manifest, path, "identity.upstream-leak", &message);
            }
        }
        let path = "/bundle_identity/upstream_engine";
        if self.at(Manifest::Launch, path).is_some_and(says_something) {
            let message =
                "an upstream engine is named: let it show in licences and notices of origin only";
            self.warning(Manifest::Launch, path, "identity.upstream-engine", message);
        }
    }

    fn denials(&mut self) {
        let path = "/capabilities/denied";
        let denied = self.at(Manifest::Service, path).and_then(Value::as_array);
        let denies = |name: &Value| name.as_str() == Some(service::UPSTREAM_LEAK);
        let is_denied =
            |denied: &Vec<Value>| denied.iter().all(is_name) && denied.iter().any(denies);
        if !denied.is_some_and(is_denied) {
            let message = format!("a product must deny itself {}", service::UPSTREAM_LEAK);
            self.error(Manifest::Service, path, "identity.denies-upstream-leak", &message);
        }
    }
}

fn found(manifest: Manifest, path: &str, rule: &'static str, message: &str) -> AuditFinding {
    AuditFinding { manifest, finding: Finding::new(rule, path, message) }
}

/// Whether an item of a list can be a name: it is neither a list nor an object itself.
fn is_name(item: &Value) -> bool {
    !item.is_array() && !item.is_object()
}

/// An id or name without case and without the marks that ids divide words by.
fn normal(text: &str) -> String {
    text.to_lowercase().replace(['-', '_', '.'], "")
}
