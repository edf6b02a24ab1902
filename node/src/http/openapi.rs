//! The interface described for programs, as OpenAPI 3.1.

use serde_json::{Map, Value, json};

/// One operation: method, path, what it does, query parameters (required ones end in `!`), and
/// the content type of the request body.
pub(super) struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    summary: &'static str,
    query: &'static [&'static str],
    body: Option<&'static str>,
}

const fn read(path: &'static str, summary: &'static str) -> Operation {
    Operation { method: "get", path, summary, query: &[], body: None }
}

/// Every operation that a caller with the token has.
pub(super) const OPERATIONS: &[Operation] = &[
    read("/healthz", "Whether the process answers. Public"),
    read(
        "/readyz",
        "Whether the node can be relied on: 200 healthy or degraded, 503 otherwise. Public",
    ),
    read("/metrics", "Measurements in the Prometheus text format. Public"),
    read("/openapi.json", "This description"),
    read("/lanes", "The state of each lane here and against each peer"),
    read("/lanes/{lane}", "The state of one lane"),
    Operation {
        query: &["prefix", "kind", "label", "limit", "after"],
        ..read("/lanes/{lane}/objects", "A page of the lane's objects; label=KEY=VALUE may repeat")
    },
    Operation {
        query: &["conflicts", "history", "automerge"],
        ..read(
            "/lanes/{lane}/objects/{id}",
            "One object; its ETag is its heads. With automerge=true its document is there too, in base64",
        )
    },
    Operation {
        method: "put",
        body: Some("application/json"),
        ..read(
            "/lanes/{lane}/objects/{id}",
            "Creates or replaces: {kind?, class?, labels?, body, types?, ttl_ms?}, where types is \
             {POINTER: text|counter|null}. \
             If-Match: ETag or If-None-Match: * makes it conditional",
        )
    },
    Operation {
        method: "patch",
        body: Some("application/merge-patch+json"),
        ..read(
            "/lanes/{lane}/objects/{id}",
            "Merges {kind?, class?, labels?, body?, types?} (RFC 7396); \
             add: {POINTER: INTEGER} adds to counters",
        )
    },
    Operation {
        method: "delete",
        query: &["reason!"],
        ..read("/lanes/{lane}/objects/{id}", "Starts the deletion of an object")
    },
    Operation {
        method: "post",
        body: Some("application/json"),
        ..read(
            "/lanes/{lane}/objects:batch",
            "Applies up to 1000 operations, or none: {ops: [{op: put|patch|delete, id, ..}]}; \
             or lines of objects to put, as application/x-ndjson",
        )
    },
    Operation {
        query: &["after", "lane"],
        ..read(
            "/changes",
            "Applied changes as server-sent events, each once and in order; they start after the \
             later of `after` and the Last-Event-ID header, and with the next change without either",
        )
    },
    read("/peers", "Every device that the mesh knows"),
];

/// The description.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = describe(operation);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "srcos-node, local interface",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "On loopback addresses only. Routes that are not public need the \
                            bearer token in the data directory's http.token.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": {
                "type": "object",
                "required": ["error"],
                "properties": {"error": {
                    "type": "object",
                    "required": ["kind", "code", "message", "hint"],
                    "properties": {
                        "kind": {"type": "string"},
                        "code": {"type": "string"},
                        "message": {"type": "string"},
                        "hint": {"type": "string"},
                        "path": {"type": "string"},
                    },
                }},
            }},
        },
        "security": [{"token": []}],
    })
}

fn describe(operation: &Operation) -> Value {
    let in_path = operation
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.split('}').next())
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    let in_query = operation.query.iter().map(|name| {
        let required = name.ends_with('!');
        let name = name.trim_end_matches('!');
        json!({"name": name, "in": "query", "required": required, "schema": {"type": "string"}})
    });
    let error = json!({"description": "What failed, why, and what to do", "content": {
        "application/json": {"schema": {"$ref": "#/components/schemas/Error"}}
    }});
    let mut described = json!({
        "summary": operation.summary,
        "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
        "responses": {"200": {"description": "Done"}, "default": error},
    });
    if let Some(content_type) = operation.body {
        described["requestBody"] = json!({"required": true, "content": {content_type: {}}});
    }
    if matches!(operation.path, "/healthz" | "/readyz" | "/metrics") {
        described["security"] = json!([]);
    }
    described
}
