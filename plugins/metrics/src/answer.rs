//! Answers HTTP requests: which paths there are, and who may ask. Reads no body and opens no file.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS},
};
use std::{net::IpAddr, sync::Arc};

use crate::{
    connections::{Phase, Place},
    scrape::Scraper,
};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";
const INDEX: &str = "/metrics: figures in the OpenMetrics format\n/healthz: whether the broker works\n\
                     /readyz: whether all plugins have started\n";

/// The answers of an instance.
pub(crate) struct Answers {
    pub(crate) scraper: Arc<Scraper>,
    /// Names by which clients may address the server, besides addresses and localhost; `None`: any.
    pub(crate) allowed_hosts: Option<Vec<String>>,
}

/// An answer before it has become HTTP.
struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: Bytes,
}

impl Answer {
    fn plain(status: StatusCode, text: impl Into<Bytes>) -> Self {
        Answer { status, content_type: PLAIN, body: text.into() }
    }
}

impl Answers {
    /// Answers a request.
    pub(crate) async fn answer(&self, request: &Request<Incoming>, place: &Place) -> Response<Full<Bytes>> {
        place.set_phase(Phase::Answer);
        let answer = if !self.is_addressed(request.headers()) {
            let text = "unknown host: add its name to allowed_hosts of the plugin metrics\n";
            Answer::plain(StatusCode::MISDIRECTED_REQUEST, text)
        } else if ![Method::GET, Method::HEAD].contains(request.method()) {
            Answer::plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n")
        } else {
            place.set_phase(Phase::Served);
            let answer = self.answer_path(request.uri().path()).await;
            place.set_phase(Phase::Answer);
            answer
        };
        self.scraper.http.answered(answer.status.as_u16());
        respond(answer)
    }

    async fn answer_path(&self, path: &str) -> Answer {
        if path == "/" {
            return Answer::plain(StatusCode::OK, INDEX);
        }
        if !["/metrics", "/healthz", "/readyz"].contains(&path) {
            return Answer::plain(StatusCode::NOT_FOUND, INDEX);
        }
        let Some(scrape) = self.scraper.scrape().await else {
            return Answer::plain(StatusCode::SERVICE_UNAVAILABLE, "the broker does not answer\n");
        };
        match (path, scrape.readiness) {
            ("/metrics", _) => {
                Answer { status: StatusCode::OK, content_type: OPEN_METRICS, body: scrape.text }
            }
            ("/readyz", Err(why)) => {
                Answer::plain(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n"))
            }
            _ => Answer::plain(StatusCode::OK, "ok\n"),
        }
    }

    /// Returns whether the request names this server: a page of another site cannot read a loopback port by
    /// giving its own name the address of this machine.
    fn is_addressed(&self, headers: &HeaderMap) -> bool {
        let Some(allowed) = &self.allowed_hosts else { return true };
        let mut named = headers.get_all(HOST).iter();
        let Some(host) = named.next() else { return true };
        let Ok(host) = host.to_str() else { return false };
        named.next().is_none() && is_allowed(host, allowed)
    }
}

fn is_allowed(host: &str, allowed: &[String]) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || allowed.iter().any(|other| name.eq_ignore_ascii_case(other))
}

fn respond(answer: Answer) -> Response<Full<Bytes>> {
    let Answer { status, content_type, body } = answer;
    // hyper sends the length, but not the body, if the method is HEAD
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let mut set = |name: HeaderName, value| {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    };
    set(CONTENT_TYPE, content_type);
    set(CACHE_CONTROL, "no-store");
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    if status == StatusCode::METHOD_NOT_ALLOWED {
        set(ALLOW, "GET, HEAD");
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_allowed() {
        let allowed = ["metrics.plant".to_owned()];
        for host in
            ["localhost", "LOCALHOST:9464", "127.0.0.1:9464", "[::1]:9464", "metrics.plant:80", "[::1]"]
        {
            assert!(is_allowed(host, &allowed), "{host}");
        }
        for host in ["evil.example", "evil.example:9464", "localhost.evil.example", "", "metrics.plant.evil"]
        {
            assert!(!is_allowed(host, &allowed), "{host}");
        }
    }
}
