//! The files of the page, of the JavaScript client and of the sample configurations, which the library
//! contains, and what browsers must know about them. Owns content types and header fields; reads no file.

use elbus_http::{StaticFile, StaticFiles};

/// The page itself, which is also served at `/`.
const INDEX: &str = "/page/index.html";

/// Files with their paths, as `build.rs` lists them.
const FILES: &[(&str, &[u8])] = &include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// What the page can load and connect to: files and the WebSocket of its own origin. A string of the bus that
/// ends up in the document cannot become a script: neither inline scripts nor `innerHTML` work.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

/// The header fields of every file. `nosniff` is the server's.
const FIELDS: [(&str, &str); 5] = [
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("Referrer-Policy", "no-referrer"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
];

/// Returns the files at their paths.
pub(crate) fn files() -> StaticFiles {
    let file = |path, content| StaticFile { path, content_type: content_type(path), content };
    let index = FILES.iter().find(|(path, _)| *path == INDEX).map(|(_, content)| StaticFile {
        path: "/",
        content_type: content_type(INDEX),
        content,
    });
    StaticFiles::new(FILES.iter().map(|(path, content)| file(path, content)).chain(index), &FIELDS)
}

/// Returns the content type of a file, by the end of its name.
fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "webmanifest" => "application/json",
        "svg" => "image/svg+xml; charset=utf-8",
        "png" => "image/png",
        "ico" => "image/vnd.microsoft.icon",
        "woff2" => "font/woff2",
        "md" | "toml" | "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_has_a_path_and_a_type_that_browsers_know() {
        for (path, content) in FILES {
            assert!(
                ["/page/", "/elbus/", "/config/"].iter().any(|folder| path.starts_with(folder)),
                "{path}"
            );
            assert_ne!(content_type(path), "application/octet-stream", "{path}");
            assert!(!content.is_empty(), "{path}");
        }
        for path in [INDEX, "/elbus/index.js", "/elbus/transport/websocket.js", "/config/broker.toml"] {
            assert!(FILES.iter().any(|(other, _)| *other == path), "{path}");
        }
    }

    #[test]
    fn the_page_has_no_inline_script_or_style() {
        for (path, content) in FILES.iter().filter(|(path, _)| path.ends_with(".html")) {
            let text = String::from_utf8_lossy(content);
            for script in text.split("<script").skip(1) {
                let (tag, rest) = script.split_once('>').unwrap_or_default();
                assert!(tag.contains("src=\"/") && rest.starts_with("</script>"), "{path}: <script{tag}>");
            }
            assert!(!text.contains("<style") && !text.contains(" style="), "{path} has inline styles");
        }
    }
}
