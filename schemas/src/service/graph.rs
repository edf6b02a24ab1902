//! The graph of services: who needs, uses and refuses which capability; as a document, as text, and
//! in the languages of two drawing tools.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::{AuthorityDomain, ServiceManifest};

/// `schema_version` of the graph's document.
pub const SCHEMA_VERSION: &str = "sourceos.service-graph.v0.1";

/// Services and how they hang together through capabilities, domains and owners.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceGraph {
    /// Kind of document: [`SCHEMA_VERSION`].
    pub schema_version: String,
    /// How many services there are.
    pub service_count: usize,
    /// The services, in the order in which they were given.
    pub services: Vec<ServiceNode>,
    /// For each authority domain the ids of its services.
    pub authority_domains: BTreeMap<AuthorityDomain, BTreeSet<String>>,
    /// For each owner, as `org/repo`, the ids of its services.
    pub owners: BTreeMap<String, BTreeSet<String>>,
    /// For each capability the ids of the services that name it.
    pub capability_index: BTreeMap<String, CapabilityUse>,
}

/// One service in the graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceNode {
    /// Name for programs.
    pub service_id: String,
    /// Name for people.
    pub display_name: String,
    /// File that the manifest was read from.
    pub manifest: String,
    /// On whose authority it runs.
    pub authority_domain: AuthorityDomain,
    /// Who answers for it, as `org/repo`.
    pub owner: String,
    /// Capabilities that it needs, can use, and must never have.
    pub capabilities: NodeCapabilities,
    /// Whether it emits canonical events.
    pub emits_events: bool,
    /// Whether it leaves an incident bundle.
    pub incident_bundle: bool,
}

/// The capabilities of one service, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCapabilities {
    /// Capabilities that it needs.
    pub required: BTreeSet<String>,
    /// Capabilities that it can use.
    pub optional: BTreeSet<String>,
    /// Capabilities that it must never have.
    pub denied: BTreeSet<String>,
}

/// Which services name a capability, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityUse {
    /// Those that need it.
    pub required_by: BTreeSet<String>,
    /// Those that can use it.
    pub optional_for: BTreeSet<String>,
    /// Those that must never have it.
    pub denied_by: BTreeSet<String>,
}

impl ServiceGraph {
    /// The graph of manifests, each with the name of its file.
    pub fn of<'a>(manifests: impl IntoIterator<Item = (&'a str, &'a ServiceManifest)>) -> Self {
        let mut graph = Self {
            schema_version: SCHEMA_VERSION.to_owned(),
            service_count: 0,
            services: Vec::new(),
            authority_domains: BTreeMap::new(),
            owners: BTreeMap::new(),
            capability_index: BTreeMap::new(),
        };
        for (file, manifest) in manifests {
            graph.add(file, manifest);
        }
        graph.service_count = graph.services.len();
        graph
    }

    fn add(&mut self, file: &str, manifest: &ServiceManifest) {
        let id = &manifest.service_id;
        let owner = format!("{}/{}", manifest.owner.org, manifest.owner.repo);
        let named = &manifest.capabilities;
        let index = &mut self.capability_index;
        for name in &named.required {
            index.entry(name.clone()).or_default().required_by.insert(id.clone());
        }
        for name in &named.optional {
            index.entry(name.clone()).or_default().optional_for.insert(id.clone());
        }
        for name in &named.denied {
            index.entry(name.clone()).or_default().denied_by.insert(id.clone());
        }
        let domain = manifest.authority_domain;
        self.authority_domains.entry(domain).or_default().insert(id.clone());
        self.owners.entry(owner.clone()).or_default().insert(id.clone());
        self.services.push(ServiceNode {
            service_id: id.clone(),
            display_name: manifest.display_name.clone(),
            manifest: file.to_owned(),
            authority_domain: domain,
            owner,
            capabilities: NodeCapabilities {
                required: named.required.iter().cloned().collect(),
                optional: named.optional.iter().cloned().collect(),
                denied: named.denied.iter().cloned().collect(),
            },
            emits_events: manifest.observability.emits_events,
            incident_bundle: manifest.observability.incident_bundle,
        });
    }

    /// In words: a line with the count, then a line for each service.
    pub fn text(&self) -> String {
        let mut text = format!("{} services\n", self.service_count);
        for service in &self.services {
            // Writing to a String does not fail, here and below.
            let _ = writeln!(
                text,
                "{} domain={} owner={} required={} denied={}",
                visible(&service.service_id),
                service.authority_domain,
                visible(&service.owner),
                service.capabilities.required.len(),
                service.capabilities.denied.len()
            );
        }
        text
    }

    /// In the language of Graphviz.
    pub fn dot(&self) -> String {
        let mut text = String::from("digraph services {\n  rankdir=LR;\n");
        let nodes = Nodes::of(self);
        for (domain, ids) in &self.authority_domains {
            let _ = writeln!(text, "  subgraph \"cluster_{domain}\" {{");
            let _ = writeln!(text, "    label=\"{domain}\";");
            for id in ids {
                let (node, name) = (nodes.service(id), quoted_dot(&nodes.label(id)));
                let _ = writeln!(text, "    {node} [shape=box,label=\"{name}\"];");
            }
            text.push_str("  }\n");
        }
        for capability in self.capability_index.keys() {
            let (node, name) = (nodes.capability(capability), quoted_dot(capability));
            let _ = writeln!(text, "  {node} [shape=ellipse,label=\"{name}\"];");
        }
        for edge in self.edges() {
            let style = match edge.kind {
                EdgeKind::Required => "style=solid",
                EdgeKind::Optional => "style=dashed",
                EdgeKind::Denied => "style=dotted,color=red",
            };
            let (from, to) = (nodes.service(edge.service), nodes.capability(edge.capability));
            let kind = edge.kind.word();
            let _ = writeln!(text, "  {from} -> {to} [{style},label=\"{kind}\"];");
        }
        text.push_str("}\n");
        text
    }

    /// In the language of Mermaid.
    pub fn mermaid(&self) -> String {
        let mut text = String::from("flowchart LR\n");
        let nodes = Nodes::of(self);
        for (domain, ids) in &self.authority_domains {
            let _ = writeln!(text, "  subgraph domain_{domain}[\"{domain}\"]");
            for id in ids {
                let (node, name) = (nodes.service(id), quoted_mermaid(&nodes.label(id)));
                let _ = writeln!(text, "    {node}[\"{name}\"]");
            }
            text.push_str("  end\n");
        }
        for capability in self.capability_index.keys() {
            let (node, name) = (nodes.capability(capability), quoted_mermaid(capability));
            let _ = writeln!(text, "  {node}([\"{name}\"])");
        }
        for edge in self.edges() {
            let arrow = match edge.kind {
                EdgeKind::Required => "-->",
                EdgeKind::Optional => "-.->",
                EdgeKind::Denied => "--x",
            };
            let (from, to) = (nodes.service(edge.service), nodes.capability(edge.capability));
            let _ = writeln!(text, "  {from} {arrow}|{}| {to}", edge.kind.word());
        }
        text
    }

    fn edges(&self) -> impl Iterator<Item = Edge<'_>> {
        self.capability_index.iter().flat_map(|(capability, uses)| {
            let required = uses.required_by.iter().map(|id| (id, EdgeKind::Required));
            let optional = uses.optional_for.iter().map(|id| (id, EdgeKind::Optional));
            let denied = uses.denied_by.iter().map(|id| (id, EdgeKind::Denied));
            required.chain(optional).chain(denied).map(move |(service, kind)| Edge {
                service,
                capability,
                kind,
            })
        })
    }
}

#[derive(Clone, Copy)]
enum EdgeKind {
    Required,
    Optional,
    Denied,
}

impl EdgeKind {
    fn word(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Optional => "optional",
            Self::Denied => "denied",
        }
    }
}

struct Edge<'a> {
    service: &'a str,
    capability: &'a str,
    kind: EdgeKind,
}

/// Short names of the nodes in a drawing: names of documents may hold any character, and nothing that
/// a manifest says may become a command of the drawing.
struct Nodes<'a> {
    services: BTreeMap<&'a str, (usize, &'a str)>,
    capabilities: BTreeMap<&'a str, usize>,
}

impl<'a> Nodes<'a> {
    fn of(graph: &'a ServiceGraph) -> Self {
        let named = graph.services.iter().enumerate();
        let capabilities = graph.capability_index.keys().enumerate();
        Self {
            services: named
                .map(|(place, node)| (&*node.service_id, (place, &*node.display_name)))
                .collect(),
            capabilities: capabilities.map(|(place, name)| (&**name, place)).collect(),
        }
    }

    fn service(&self, id: &str) -> String {
        format!("s{}", self.services.get(id).map_or(0, |(place, _)| *place))
    }

    fn label(&self, id: &str) -> String {
        match self.services.get(id) {
            Some((_, name)) if !name.is_empty() => format!("{name} ({id})"),
            _ => id.to_owned(),
        }
    }

    fn capability(&self, name: &str) -> String {
        format!("c{}", self.capabilities.get(name).copied().unwrap_or_default())
    }
}

/// Text with its control characters made visible.
fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Text within the quotes of a DOT string.
fn quoted_dot(text: &str) -> String {
    visible(text).replace('\\', "\\\\").replace('"', "\\\"")
}

/// Text within the quotes of a Mermaid label, where entities stand for what would end it.
fn quoted_mermaid(text: &str) -> String {
    let mut shown = String::new();
    for character in visible(text).chars() {
        match character {
            '"' | '#' | '<' | '>' | '&' | ';' | '`' | '%' | '{' | '}' => {
                let _ = write!(shown, "#{};", u32::from(character));
            }
            other => shown.push(other),
        }
    }
    shown
}
