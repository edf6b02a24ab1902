//! Launch manifests: the executable, the environment and the names under which a product is launched.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::contracts::{Contract, Discriminator, Document, Findings, Origin, Rule};

/// `schema_version` of a launch manifest.
pub const SCHEMA_VERSION: &str = "sourceos.launch_manifest.v0.1";

/// Variables of development tools, by which a user's shell changes what a product runs.
pub const TOOL_VARIABLES: [&str; 6] =
    ["PYTHONPATH", "NODE_PATH", "GEM_HOME", "CARGO_HOME", "JAVA_HOME", "NIX_PATH"];

/// The contract. That names agree between surfaces is asked by [`crate::identity::audit`], which sees
/// the service manifest too.
pub static LAUNCH_MANIFEST: Contract = Contract {
    name: "launch-manifest",
    urn: "urn:srcos:schema:launch-manifest:v0.1",
    file: "sourceos-launch-manifest.schema.json",
    schema: include_str!("../sourceos-launch-manifest.schema.json"),
    discriminator: Discriminator::Member("schema_version", SCHEMA_VERSION),
    profiled: false,
    rules: &[
        Rule {
            name: "launch-manifest.hermetic",
            says: "the user's shell does not reach the process",
            origin: Origin::Ours,
            check: shell_is_not_inherited,
        },
        Rule {
            name: "launch-manifest.path-once",
            says: "each folder stands once in the search path",
            origin: Origin::Ours,
            check: folders_stand_once,
        },
        Rule {
            name: "launch-manifest.variable-allowed-or-denied",
            says: "no variable is both allowed and denied",
            origin: Origin::Ours,
            check: variables_are_one_or_the_other,
        },
        Rule {
            name: "launch-manifest.one-name",
            says: "every surface shows the name of the product",
            origin: Origin::Ours,
            check: surfaces_show_one_name,
        },
    ],
    compiled: Contract::not_compiled(),
};

fn list<'a>(manifest: &'a Value, path: &str) -> impl Iterator<Item = &'a str> {
    let list = manifest.pointer(path).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str)
}

fn shell_is_not_inherited(manifest: &Value, findings: &mut Findings) {
    let path = "/environment/inherit_user_shell";
    if manifest.pointer(path) == Some(&Value::Bool(true)) {
        findings.add(path, "the user's shell can change what runs: say false");
    }
}

fn folders_stand_once(manifest: &Value, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (place, folder) in list(manifest, "/environment/path").enumerate() {
        if !seen.insert(folder) {
            let path = format!("/environment/path/{place}");
            findings.add(path, format!("{folder} stands here a second time: remove it"));
        }
    }
}

fn variables_are_one_or_the_other(manifest: &Value, findings: &mut Findings) {
    let denied: BTreeSet<&str> = list(manifest, "/environment/denied_variables").collect();
    for (place, name) in list(manifest, "/environment/allowed_variables").enumerate() {
        if denied.contains(name) {
            let path = format!("/environment/allowed_variables/{place}");
            findings.add(path, format!("{name} is allowed and denied: take it out of one list"));
        }
    }
}

/// Members of a manifest that must show the name of the product.
pub(crate) const SURFACES: [&str; 5] = [
    "/bundle_identity/expected_process_name",
    "/identity_invariants/dock_name",
    "/identity_invariants/menu_name",
    "/identity_invariants/crash_report_name",
    "/identity_invariants/helper_prefix",
];

fn surfaces_show_one_name(manifest: &Value, findings: &mut Findings) {
    let Some(name) = manifest.get("display_name").and_then(Value::as_str) else { return };
    for path in SURFACES {
        if let Some(shown) = manifest.pointer(path).and_then(Value::as_str)
            && shown != name
        {
            findings
                .add(path, format!("it shows {shown:?} and the product is {name:?}: show that"));
        }
    }
}

/// How a product is launched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaunchManifest {
    /// Kind of document: [`SCHEMA_VERSION`].
    pub schema_version: String,
    /// Name of the product for programs.
    pub product_id: String,
    /// Name of the product for people.
    pub display_name: String,
    /// By which names the system knows it.
    pub bundle_identity: BundleIdentity,
    /// What is executed.
    pub entrypoint: Entrypoint,
    /// What the process gets of its surroundings.
    pub environment: Environment,
    /// Names that each surface must show.
    pub identity_invariants: IdentityInvariants,
    /// What else the document says.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl LaunchManifest {
    /// A manifest of a hermetic launch: nothing of the user's shell, a search path of the system, and one
    /// name on every surface.
    pub fn hermetic(display_name: &str, product_id: &str, absolute_path: &str) -> Self {
        let owned = |names: &[&str]| names.iter().copied().map(str::to_owned).collect();
        let name = display_name.to_owned();
        Self {
            schema_version: SCHEMA_VERSION.to_owned(),
            product_id: product_id.to_owned(),
            display_name: name.clone(),
            bundle_identity: BundleIdentity {
                bundle_id: product_id.to_owned(),
                expected_process_name: name.clone(),
                upstream_engine: None,
                extra: Map::new(),
            },
            entrypoint: Entrypoint {
                absolute_path: absolute_path.to_owned(),
                args: Vec::new(),
                extra: Map::new(),
            },
            environment: Environment {
                inherit_user_shell: false,
                path: owned(&["/usr/bin", "/bin"]),
                allowed_variables: owned(&["HOME", "LANG", "TMPDIR"]),
                denied_variables: Some(owned(&TOOL_VARIABLES)),
                extra: Map::new(),
            },
            identity_invariants: IdentityInvariants {
                dock_name: name.clone(),
                menu_name: name.clone(),
                crash_report_name: name.clone(),
                profile_path_policy: format!(
                    "A profile's path names {name}. It MUST NOT name what {name} is built on."
                ),
                helper_prefix: name,
                extra: Map::new(),
            },
            extra: Map::new(),
        }
    }
}

impl Document for LaunchManifest {
    const CONTRACT: &'static Contract = &LAUNCH_MANIFEST;
}

/// By which names the system knows a product.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BundleIdentity {
    /// Identifier of the installed bundle or package.
    pub bundle_id: String,
    /// Name that the main process must show.
    pub expected_process_name: String,
    /// Engine that it is built on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_engine: Option<String>,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What is executed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entrypoint {
    /// Path of the executable.
    pub absolute_path: String,
    /// Arguments that are always given.
    pub args: Vec<String>,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What a process gets of its surroundings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Whether variables of the user's shell reach it.
    pub inherit_user_shell: bool,
    /// Folders of the search path, in order.
    pub path: Vec<String>,
    /// Variables that may reach it.
    pub allowed_variables: Vec<String>,
    /// Variables that never reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied_variables: Option<Vec<String>>,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Names that each surface must show.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IdentityInvariants {
    /// Name in the launcher or task bar.
    pub dock_name: String,
    /// Name in menus.
    pub menu_name: String,
    /// Name in crash reports.
    pub crash_report_name: String,
    /// What the path of a profile must and must not show.
    pub profile_path_policy: String,
    /// What names of helper processes begin with.
    pub helper_prefix: String,
    /// What else the document says here.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}
