//! JSON schemas of draft 7, as far as Grafana's use them; a keyword that is not known here fails the check.

use std::fs;

use serde_json::Value;

pub(crate) struct Schema(Value);

impl Schema {
    pub(crate) fn read(name: &str) -> Schema {
        let text = fs::read_to_string(format!("grafana/schema/{name}.jsonschema.json")).unwrap();
        Schema(serde_json::from_str(&text).unwrap())
    }

    /// What is wrong with this value, by one of the definitions.
    pub(crate) fn faults(&self, definition: &str, value: &Value, at: &str) -> Vec<String> {
        let mut faults = Vec::new();
        self.check(&self.0["definitions"][definition], value, at, &mut faults);
        faults
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
        let schema = schema.as_object().unwrap_or_else(|| panic!("{at}: no schema, but {schema}"));
        if is_anything(schema) {
            return;
        }
        for (keyword, said) in schema {
            match keyword.as_str() {
                "$ref" => {
                    let name = said.as_str().and_then(|path| path.strip_prefix("#/definitions/")).unwrap();
                    self.check(&self.0["definitions"][name], value, at, faults);
                }
                "type" if !is_of(value, said.as_str().unwrap()) => faults.push(format!("{at}: {value} is no {said}")),
                "enum" if !said.as_array().unwrap().contains(value) => {
                    faults.push(format!("{at}: {value} is none of {said}"))
                }
                "const" if said != value => faults.push(format!("{at}: {value} is not {said}")),
                "required" => {
                    let missing =
                        said.as_array().unwrap().iter().filter(|name| value.get(name.as_str().unwrap()).is_none());
                    faults.extend(missing.map(|name| format!("{at}: {name} is missing")));
                }
                "properties" => {
                    let known = said.as_object().unwrap().iter();
                    for (name, schema) in known {
                        if let Some(value) = value.get(name) {
                            self.check(schema, value, &format!("{at}.{name}"), faults);
                        }
                    }
                }
                "additionalProperties" => self.check_unnamed(schema, said, value, at, faults),
                "items" => {
                    for (n, value) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(said, value, &format!("{at}[{n}]"), faults);
                    }
                }
                "allOf" => said.as_array().unwrap().iter().for_each(|schema| self.check(schema, value, at, faults)),
                "anyOf" | "oneOf" => {
                    let fits = |schema: &Value| {
                        let mut inner = Vec::new();
                        self.check(schema, value, at, &mut inner);
                        inner.is_empty()
                    };
                    // The SDK has lost what tells some alternatives apart, so several may fit where it says oneOf.
                    if !said.as_array().unwrap().iter().any(fits) {
                        faults.push(format!("{at}: {value} fits none of {said}"));
                    }
                }
                "minLength"
                    if value.as_str().is_some_and(|text| (text.chars().count() as u64) < said.as_u64().unwrap()) =>
                {
                    faults.push(format!("{at}: {value} is shorter than {said}"));
                }
                "minimum" if value.as_f64() < said.as_f64() => faults.push(format!("{at}: {value} is below {said}")),
                "exclusiveMinimum" if value.as_f64() <= said.as_f64() => {
                    faults.push(format!("{at}: {value} is not above {said}"))
                }
                "maximum" if value.as_f64() > said.as_f64() => faults.push(format!("{at}: {value} is above {said}")),
                "exclusiveMaximum" if value.as_f64() >= said.as_f64() => {
                    faults.push(format!("{at}: {value} is not below {said}"))
                }
                "type" | "enum" | "const" | "minLength" | "minimum" | "maximum" | "exclusiveMinimum"
                | "exclusiveMaximum" => {}
                "default" | "description" | "deprecated" | "x-deprecation-message" | "format" => {}
                unknown => panic!("{at}: what does {unknown} mean?"),
            }
        }
    }

    /// Properties that are not listed.
    fn check_unnamed(
        &self,
        schema: &serde_json::Map<String, Value>,
        said: &Value,
        value: &Value,
        at: &str,
        faults: &mut Vec<String>,
    ) {
        let listed = |name: &str| schema.get("properties").is_some_and(|listed| listed.get(name).is_some());
        for (name, value) in value.as_object().into_iter().flatten().filter(|(name, _)| !listed(name)) {
            match said {
                Value::Bool(true) => {}
                Value::Bool(false) => faults.push(format!("{at}: {name} is not known")),
                schema => self.check(schema, value, &format!("{at}.{name}"), faults),
            }
        }
    }
}

/// This is how the SDK writes down what may be anything: an object without any word about what is in it.
fn is_anything(schema: &serde_json::Map<String, Value>) -> bool {
    let says_nothing =
        schema.get("additionalProperties").is_some_and(|said| said.as_object().is_some_and(|s| s.is_empty()));
    says_nothing && schema["type"] == "object" && !schema.contains_key("properties")
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "null" => value.is_null(),
        other => panic!("what is {other}?"),
    }
}
