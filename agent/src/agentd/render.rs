//! Configuration from a template in the signed image and the data of a signed intent.

use std::error::Error as _;

use kiln_model::intent::MachineConfig;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, Value, context};

use crate::cmdline::BootParameters;

/// What a template sees: `machine` (name, mac), `interfaces`, `vars`.
pub fn values(parameters: &BootParameters, config: &MachineConfig) -> Value {
    context! {
        machine => context! {
            name => parameters.machine.as_str(),
            mac => parameters.mac.to_string(),
        },
        interfaces => Value::from(Serde(&config.interfaces)),
        vars => Value::from(Serde(&config.vars)),
    }
}

/// Renders a template; a value that is not there is a mistake, never an empty text.
pub fn render(name: &str, template: &str, values: &Value) -> Result<String, String> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let syntax = SyntaxConfig::builder().keep_trailing_newline(true).build().map_err(|e| e.to_string())?;
    environment.set_syntax(syntax);
    let rendered = environment.render_named_str(name, template, values);
    rendered.map_err(|error| {
        let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        format!("{error}{source}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Value {
        let parameters = BootParameters {
            server: "10.0.0.1:80".parse().expect("address"),
            token: "0".repeat(32),
            machine: "r1".parse().expect("name"),
            mac: "52:54:00:00:00:01".parse().expect("address"),
            address: "10.0.0.2/24".parse().expect("address"),
            gateway: None,
        };
        let config = serde_json::json!({
            "interfaces": {"eth1": ["10.1.0.1/30"]},
            "vars": {"asn": 65001, "peers": [{"address": "10.1.0.2", "asn": 65002}]},
        });
        values(&parameters, &serde_json::from_value(config).expect("config"))
    }

    #[test]
    fn a_routers_configuration_is_rendered() {
        let template = "hostname {{ machine.name }}\nrouter bgp {{ vars.asn }}\
                        {%- for p in vars.peers %}\n neighbor {{ p.address }} remote-as {{ p.asn }}{% endfor %}\n! {{ interfaces.eth1[0] }}\n";
        let text = render("frr.conf", template, &example()).expect("good");
        assert_eq!(
            text,
            "hostname r1\nrouter bgp 65001\n neighbor 10.1.0.2 remote-as 65002\n! 10.1.0.1/30\n"
        );
    }

    #[test]
    fn what_is_missing_is_named_and_never_empty() {
        let error = render("frr.conf", "a\nrouter bgp {{ vars.as }}", &example()).expect_err("a mistake");
        assert!(error.contains("frr.conf:2"), "{error}");
        assert!(render("x", "{% if", &example()).is_err());
    }
}
