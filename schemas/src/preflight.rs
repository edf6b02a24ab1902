//! Capability preflight: may a component start now, and with what.
//!
//! Three documents say it together: what the component declares (a capability contract), which phase
//! boot and session have reached, and what was granted so far. The answer is a grant state that says of
//! every declared capability what holds, why, and what a person can do. Where the documents do not
//! fit each other, or say nothing, the answer is no. ADR 0015 has the reasons.

use serde_json::{Value, json};

use crate::authority::phase::BootPhase;
use crate::canonical;
use crate::time::Timestamp;

/// The rule by which a component is refused before its phase.
pub const PHASE_RULE: &str = "urn:srcos:policy-rule:boot-phase-gate";

/// The rule by which a broker does what was denied to the component itself.
pub const BROKER_RULE: &str = "urn:srcos:policy-rule:broker-fallback";

/// The rule by which nothing is given that nobody granted.
pub const UNGRANTED_RULE: &str = "urn:srcos:policy-rule:no-grant-no-capability";

/// What came out.
#[derive(Debug, Clone, PartialEq)]
pub struct Preflight {
    /// Whether the component may start.
    pub outcome: Outcome,
    /// What holds of each capability: a document of the contract `capability-grant-state`.
    pub grant_state: Value,
}

/// Whether a component may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With everything that it declares, if need be through a broker.
    Ready,
    /// Without something; what it does then is its own matter.
    Limited(String),
    /// Not in this phase of boot and session.
    PhaseIneligible(Refusal),
    /// It lacks something, and its contract says that it does not start then.
    Incomplete(Refusal),
}

/// Why a component may not start, and what a person can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why not.
    pub why: String,
    /// What to do.
    pub hint: String,
}

/// Whether the phase lets a component start.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Gate {
    Open,
    Degraded(String),
    Shut(Refusal),
}

/// Answers whether a component may start.
///
/// The documents hold under their contracts, in either profile; they are read as what they are.
pub fn preflight(contract: &Value, phase: &Value, grants: &Value, now: Timestamp) -> Preflight {
    let gate = gate(contract, phase);
    let stale = mismatch(contract, phase, grants);
    let component = text(contract, "componentRef");
    let mut states = Vec::new();
    let mut lacking = Vec::new();
    for declared in items(contract, "declaredCapabilities") {
        let declared = Declared::of(declared);
        let mut state = match (&gate, &stale) {
            (Gate::Shut(refusal), _) => declared.not_yet(component, refusal),
            (_, Some(why)) => declared.ungranted(component, why),
            _ => declared.granted(contract, component, grants),
        };
        if declared.fallback != "skip" && !is_served(&state) {
            lacking.push(declared.name.to_owned());
        }
        if let (Gate::Degraded(why), Some("granted")) = (&gate, state["decision"].as_str()) {
            state["decision"] = json!("degraded");
            state["fallback"] = json!("degraded");
            state["remediationHint"] = json!(why);
        }
        states.push(state);
    }
    let outcome = outcome(contract, gate, stale, &lacking);
    Preflight { outcome, grant_state: document(contract, phase, grants, states, now) }
}

fn outcome(contract: &Value, gate: Gate, stale: Option<String>, lacking: &[String]) -> Outcome {
    let why = match gate {
        Gate::Shut(refusal) => return Outcome::PhaseIneligible(refusal),
        Gate::Degraded(why) => Some(why),
        Gate::Open => None,
    };
    let lack = (!lacking.is_empty()).then(|| {
        let because = stale.map(|why| format!(": {why}")).unwrap_or_default();
        format!("it lacks {}{because}", lacking.join(", "))
    });
    let Some(why) = lack.or(why) else { return Outcome::Ready };
    match text(contract, "degradedModePolicy") {
        "continue-limited" => Outcome::Limited(why),
        policy => Outcome::Incomplete(Refusal {
            why: format!("{why}, and its contract says {policy}"),
            hint: "grant what is lacking, as the remediationHint of each capability says, and ask again"
                .to_owned(),
        }),
    }
}

/// Whether a capability is there, from the component's own grant or through somebody else.
fn is_served(state: &Value) -> bool {
    matches!(state["decision"].as_str(), Some("granted" | "degraded"))
}

/// Why the grants do not speak of this contract, boot or session.
fn mismatch(contract: &Value, phase: &Value, grants: &Value) -> Option<String> {
    if text(grants, "contractRef") != text(contract, "id") {
        return Some("the grants are those of another contract".to_owned());
    }
    if text(grants, "bootId") != text(phase, "bootId") {
        return Some("the grants are those of another boot".to_owned());
    }
    let (granted, present) = (text(grants, "sessionId"), text(phase, "sessionId"));
    if !granted.is_empty() && granted != present {
        return Some("the grants are those of another session".to_owned());
    }
    None
}

fn gate(contract: &Value, phase_state: &Value) -> Gate {
    let component = text(contract, "componentRef");
    let (phase, minimum) = (text(phase_state, "phase"), text(contract, "minimumBootPhase"));
    let named = |list: &str| {
        items(phase_state, list).find(|entry| {
            text(entry, "componentRef") == component || entry.as_str() == Some(component)
        })
    };
    // Who stands in both lists is blocked.
    if let Some(entry) = named("blockedComponents") {
        return Gate::Shut(blocked(entry, component, phase, minimum));
    }
    let known = |name| BootPhase::named(name).unwrap_or(BootPhase::Unknown);
    if !known(phase).permits(known(minimum)) {
        return Gate::Shut(Refusal {
            why: format!("{component} may start from {minimum} on, and the phase is {phase}"),
            hint: match phase {
                // Logging in or unlocking leads out of neither.
                "recovery-session" => {
                    "finish the recovery and start the device normally, and ask again".to_owned()
                }
                "degraded-session" => {
                    "find out what degrades the session, mend it, and ask again".to_owned()
                }
                "unknown" => way_to("unknown"),
                _ => way_to(minimum),
            },
        });
    }
    let allowed = named("allowedComponents");
    let verdict = text(phase_state, "phaseVerdict");
    if allowed.is_none() && matches!(verdict, "not-ready" | "recovery-only" | "unknown") {
        let made_for_recovery = verdict == "recovery-only" && minimum == "recovery-session";
        if !made_for_recovery {
            return Gate::Shut(Refusal {
                why: format!(
                    "{phase} is {verdict}, and {component} is not among those allowed in it"
                ),
                hint: match (verdict, phase) {
                    ("recovery-only", _) | (_, "recovery-session") => {
                        "finish the recovery and start the device normally, or have the component \
                         allowed in recovery"
                    }
                    ("unknown", _) => "find out which phase boot and session are in, and ask again",
                    _ => "wait until the phase is ready, or have the component allowed in it",
                }
                .to_owned(),
            });
        }
    }
    let degraded = verdict == "degraded"
        || allowed.is_some_and(|entry| entry.is_object() && text(entry, "state") != "allowed");
    if degraded {
        return Gate::Degraded(format!("in {phase} not everything works: {}", way_to(minimum)));
    }
    Gate::Open
}

/// Why a component that is listed as blocked may not start. What the list says comes first.
fn blocked(entry: &Value, component: &str, phase: &str, minimum: &str) -> Refusal {
    let required = match text(entry, "requiredPhase") {
        "" | "unknown" => minimum,
        required => required,
    };
    let state = match text(entry, "state") {
        "" => "blocked",
        state => state,
    };
    let reason = match text(entry, "reason") {
        "" => String::new(),
        reason => format!(": {reason}"),
    };
    let said = text(entry, "remediationHint");
    let hint = if !said.is_empty() {
        said.to_owned()
    } else if state == "quarantined" {
        "find out why it was quarantined, and release it".to_owned()
    } else {
        way_to(required)
    };
    Refusal { why: format!("{component} is {state} in {phase}{reason}"), hint }
}

/// What a person does to get to a phase.
fn way_to(phase: &str) -> String {
    match phase {
        "sealed-boot" | "pre-login" => "wait until the device has finished booting, and ask again",
        "post-login-locked" => "log in, and ask again",
        "unlocked-user-session" | "degraded-session" => {
            "log in and unlock the session, and ask again"
        }
        "recovery-session" => "start a recovery session, and ask again",
        _ => "find out which phase boot and session are in, and ask again",
    }
    .to_owned()
}

/// A capability as its contract declares it.
struct Declared<'a> {
    name: &'a str,
    required_for: &'a str,
    fallback: &'a str,
    impact: &'a str,
}

impl<'a> Declared<'a> {
    /// A bare name says nothing of a fallback, so it has none.
    fn of(item: &'a Value) -> Self {
        let or = |said: &'a str, otherwise: &'a str| if said.is_empty() { otherwise } else { said };
        Self {
            name: item.as_str().unwrap_or_else(|| text(item, "capability")),
            required_for: or(text(item, "requiredFor"), "an undeclared purpose"),
            fallback: or(text(item, "fallback"), "unavailable"),
            impact: or(text(item, "userVisibleImpact"), "What needs this does not work."),
        }
    }

    fn state(
        &self,
        component: &str,
        decision: &str,
        source: &str,
        rule: &str,
        hint: &str,
    ) -> Value {
        json!({
            "capability": self.name,
            "requestedOperation": format!("use for {}", self.required_for),
            "subjectRef": component,
            "objectRef": format!("urn:srcos:capability:{}", self.name),
            "grantSource": source,
            "decision": decision,
            "policyRuleRef": rule,
            "fallback": self.fallback,
            "userVisibleImpact": if decision == "granted" { "None." } else { self.impact },
            "remediationHint": hint,
        })
    }

    /// Before its phase nobody has decided anything: it is unavailable, not denied.
    fn not_yet(&self, component: &str, refusal: &Refusal) -> Value {
        let why = refusal.why.trim_end_matches('.');
        let hint = format!("phase-ineligible: {why}; {}", refusal.hint);
        self.state(component, "unavailable", "unavailable", PHASE_RULE, &hint)
    }

    fn ungranted(&self, component: &str, why: &str) -> Value {
        let hint = format!("{why}: have it granted for this contract, boot and session");
        self.state(component, "unknown", "unavailable", UNGRANTED_RULE, &hint)
    }

    /// What the grants say; of several entries for one capability the least permissive holds.
    fn granted(&self, contract: &Value, component: &str, grants: &Value) -> Value {
        let entry = items(grants, "capabilityStates")
            .filter(|entry| text(entry, "capability") == self.name)
            .max_by_key(|entry| strictness(text(entry, "decision")));
        let Some(entry) = entry else {
            return self.ungranted(component, "nobody has granted or denied it");
        };
        let decision = text(entry, "decision");
        if decision == "denied"
            && let Some(brokers) = brokers(contract, self.name, entry)
        {
            let hint = format!("it is denied to the component itself: ask {brokers} to do it");
            let mut state = self.state(component, "degraded", "broker", BROKER_RULE, &hint);
            state["fallback"] = json!("degraded");
            return keep(state, entry, &["requestedOperation", "subjectRef", "objectRef"]);
        }
        let hint = match decision {
            "granted" => "Nothing has to be done.",
            "degraded" => "Only part of it works; the rule says which.",
            "ask" => "A person is asked: answer, and ask again.",
            "denied" => "Change the rule that denies it, or go on without.",
            "unavailable" => "It is not there; find out why, and ask again.",
            _ => "Nobody knows whether it is granted; have it decided.",
        };
        let source = if decision == "granted" { "policy" } else { "unavailable" };
        let mut state = self.state(component, decision, source, UNGRANTED_RULE, hint);
        if decision == "granted" {
            // Holds: `state` makes an object. Instead of what is granted nothing else is done.
            state.as_object_mut().map(|members| members.remove("fallback"));
        }
        let told = [
            "requestedOperation",
            "subjectRef",
            "objectRef",
            "grantSource",
            "policyRuleRef",
            "userVisibleImpact",
            "remediationHint",
        ];
        keep(state, entry, &told)
    }
}

/// Takes over what an entry of the grants says already.
fn keep(mut state: Value, entry: &Value, members: &[&str]) -> Value {
    for member in members {
        let said = text(entry, member);
        if !said.is_empty() {
            state[*member] = json!(said);
        }
    }
    state
}

fn strictness(decision: &str) -> u8 {
    match decision {
        "granted" => 0,
        "degraded" => 1,
        "ask" => 2,
        "unavailable" => 3,
        "denied" => 5,
        _ => 4,
    }
}

/// The brokers that can do what is denied to the component itself, in words.
///
/// A broker whose name shares a word with the capability is meant for it. A browser's child has no
/// other way out than its brokers, so any of them is asked, as is the only one that there is. What a
/// broker itself denied stays denied.
fn brokers(contract: &Value, capability: &str, entry: &Value) -> Option<String> {
    let kind = text(contract, "componentKind");
    if kind == "broker" || text(entry, "grantSource") == "broker" {
        return None;
    }
    let all: Vec<&str> = items(contract, "requiredBrokers").filter_map(Value::as_str).collect();
    let wanted = words(capability);
    let meant: Vec<&str> = all
        .iter()
        .copied()
        .filter(|broker| words(broker).iter().any(|word| wanted.contains(word)))
        .collect();
    let chosen = if !meant.is_empty() {
        meant
    } else if kind == "browser-child" || all.len() == 1 {
        all
    } else {
        Vec::new()
    };
    (!chosen.is_empty()).then(|| chosen.join(" or "))
}

/// The words of a name, without those that names of any kind share.
fn words(name: &str) -> Vec<String> {
    name.to_lowercase()
        .split(|letter: char| !letter.is_alphanumeric())
        .filter(|word| word.len() > 2)
        .filter(|word| !["broker", "capability", "component", "srcos", "urn"].contains(word))
        .map(str::to_owned)
        .collect()
}

fn document(
    contract: &Value,
    phase: &Value,
    grants: &Value,
    states: Vec<Value>,
    now: Timestamp,
) -> Value {
    let epoch = match text(grants, "permissionEpoch") {
        "" => "unknown",
        epoch => epoch,
    };
    let about =
        json!([text(contract, "id"), text(phase, "bootId"), text(phase, "sessionId"), states]);
    json!({
        "id": canonical::derived_id("urn:srcos:capability-grant-state:preflight-", &about, 20),
        "type": "CapabilityGrantState",
        "specVersion": "v0.1",
        "contractRef": text(contract, "id"),
        "observedAt": now,
        "bootId": text(phase, "bootId"),
        "sessionId": text(phase, "sessionId"),
        "permissionEpoch": epoch,
        "capabilityStates": states,
    })
}

fn text<'a>(document: &'a Value, member: &str) -> &'a str {
    document.get(member).and_then(Value::as_str).unwrap_or_default()
}

fn items<'a>(document: &'a Value, member: &str) -> impl Iterator<Item = &'a Value> {
    document.get(member).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests;
