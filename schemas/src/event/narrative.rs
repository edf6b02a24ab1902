//! Gives words to explanation codes: the registry's texts, with the particulars of what happened.

use super::model::{Event, Narrative, Text};
use crate::explanation::Explanation;

/// What is particular about one decision.
#[derive(Debug, Clone, Copy)]
pub struct Particulars<'a> {
    /// Who, as people know it.
    pub actor: &'a str,
    /// What was asked for.
    pub operation: &'a str,
    /// Class of the thing it was asked for.
    pub target_class: &'a str,
    /// Rule that decided.
    pub rule: &'a str,
}

/// The narrative of a decision under a code: what happened and to whom, how much harm it may mean,
/// why, and what to do.
pub fn narrate(code: &Explanation, of: Particulars<'_>) -> Narrative {
    let why = format!("{} Rule {} decided.", code.default_why, of.rule);
    Narrative {
        summary: summary(code, of),
        risk: code.risk,
        why: Text::or(why, code.title.as_str()),
        next_action: code.default_next_action.clone(),
        drilldown_refs: Vec::new(),
    }
}

fn summary(code: &Explanation, of: Particulars<'_>) -> Text {
    let Particulars { actor, operation, target_class, .. } = of;
    let summary = format!("{} {actor}: {operation} on {target_class}.", code.default_summary);
    Text::or(summary, code.title.as_str())
}

/// The narrative that needs no words of the event's author: from the registry where the event's code
/// is known, otherwise from class and outcome alone.
pub fn generic(event: &Event) -> Narrative {
    let risk = event.operator_narrative.risk;
    if let Some((code, particulars)) = particulars(event, None) {
        return Narrative { risk, ..narrate(code, particulars) };
    }
    Narrative {
        summary: unknown_summary(event),
        risk,
        why: Text::or("", "The reason is withheld at this clearance."),
        next_action: Text::or("", "Ask somebody with the clearance to look at the event."),
        drilldown_refs: Vec::new(),
    }
}

/// The summary of [`generic`], with another operation in the place of the event's own where one is given.
pub fn generic_summary(event: &Event, operation: Option<&str>) -> Text {
    match particulars(event, operation) {
        Some((code, particulars)) => summary(code, particulars),
        None => unknown_summary(event),
    }
}

fn particulars<'a>(
    event: &'a Event,
    operation: Option<&'a str>,
) -> Option<(&'static Explanation, Particulars<'a>)> {
    let decision = event.decision.as_ref()?;
    let code = crate::explanation::find(decision.explanation_code.as_str())?;
    let particulars = Particulars {
        actor: event.actor.actor_type.as_str(),
        operation: operation.unwrap_or(decision.operation.as_str()),
        target_class: decision.target_class.as_str(),
        rule: decision.policy_rule.as_str(),
    };
    Some((code, particulars))
}

fn unknown_summary(event: &Event) -> Text {
    let actor = event.actor.actor_type.as_str();
    let summary =
        format!("A {actor} acted on a {}: {}.", event.subject.subject_type, event.outcome);
    Text::or(summary, "An event.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explanation::REGISTRY;

    #[test]
    fn every_code_of_the_registry_says_what_risk_why_and_what_next() {
        for code in &REGISTRY.codes {
            let narrative = narrate(
                code,
                Particulars {
                    actor: "an indexer",
                    operation: "op",
                    target_class: "class",
                    rule: "r.1",
                },
            );
            for part in ["an indexer", "op", "class"] {
                assert!(narrative.summary.as_str().contains(part), "{}: {narrative:?}", code.code);
            }
            assert!(narrative.why.as_str().contains("r.1"), "{}", code.code);
            assert_eq!(narrative.risk, code.risk);
            assert!(narrative.next_action.as_str().ends_with('.'), "{}", code.code);
        }
    }
}
