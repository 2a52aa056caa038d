//! Files that are served beside a WebSocket: a table that does not change, by path. Owns the responses; reads
//! no file and knows no folder, so no path leads out of the table.

use data_encoding::BASE64URL_NOPAD;
use ring::digest;
use std::{collections::BTreeMap, fmt::Write};

use crate::request::FileRequest;

/// Bytes of the hash in a version.
const VERSION_BYTES: usize = 18;

/// A file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaticFile {
    /// The path at which it is served, such as `/page/style.css`.
    pub path: &'static str,
    /// `Content-Type` of the response, such as `text/css; charset=utf-8`.
    pub content_type: &'static str,
    /// Its content.
    pub content: &'static [u8],
}

/// The files that an instance serves, and the header fields of their responses.
///
/// # Examples
/// ```
/// use elbus_http::{StaticFile, StaticFiles};
///
/// let page = StaticFile { path: "/", content_type: "text/html; charset=utf-8", content: b"<!doctype html>"
/// }; let files = StaticFiles::new([page], &[("Referrer-Policy", "no-referrer")]); assert!(!files.is_empty()
/// && StaticFiles::default().is_empty());
/// ```
#[derive(Debug, Clone, Default)]
pub struct StaticFiles {
    files: BTreeMap<&'static str, Entry>,
    /// The header fields of every response, each with its line end.
    fields: String,
}

#[derive(Debug, Clone)]
struct Entry {
    file: StaticFile,
    /// `ETag`: the beginning of the SHA-256 of the content, in quotes.
    version: String,
}

/// The response to a request for a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileResponse {
    pub(crate) head: String,
    pub(crate) content: &'static [u8],
}

impl StaticFiles {
    /// Creates a table. `fields` are header fields of every response, as name and value. Of several files
    /// with one path, the last one is served.
    pub fn new(files: impl IntoIterator<Item = StaticFile>, fields: &[(&str, &str)]) -> Self {
        let entry = |file: StaticFile| {
            let hash = digest::digest(&digest::SHA256, file.content);
            let part = hash.as_ref().get(..VERSION_BYTES).unwrap_or_default();
            (file.path, Entry { file, version: format!("\"{}\"", BASE64URL_NOPAD.encode(part)) })
        };
        let fields = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        StaticFiles { files: files.into_iter().map(entry).collect(), fields }
    }

    /// Returns whether there is no file: requests that open no WebSocket connection are refused then.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Returns the response to a request; `None` if there is no such file. `closes` is whether the connection
    /// ends with it.
    pub(crate) fn respond(&self, request: &FileRequest, closes: bool) -> Option<FileResponse> {
        let Entry { file, version } = self.files.get(&*request.path)?;
        let is_known = request.versions.iter().any(|known| {
            // a proxy that has compressed the file marks its version as weak
            known == "*" || known.strip_prefix("W/").unwrap_or(known) == version
        });
        let status = if is_known { "304 Not Modified" } else { "200 OK" };
        let mut head = format!("HTTP/1.1 {status}\r\nETag: {version}\r\nCache-Control: no-cache\r\n");
        if !is_known {
            let (content_type, length) = (file.content_type, file.content.len());
            // writing to a string cannot fail
            _ = write!(head, "Content-Type: {content_type}\r\nContent-Length: {length}\r\n");
        }
        head.push_str("X-Content-Type-Options: nosniff\r\n");
        head.push_str(&self.fields);
        head.push_str(if closes { "Connection: close\r\n\r\n" } else { "\r\n" });
        let content = if is_known || request.is_head { &[][..] } else { file.content };
        Some(FileResponse { head, content })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn request(path: &str) -> FileRequest {
        FileRequest { path: path.to_owned(), is_head: false, versions: vec![], closes: false }
    }

    fn files() -> StaticFiles {
        let file = |path, content: &'static [u8]| StaticFile { path, content_type: "text/css", content };
        StaticFiles::new([file("/a.css", b"one"), file("/b.css", b"two")], &[("X-Of-All", "1")])
    }

    fn version_of(response: &FileResponse) -> String {
        response.head.split("ETag: ").nth(1).unwrap().split("\r\n").next().unwrap().to_owned()
    }

    #[test]
    fn a_file_has_its_type_length_version_and_the_fields_of_all() {
        let found = files().respond(&request("/a.css"), false).unwrap();
        assert!(found.head.starts_with("HTTP/1.1 200 OK\r\n") && found.head.ends_with("\r\n\r\n"));
        for field in ["Content-Type: text/css", "Content-Length: 3", "X-Of-All: 1", "Cache-Control: no-cache"]
        {
            assert!(found.head.contains(&format!("\r\n{field}\r\n")), "{field}: {}", found.head);
        }
        assert_eq!(found.content, b"one");
        let closing = files().respond(&request("/a.css"), true).unwrap();
        assert!(closing.head.contains("Connection: close\r\n"), "{}", closing.head);
        let head = files().respond(&FileRequest { is_head: true, ..request("/a.css") }, false).unwrap();
        assert_eq!((head.head, head.content), (found.head, &[][..]));
    }

    #[test]
    fn a_known_version_is_not_sent_again_and_another_content_has_another_version() {
        let (files, with) = (files(), |version: &str| FileRequest {
            versions: vec!["\"other\"".to_owned(), version.to_owned()],
            ..request("/a.css")
        });
        let version = version_of(&files.respond(&request("/a.css"), false).unwrap());
        assert_ne!(version, version_of(&files.respond(&request("/b.css"), false).unwrap()));
        for known in [version.clone(), format!("W/{version}"), "*".to_owned()] {
            let found = files.respond(&with(&known), false).unwrap();
            assert!(found.head.starts_with("HTTP/1.1 304 Not Modified\r\n"), "{}", found.head);
            assert!(found.content.is_empty() && !found.head.contains("Content-Length"), "{}", found.head);
            assert_eq!(version_of(&found), version);
        }
        assert_eq!(files.respond(&with("\"x\""), false).unwrap().content, b"one");
    }

    #[test]
    fn only_the_exact_path_leads_to_a_file() {
        let files = files();
        for path in ["", "/", "a.css", "//a.css", "/./a.css", "/x/../a.css", "/a.css/", "/%61.css", "/A.css"]
        {
            assert_eq!(files.respond(&request(path), false), None, "{path}");
        }
    }
}
