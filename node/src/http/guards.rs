//! Who may ask: the checks that stand before every route.
//!
//! A page in a browser on this machine can reach loopback addresses, under its own name if its
//! name server lies (DNS rebinding). So the `Host` must be one of the names of this listener,
//! an `Origin` must be the listener itself, and what is not public needs a token that only files
//! of this user hold.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, HOST, HeaderValue, ORIGIN, X_CONTENT_TYPE_OPTIONS,
};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::reply::Failure;
use super::serve::Caller;
use super::token::Token;
use crate::api::{ApiError, ErrorKind};

/// How a caller reaches the router.
#[derive(Debug, Clone)]
pub enum Access {
    /// Through the unix socket, whose file only this user can open, or from within the process.
    Local,
    /// Through a loopback port, which every program and every web page on the machine can reach.
    Tcp(TcpAccess),
}

/// What a caller through a loopback port must show.
#[derive(Debug, Clone)]
pub struct TcpAccess {
    hosts: Vec<String>,
    token: Token,
}

impl TcpAccess {
    /// The guard of a listener on `address`.
    pub fn new(address: SocketAddr, token: Token) -> Self {
        let port = address.port();
        let mut hosts =
            vec![format!("127.0.0.1:{port}"), format!("localhost:{port}"), format!("[::1]:{port}")];
        let own = address.to_string();
        if !hosts.contains(&own) {
            hosts.push(own);
        }
        Self { hosts, token }
    }

    fn check(&self, request: &Request) -> Result<(), ApiError> {
        let headers = request.headers();
        let mut hosts = headers.get_all(HOST).iter();
        let host = hosts.next().and_then(|host| host.to_str().ok());
        let (Some(host), None) = (host, hosts.next()) else {
            return Err(refused_host("a request must have one Host header"));
        };
        if !self.hosts.iter().any(|known| known.eq_ignore_ascii_case(host)) {
            return Err(refused_host("the Host header names another server"));
        }
        // A request line may name a server too, and must then name this one.
        if let Some(authority) = request.uri().authority()
            && !authority.as_str().eq_ignore_ascii_case(host)
        {
            return Err(refused_host("the request line names another server"));
        }
        for origin in headers.get_all(ORIGIN) {
            let same = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://"));
            if !same.is_some_and(|origin| origin.eq_ignore_ascii_case(host)) {
                return Err(ApiError::new(
                    ErrorKind::Refused,
                    "origin_refused",
                    "requests from pages of other origins are refused",
                    "call the node from a program, or through its unix socket",
                ));
            }
        }
        if self.has_token(request) {
            known(request);
            return Ok(());
        }
        if is_public(request.uri().path()) {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorKind::Unauthorised,
            "token_required",
            "this route needs the bearer token of this data directory",
            "send \"Authorization: Bearer TOKEN\" with the content of http.token, or use node.sock",
        ))
    }

    fn has_token(&self, request: &Request) -> bool {
        let mut values = request.headers().get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return false;
        };
        let Some((scheme, token)) = value.to_str().ok().and_then(|value| value.split_once(' '))
        else {
            return false;
        };
        scheme.eq_ignore_ascii_case("bearer") && self.token.is(token.trim())
    }
}

/// The connection of a request that may pass is no stranger's any more.
fn known(request: &Request) {
    if let Some(caller) = request.extensions().get::<Caller>() {
        caller.is_known_now();
    }
}

fn refused_host(message: &str) -> ApiError {
    ApiError::new(
        ErrorKind::Refused,
        "host_refused",
        message,
        "use the address that the node printed, such as http://127.0.0.1:8765",
    )
}

/// Whether a route shows nothing but a public summary.
fn is_public(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/metrics")
}

/// Lets a request through that may pass, and marks every response as not to be kept.
pub(super) async fn check(
    State(access): State<Arc<Access>>,
    request: Request,
    next: Next,
) -> Response {
    let allowed = match &*access {
        Access::Local => {
            known(&request);
            Ok(())
        }
        Access::Tcp(tcp) => tcp.check(&request),
    };
    let mut response = match allowed {
        Ok(()) => next.run(request).await,
        Err(error) => Failure::from(error).into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
