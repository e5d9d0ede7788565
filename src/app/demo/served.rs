//! What a node of the demo serves besides: the page, the list of nodes, and the token it dies of.
//!
//! The demo tells it to its nodes in an environment variable that is no option: outside of the demo none of this exists.

use serde::{Deserialize, Serialize};

use crate::shell::http::{self, OriginRule};

/// Its name does not begin as those of options do, or it would be looked up among them.
pub const VARIABLE: &str = "DEMO_OF_SKEIN";
const PAGE: &str = include_str!("page.html");

/// The variable's value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Served {
    /// This node's name.
    pub name: String,
    /// Good for the life of the process.
    pub token: String,
    /// By which the page's own style and script are known, and nothing else that could slip into it.
    pub nonce: String,
    pub nodes: Vec<Listed>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listed {
    pub name: String,
    /// `host:port`
    pub client: String,
}

/// What `skein serve` has to serve besides; none if it is not a node of the demo.
pub fn of_environment() -> Option<http::Demo> {
    let text = std::env::var(VARIABLE).ok()?;
    let served: Served = serde_json::from_str(&text).ok()?;
    Some(served.into_options())
}

impl Served {
    fn into_options(self) -> http::Demo {
        #[derive(Serialize)]
        struct Entry<'a> {
            #[serde(flatten)]
            node: &'a Listed,
            #[serde(skip_serializing_if = "Option::is_none")]
            token: Option<&'a str>,
        }
        let token_of = |node: &Listed| (node.name == self.name).then_some(self.token.as_str());
        let entries: Vec<_> = self.nodes.iter().map(|node| Entry { node, token: token_of(node) }).collect();
        let clients = || self.nodes.iter().map(|node| node.client.as_str());
        let reached: String = clients().map(|client| format!(" http://{client} ws://{client}")).collect();
        let nonce = &self.nonce;
        http::Demo {
            page: PAGE.replace("__NONCE__", nonce),
            content_security_policy: format!(
                "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; \
                 connect-src 'self'{reached}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            ),
            nodes: serde_json::to_string(&entries).expect("plain strings"),
            origins: OriginRule::new(origins(clients())),
            token: self.token,
        }
    }
}

/// The origins of the nodes' pages, by both names of this machine.
pub fn origins<'a>(clients: impl Iterator<Item = &'a str>) -> Vec<String> {
    clients
        .flat_map(|client| {
            let port = client.rsplit_once(':').map_or("", |(_, port)| port);
            [format!("http://{client}"), format!("http://localhost:{port}")]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served() -> http::Demo {
        let listed = |name: &str, client: &str| Listed { name: name.into(), client: client.into() };
        let nodes = vec![listed("n1", "127.0.0.1:8000"), listed("n2", "127.0.0.1:8001")];
        Served { name: "n2".into(), token: "abc123".into(), nonce: "321cba".into(), nodes }.into_options()
    }

    #[test]
    fn a_node_tells_all_nodes_and_its_own_token_only() {
        let expected = concat!(
            r#"[{"name":"n1","client":"127.0.0.1:8000"},"#,
            r#"{"name":"n2","client":"127.0.0.1:8001","token":"abc123"}]"#
        );
        assert_eq!(served().nodes, expected);
        assert!(served().origins.allows("http://127.0.0.1:8000", "127.0.0.1:8001"));
        assert!(served().origins.allows("http://localhost:8000", "127.0.0.1:8001"));
        assert!(!served().origins.allows("http://127.0.0.1:9000", "127.0.0.1:8001"));
    }

    #[test]
    fn the_page_is_complete_in_itself_and_does_not_give_the_token_away() {
        let served = served();
        assert!(!served.page.contains("__NONCE__"));
        assert!(!served.page.contains("abc123"));
        for element in ["<script", "<style"] {
            assert_eq!(served.page.matches(element).count(), 1, "{element}");
            assert!(served.page.contains(&format!("{element} nonce=\"321cba\"")), "{element}");
        }
        assert!(served.content_security_policy.contains("script-src 'nonce-321cba'"));
        assert!(
            served.content_security_policy.contains("connect-src 'self' http://127.0.0.1:8000 ws://127.0.0.1:8000")
        );
        for elsewhere in ["https://", "src=\"http", "@import", "//cdn"] {
            assert!(!served.page.contains(elsewhere), "{elsewhere}");
        }
        // Inline attributes would need a weaker policy.
        assert!(!served.page.contains(" style=\"") && !served.page.contains(" onclick="));
    }
}
