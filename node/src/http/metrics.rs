//! Metrics in the Prometheus text format.

use std::fmt::Write as _;

use axum::body::Body;
use axum::http::Response;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use srcos_schemas::status::{MetricFact, MetricKind};

pub(super) fn response(facts: &[MetricFact]) -> axum::response::Response {
    let mut response = Response::new(Body::from(text(facts)));
    let prometheus = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, prometheus);
    response
}

/// The facts as text; those of one name must follow each other.
fn text(facts: &[MetricFact]) -> String {
    let mut text = String::new();
    let mut name = "";
    for fact in facts {
        if fact.name != name {
            name = &fact.name;
            let kind = match fact.kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
            };
            let help = fact.help.replace('\\', "\\\\").replace('\n', "\\n");
            // Writing to a String does not fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        }
        text.push_str(name);
        for (place, (key, value)) in fact.labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let separator = if place == 0 { '{' } else { ',' };
            let _ = write!(text, "{separator}{key}=\"{value}\"");
        }
        if !fact.labels.is_empty() {
            text.push('}');
        }
        let _ = writeln!(text, " {}", fact.value);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn values_of_one_name_share_their_help() {
        let fact = |lane: &str, value| MetricFact {
            name: "srcos_objects".into(),
            help: "objects\nlive".into(),
            kind: MetricKind::Gauge,
            labels: BTreeMap::from([("lane".to_owned(), lane.to_owned())]),
            value,
        };
        let plain = MetricFact { labels: BTreeMap::new(), name: "up".into(), ..fact("", 1.5) };
        assert_eq!(
            text(&[fact("normal", 2.0), fact("a\"b", 3.0), plain]),
            "# HELP srcos_objects objects\\nlive\n# TYPE srcos_objects gauge\n\
             srcos_objects{lane=\"normal\"} 2\nsrcos_objects{lane=\"a\\\"b\"} 3\n\
             # HELP up objects\\nlive\n# TYPE up gauge\nup 1.5\n"
        );
    }
}
