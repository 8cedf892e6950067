//! `docs/openapi.json`, read off the routes and the types of their handlers; and what must hold of every route.

use super::codes::CODES;
use super::route::Listed;
use super::types::{
    AdoptRequest, Adopted, AskRequest, Failure, OwnDenial, QuarantineAnswer, QuarantineRequest, RequestAnswer,
};
use super::{own, own_quarantine, own_requests, server};
use crate::policy::verbs::{TABLE, Verb};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What is known of a route by the types of its handler, and schemas of all types so far.
pub(super) struct Operation {
    parameters: Vec<Value>,
    body: Option<Value>,
    /// What is answered, by its type.
    answers: Map<String, Value>,
    /// The handler has what it is asked on decided.
    pub(super) asks: bool,
    /// Of what comes in, and of what goes out.
    reads: SchemaGenerator,
    writes: SchemaGenerator,
}

impl Operation {
    fn new() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
            })
        };
        Self {
            parameters: Vec::new(),
            body: None,
            answers: Map::new(),
            asks: false,
            reads: settings().for_deserialize().into_generator(),
            writes: settings().for_serialize().into_generator(),
        }
    }

    /// A number in the path.
    pub(super) fn number(&mut self) {
        self.parameters.push(json!({
            "name": "id", "in": "path", "required": true, "schema": { "type": "integer", "format": "int64" }
        }));
    }

    /// The query.
    pub(super) fn query<T: JsonSchema>(&mut self) {
        let schema = T::json_schema(&mut self.reads).to_value();
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        for (name, mut schema) in schema["properties"].as_object().cloned().unwrap_or_default() {
            let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            self.parameters.push(json!({
                "name": name,
                "in": "query",
                "required": required.contains(&json!(name)),
                "description": description.unwrap_or_else(|| panic!("{name} is not described")),
                "schema": schema,
            }));
        }
    }

    /// The body.
    pub(super) fn body<T: JsonSchema>(&mut self) {
        self.body = Some(self.reads.subschema_for::<T>().to_value());
    }

    /// The answer, or one of those that there are.
    pub(super) fn answer<T: JsonSchema>(&mut self, content: &'static str) {
        let schema = self.writes.subschema_for::<T>().to_value();
        self.answers.insert(content.to_owned(), json!({ "schema": schema }));
    }

    /// The route, as OpenAPI has it.
    fn finish(&mut self, method: &str, path: &str, socket: &str, verb: Verb, on: &str) -> Value {
        let row = verb.row();
        let answers = std::mem::take(&mut self.answers);
        assert!(!answers.is_empty(), "{method} {path} answers nothing");
        let words = path.split(['/', '{', '}', '-']).filter(|word| !word.is_empty());
        let id: Vec<&str> = [socket].into_iter().chain([method]).chain(words).collect();
        let mut operation = json!({
            "operationId": id.join("_").to_lowercase(),
            "tags": [socket],
            "summary": format!("Asks for `{}`{on}: {}.", row.name, row.says),
            "x-guard-action": row.name,
            "responses": {
                "200": { "description": "It is so, or it was done.", "content": answers },
                "default": { "$ref": "#/components/responses/Refusal" },
            },
        });
        if !self.parameters.is_empty() {
            operation["parameters"] = Value::Array(std::mem::take(&mut self.parameters));
        }
        if let Some(body) = self.body.take() {
            operation["requestBody"] =
                json!({ "required": true, "content": { "application/json": { "schema": body } } });
        }
        self.asks = false;
        operation
    }
}

/// Where a listed route is decided, in words.
fn decided_on(route: &Listed) -> &'static str {
    if route.each { ", on what it names" } else { " on this host" }
}

/// The routes of the self-service socket, which hyper serves without handlers whose types could be asked.
fn own_route(method: &str, path: &str, to: &mut Operation) {
    match (method, path) {
        ("POST", own::ADOPT) => {
            to.body::<AdoptRequest>();
            to.answer::<Adopted>("application/json");
        }
        ("POST", own_requests::PATH) => {
            to.body::<AskRequest>();
            to.answer::<RequestAnswer>("application/json");
        }
        ("GET", "/v1/requests/{id}") => {
            to.number();
            to.parameters.push(json!({
                "name": "wait", "in": "query", "required": false, "schema": { "type": "boolean" },
                "description": "At the self-service socket: answer when the request is decided, or after a minute.",
            }));
            to.answer::<RequestAnswer>("application/json");
        }
        ("POST", own_quarantine::PATH) => {
            to.body::<QuarantineRequest>();
            to.answer::<QuarantineAnswer>("application/json");
        }
        ("GET", own_requests::DENIAL) => to.answer::<OwnDenial>("application/json"),
        other => panic!("{other:?} has no description"),
    }
}

fn document() -> Value {
    let mut to = Operation::new();
    let mut paths: Map<String, Value> = Map::new();
    let method_of = |method: &str| method.to_lowercase();
    for route in server::routes().listed {
        (route.describe)(&mut to);
        assert_eq!(to.asks, route.each, "{} {}: who has it decided?", route.method, route.path);
        let operation = to.finish(route.method, route.path, "admin", route.verb, decided_on(&route));
        let methods = paths.entry(route.path).or_insert_with(|| json!({}));
        assert!(methods[method_of(route.method)].is_null(), "{} is there twice", route.path);
        methods[method_of(route.method)] = operation;
    }
    for (method, path, verb) in own::ROUTES {
        own_route(method, path, &mut to);
        let operation = to.finish(method, path, "self", *verb, "");
        let there = &mut paths.entry(*path).or_insert_with(|| json!({}))[method_of(method)];
        if there.is_null() {
            *there = operation;
        } else {
            both(there, &operation);
        }
    }
    let refusal = to.writes.subschema_for::<Failure>().to_value();
    let mut schemas = to.reads.take_definitions(true);
    for (name, schema) in to.writes.take_definitions(true) {
        let before = schemas.insert(name.clone(), schema.clone());
        assert!(before.is_none_or(|before| before == schema), "{name} goes in and out in two shapes");
    }
    let codes: Vec<&str> = CODES.iter().map(|(code, _, _)| *code).collect();
    schemas["Failure"]["properties"]["code"]["enum"] = json!(codes);
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Guard",
            "version": "1",
            "summary": "HTTP and JSON over two unix sockets of the agent.",
            "description": "See docs/api.md. Fields are only ever added; `schema` in an answer names its shape. The host part of a URL is ignored.",
            "license": { "name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT" },
        },
        "servers": [{ "url": "http://guard", "description": "/run/guard/admin.sock" }],
        "tags": [
            { "name": "admin", "description": "/run/guard/admin.sock: root, and accounts that have roles." },
            { "name": "self", "description": "/run/guard/self.sock: everybody, about themselves." },
        ],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {
                "Refusal": {
                    "description": "It is not so, or it was not done.",
                    "content": { "application/json": { "schema": refusal } },
                },
            },
        },
    });
    tidy(&mut document);
    // Whether objects keep the order in which they were made depends on who else is compiled.
    document.sort_all_objects();
    document
}

/// One operation that both sockets have: it is the same, but for what can be asked besides.
fn both(there: &mut Value, own: &Value) {
    for same in ["responses", "requestBody", "x-guard-action"] {
        assert_eq!(there[same], own[same], "{}", own["operationId"]);
    }
    let append = |to: &mut Value, more: Value| match to {
        Value::Array(list) if !list.contains(&more) => list.push(more),
        _ => {}
    };
    append(&mut there["tags"], json!("self"));
    for parameter in own["parameters"].as_array().into_iter().flatten() {
        append(&mut there["parameters"], parameter.clone());
    }
}

/// Takes out what means something in Rust only.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(text)) = map.get_mut("description") {
                if text.starts_with("[`") && text.ends_with("::SCHEMA`].") {
                    "Names the shape of this value.".clone_into(text);
                }
                *text = text.replace("[`", "`").replace("`]", "`");
            }
            map.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

/// Compares a file with what it should hold, or writes that.
fn agrees(name: &str, wanted: &str) {
    if std::env::var_os("GUARD_BLESS").is_some() {
        std::fs::write(docs(name), wanted).unwrap();
    }
    let found = std::fs::read_to_string(docs(name)).unwrap_or_default();
    assert!(found == wanted, "docs/{name} is out of date: run the test with GUARD_BLESS=1");
}

#[test]
fn the_document_agrees_with_the_routes() {
    agrees("openapi.json", &(serde_json::to_string_pretty(&document()).unwrap() + "\n"));
}

/// Every `$ref` of a value.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(map) => {
            found.extend(map.get("$ref").and_then(Value::as_str));
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn what_the_document_refers_to_is_in_it() {
    let document = document();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 50, "{}", found.len());
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

#[test]
fn no_route_is_without_an_action() {
    // By construction: a route is made with its action, and nothing is routed in another way.
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api");
    let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    for path in paths.filter(|path| path.is_file()) {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        for way in [".route(", "Router::new()", ".nest(", ".route_service("] {
            let allowed = matches!(name.as_str(), "route.rs" | "openapi.rs");
            assert!(
                allowed || !text.contains(way),
                "{name} has {way}: add the route to Routes, with its action"
            );
        }
    }
    let listed = server::routes().listed;
    assert!(listed.len() > 20);
    for route in &listed {
        let row = route.verb.row();
        assert!(row.askers.contains(&crate::policy::verbs::Asker::User), "{}: {}", route.path, row.name);
        // What changes something is no `view`.
        assert_eq!(
            route.verb == Verb::View,
            route.method == "GET" && route.verb != Verb::Selftest,
            "{}",
            route.path
        );
        let on_machine = row.targets.contains(&crate::policy::verbs::Target::Machine);
        assert!(route.each || on_machine, "{}: {} is on no machine", route.path, row.name);
    }
    // And no action is without a route; those about quarantine belong to another module.
    for row in
        TABLE.iter().filter(|row| !matches!(row.verb, Verb::Quarantine | Verb::Release | Verb::Inspect))
    {
        let asked = listed.iter().any(|route| route.verb == row.verb)
            || own::ROUTES.iter().any(|(_, _, verb)| *verb == row.verb);
        assert!(asked, "nothing asks for {}", row.name);
    }
}

/// A text with what stands between two marks exchanged.
fn between(text: &str, name: &str, block: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("api.md has no {begin}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("api.md has no {end}"));
    format!("{before}{begin}{block}{end}{after}")
}

#[test]
fn the_page_agrees_with_the_routes() {
    let mut admin = String::from("| request | asks for |\n|---|---|\n");
    for route in server::routes().listed {
        let on = if route.each { ", on what it names" } else { "" };
        let _ = writeln!(admin, "| `{} {}` | `{}`{on} |", route.method, route.path, route.verb.name());
    }
    let mut own = String::from("| request | asks for |\n|---|---|\n");
    for (method, path, verb) in own::ROUTES {
        let _ = writeln!(own, "| `{method} {path}` | `{}` |", verb.name());
    }
    let mut codes = String::from("| code | HTTP status | meaning |\n|---|---|---|\n");
    for (code, status, meaning) in CODES {
        let _ = writeln!(codes, "| `{code}` | {status} | {meaning} |");
    }
    let page = std::fs::read_to_string(docs("api.md")).unwrap_or_default();
    let page = between(&page, "admin routes", &admin);
    let page = between(&page, "self-service routes", &own);
    agrees("api.md", &between(&page, "codes", &codes));
}
