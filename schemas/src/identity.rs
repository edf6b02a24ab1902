//! The identity audit: whether a service manifest and a launch manifest speak of one product, under one
//! name, launched hermetically, with no name of what it is built on where people look.
//!
//! It judges the pair and holds neither to its schema: a manifest that lacks a member, or has one of
//! another type, is wrong where the audit needs it.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use crate::contracts::{FINDINGS_MAX, Finding};
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
        const UNSAID: &str = "say what a profile's path must not show";
        let path = "/identity_invariants/profile_path_policy";
        match self.at(Manifest::Launch, path) {
            None => self.warning(Manifest::Launch, path, "identity.profile-path", UNSAID),
            Some(Value::String(policy)) => {
                if !policy.contains("MUST NOT") && !policy.contains("must not") {
                    self.warning(Manifest::Launch, path, "identity.profile-path", UNSAID);
                }
            }
            Some(_) => self.error(Manifest::Launch, path, "identity.text", "this must be text"),
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
        let denied = self.strings(path);
        let lacks: Vec<&str> = launch::TOOL_VARIABLES
            .into_iter()
            .filter(|variable| !denied.contains(*variable))
            .collect();
        if !lacks.is_empty() {
            let message = format!("deny these variables too: {}", lacks.join(", "));
            self.warning(Manifest::Launch, path, "identity.tool-variables", &message);
        }
    }

    fn search_path(&mut self) {
        let path = "/environment/path";
        let folders: Vec<Value> = match self.at(Manifest::Launch, path) {
            None => return,
            Some(Value::Array(folders)) => folders.clone(),
            Some(_) => {
                let message = "the search path must be a list of folders";
                return self.error(Manifest::Launch, path, "identity.search-path", message);
            }
        };
        let mut seen = BTreeSet::new();
        for (place, folder) in folders.iter().enumerate() {
            let here = format!("{path}/{place}");
            let Some(folder) = folder.as_str() else {
                let message = "the search path must be a list of folders";
                self.error(Manifest::Launch, &here, "identity.search-path", message);
                continue;
            };
            if !seen.insert(folder) {
                let message = format!("{folder} stands here a second time: remove it");
                self.error(Manifest::Launch, &here, "identity.path-once", &message);
            }
            if folder.contains("homebrew") || folder.contains("/nix") {
                let message = format!("{folder} belongs to a user's package manager");
                self.warning(Manifest::Launch, &here, "identity.path-of-user", &message);
            }
        }
    }

    /// The texts of a list of the launch manifest; what is no list of them is an error of its own.
    fn strings(&mut self, path: &str) -> BTreeSet<String> {
        match self.at(Manifest::Launch, path) {
            None => BTreeSet::new(),
            Some(Value::Array(items)) => {
                items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            Some(_) => {
                self.error(Manifest::Launch, path, "identity.list", "this must be a list of names");
                BTreeSet::new()
            }
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
        let named = match self.at(Manifest::Launch, path) {
            None | Some(Value::Null) => false,
            Some(Value::String(engine)) => !engine.is_empty(),
            Some(_) => {
                return self.error(Manifest::Launch, path, "identity.text", "this must be text");
            }
        };
        if named {
            let message =
                "an upstream engine is named: let it show in licences and notices of origin only";
            self.warning(Manifest::Launch, path, "identity.upstream-engine", message);
        }
    }

    fn denials(&mut self) {
        let path = "/capabilities/denied";
        let denied = self.at(Manifest::Service, path).and_then(Value::as_array);
        let denies = |name: &Value| name.as_str() == Some(service::UPSTREAM_LEAK);
        if !denied.is_some_and(|denied| denied.iter().any(denies)) {
            let message = format!("a product must deny itself {}", service::UPSTREAM_LEAK);
            self.error(Manifest::Service, path, "identity.denies-upstream-leak", &message);
        }
    }
}

fn found(manifest: Manifest, path: &str, rule: &'static str, message: &str) -> AuditFinding {
    AuditFinding { manifest, finding: Finding::new(rule, path, message) }
}

/// An id or name without case and without the marks that ids divide words by.
fn normal(text: &str) -> String {
    text.to_lowercase().replace(['-', '_', '.'], "")
}
