//! The OpenAPI document, kept as a file beside the code.

use axum::http::header;
use axum::response::{IntoResponse, Response};

const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT).into_response()
}

#[cfg(test)]
mod tests {
    /// Every route stands in the document, and nothing else does.
    #[test]
    fn the_document_names_exactly_the_routes() {
        let document: serde_json::Value = serde_json::from_str(super::DOCUMENT).expect("json");
        let documented: Vec<&String> = document["paths"].as_object().expect("paths").keys().collect();
        let source = include_str!("../api.rs");
        let mut routes: Vec<String> = Vec::new();
        for line in source.lines().take_while(|l| !l.contains(".fallback(")) {
            if let Some(rest) = line.trim().strip_prefix(".route(\"") {
                let path = rest.split('"').next().expect("path");
                routes.push(format!("/api/v1{path}"));
            }
        }
        routes.sort();
        assert_eq!(documented.into_iter().cloned().collect::<Vec<_>>(), routes);
    }
}
