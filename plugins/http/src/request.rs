//! HTTP requests: reading them within limits, and the fields in them that have a meaning here. Owns the
//! limits; decides nothing about who may connect, or which files there are.

use data_encoding::BASE64;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::refusal::{Refusal, Status};

/// Maximum length of the request, in bytes.
pub(crate) const MAX_REQUEST_BYTES: usize = 8 * 1024;
/// Maximum number of header fields.
const MAX_FIELDS: usize = 64;
/// The end of a request.
const END: &[u8] = b"\r\n\r\n";
/// The version of the WebSocket protocol.
const VERSION: &str = "13";
/// Length of the key of a request before its encoding.
const KEY_BYTES: usize = 16;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    /// To open a WebSocket connection.
    Upgrade(Box<UpgradeRequest>),
    /// For a file.
    File(FileRequest),
}

/// A request for a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileRequest {
    /// The path, without the query.
    pub(crate) path: String,
    /// Whether only the head of the response is wanted.
    pub(crate) is_head: bool,
    /// `If-None-Match`: the versions that the client has.
    pub(crate) versions: Vec<String>,
    /// Whether the client sends no further request over the connection.
    pub(crate) closes: bool,
}

/// A request to open a WebSocket connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UpgradeRequest {
    /// The path, without the query.
    pub(crate) path: String,
    /// The query, without the question mark; empty without one.
    pub(crate) query: String,
    /// `Host`: what the client believes to be connected to.
    pub(crate) host: String,
    /// `Origin`: the origin of the page; programs that are no browsers send none.
    pub(crate) origin: Option<String>,
    /// `Sec-WebSocket-Key`.
    pub(crate) key: String,
    /// `Sec-WebSocket-Protocol`: all elements.
    pub(crate) protocols: Vec<String>,
    /// The token of `Authorization: Bearer`.
    pub(crate) bearer: Option<String>,
    /// `Cookie`: all of them, as name and value.
    pub(crate) cookies: Vec<(String, String)>,
    /// `X-Forwarded-For`: all elements.
    pub(crate) forwarded_for: Vec<String>,
    /// Whether a proxy has added a field that says so.
    pub(crate) is_forwarded: bool,
}

/// Why there is no request.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The client has closed the connection, or it failed, before it sent anything.
    Gone,
    /// The client speaks TLS, and this port does not.
    Tls,
    /// The request is refused.
    Refused(Refusal),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Failure::Refused(refusal)
    }
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Failure::Gone
    }
}

/// Reads a request. `text` is what the client has sent already, and afterwards what it has sent after its
/// request. `serves_files` is whether a request that opens no WebSocket connection can have a meaning.
///
/// # Errors
/// The connection ends, or the request is too long or has no meaning.
pub(crate) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    text: &mut Vec<u8>,
    serves_files: bool,
) -> Result<Request, Failure> {
    let mut searched = 0;
    loop {
        if text.first() == Some(&TLS_HANDSHAKE) {
            return Err(Failure::Tls);
        }
        let tail = text.get(searched..).unwrap_or_default();
        let found = tail.windows(END.len()).position(|window| window == END);
        if let Some(length) = found.map(|at| searched + at + END.len()).filter(|it| *it <= MAX_REQUEST_BYTES)
        {
            let ahead = text.split_off(length);
            let request = std::mem::replace(text, ahead);
            return Ok(parse(&request, serves_files)?);
        }
        // a byte at a time must not make the search quadratic
        searched = text.len().saturating_sub(END.len() - 1);
        let limit = MAX_REQUEST_BYTES.saturating_sub(text.len()) as u64;
        if stream.take(limit).read_buf(text).await? == 0 {
            if limit == 0 {
                let why = format!("the request has more than {MAX_REQUEST_BYTES} bytes");
                return Err(Refusal::new(Status::FieldsTooLarge, why).into());
            }
            return Err(Failure::Gone);
        }
    }
}

/// The first byte of a TLS connection.
const TLS_HANDSHAKE: u8 = 0x16;

/// Parses a complete request.
pub(crate) fn parse(text: &[u8], serves_files: bool) -> Result<Request, Refusal> {
    let bad = |why: String| Refusal::new(Status::BadRequest, why);
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    match request.parse(text) {
        Ok(httparse::Status::Complete(length)) if length == text.len() => {}
        // an empty line without CR: a proxy can take it for the end of the request, or not
        Ok(httparse::Status::Complete(_)) => {
            return Err(bad("an empty line within the request; lines must end with CR LF".to_owned()));
        }
        Ok(httparse::Status::Partial) => return Err(bad("incomplete HTTP request".to_owned())),
        Err(httparse::Error::TooManyHeaders) => {
            let why = format!("the request has more than {MAX_FIELDS} header fields");
            return Err(Refusal::new(Status::FieldsTooLarge, why));
        }
        Err(error) => return Err(bad(format!("not an HTTP request: {error}"))),
    }
    let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    let is_head = method == "HEAD" && serves_files;
    if method != "GET" && !is_head {
        let method: String = method.chars().take(64).collect();
        let why = format!("method {method:?}; a WebSocket connection begins with GET");
        return Err(Refusal::new(Status::MethodNotAllowed, why));
    }
    if request.version != Some(1) {
        return Err(bad("HTTP/1.0; a WebSocket connection needs HTTP/1.1".to_owned()));
    }
    let fields = Fields(request.headers);
    // a body would be taken for the next request, or for frames
    let has_body =
        fields.has("transfer-encoding") || fields.one("content-length")?.is_some_and(|length| length != "0");
    if has_body {
        return Err(bad("a GET request has no body".to_owned()));
    }
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if serves_files && (is_head || !fields.has_element("upgrade", "websocket")) {
        return parse_file_request(path, is_head, &fields).map(Request::File);
    }
    if !fields.has_element("upgrade", "websocket") || !fields.has_element("connection", "upgrade") {
        let why = "this address serves WebSocket connections only".to_owned();
        return Err(Refusal::new(Status::UpgradeRequired, why));
    }
    if fields.one("sec-websocket-version")? != Some(VERSION) {
        let why = format!("WebSocket version is not {VERSION}");
        return Err(Refusal::new(Status::UpgradeRequired, why));
    }
    let key = fields.one("sec-websocket-key")?.unwrap_or_default();
    if BASE64.decode(key.as_bytes()).map(|key| key.len()) != Ok(KEY_BYTES) {
        return Err(bad("Sec-WebSocket-Key is missing or invalid".to_owned()));
    }
    let host = fields.host()?;
    let bearer = fields.one("authorization")?.and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    let cookies = fields.all("cookie")?.flat_map(|value| value.split(';'));
    let cookies = cookies.filter_map(|pair| pair.trim().split_once('='));
    Ok(Request::Upgrade(Box::new(UpgradeRequest {
        path: path.to_owned(),
        query: query.to_owned(),
        host: host.to_owned(),
        origin: fields.one("origin")?.map(str::to_owned),
        key: key.to_owned(),
        protocols: fields.elements("sec-websocket-protocol")?,
        bearer,
        cookies: cookies.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        forwarded_for: fields.elements("x-forwarded-for")?,
        is_forwarded: fields.are_of_proxy(),
    })))
}

/// Parses what a request for a file has.
fn parse_file_request(path: &str, is_head: bool, fields: &Fields<'_>) -> Result<FileRequest, Refusal> {
    fields.host()?;
    Ok(FileRequest {
        path: path.to_owned(),
        is_head,
        versions: fields.elements("if-none-match")?,
        closes: fields.has_element("connection", "close"),
    })
}

/// The header fields of a request.
struct Fields<'a>(&'a [httparse::Header<'a>]);

impl<'a> Fields<'a> {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|field| field.name.eq_ignore_ascii_case(name))
    }

    /// Returns whether a proxy has added any of them.
    fn are_of_proxy(&self) -> bool {
        let of_proxy = ["forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip"];
        self.0
            .iter()
            .map(|field| field.name.to_ascii_lowercase())
            .any(|name| name.starts_with("x-forwarded") || of_proxy.contains(&name.as_str()))
    }

    /// Returns the values of a field.
    fn all(&self, name: &str) -> Result<impl Iterator<Item = &'a str>, Refusal> {
        let fields = self.0.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        let texts: Result<Vec<_>, _> = fields.map(|field| std::str::from_utf8(field.value)).collect();
        let texts = texts
            .map_err(|_| Refusal::new(Status::BadRequest, format!("header field {name:?} is not UTF-8")))?;
        Ok(texts.into_iter().map(str::trim))
    }

    /// Returns the value of a field that must not be repeated: two values could be read differently by a
    /// proxy.
    fn one(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        let mut all = self.all(name)?;
        let first = all.next();
        if all.next().is_some() {
            let why = format!("header field {name:?} is repeated");
            return Err(Refusal::new(Status::BadRequest, why));
        }
        Ok(first)
    }

    /// Returns `Host`, which every request has.
    fn host(&self) -> Result<&'a str, Refusal> {
        let missing = || Refusal::new(Status::BadRequest, "Host is missing".to_owned());
        self.one("host")?.filter(|host| !host.is_empty()).ok_or_else(missing)
    }

    /// Returns the elements of a field that is a list.
    fn elements(&self, name: &str) -> Result<Vec<String>, Refusal> {
        let elements = self.all(name)?.flat_map(|value| value.split(',').map(str::trim));
        Ok(elements.filter(|element| !element.is_empty()).map(str::to_owned).collect())
    }

    fn has_element(&self, name: &str, element: &str) -> bool {
        let elements = self.elements(name).unwrap_or_default();
        elements.iter().any(|other| other.eq_ignore_ascii_case(element))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
