//! Tokens: their form, how one is made, and the file with their hashes. Owns the comparison; knows no client.
//!
//! A token is 32 random bytes. It cannot be guessed, so one round of SHA-256 is enough for the file, and a
//! wrong token costs no more than a hash.

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use elbus_plugin_api::PluginError;
use ring::{
    digest,
    rand::{SecureRandom, SystemRandom},
};
use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// What a token begins with, so that one that is found somewhere can be recognised.
pub(crate) const PREFIX: &str = "elbus_";
const SECRET_BYTES: usize = 32;
/// What a hash in the file begins with.
const ALGORITHM: &str = "sha256:";
/// Maximum length of the file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Maximum length of the name of a token.
const MAX_NAME_BYTES: usize = 64;

/// The SHA-256 of a token.
type Hash = [u8; 32];

/// The tokens of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tokens(HashMap<Hash, String>);

/// A token of the file, by which its connections are found when it is removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownToken {
    pub(crate) name: String,
    hash: Hash,
}

impl Tokens {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, others than its owner can change it, or a line is no token.
    pub(crate) fn read(path: &Path) -> Result<Self, PluginError> {
        let refuse = |why: String| PluginError::of_key("tokens_file", why);
        Self::parse(&read(path).map_err(refuse)?).map_err(|why| refuse(format!("{path:?}, {why}")))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, hash) = parse_line(line).map_err(|why| format!("line {}: {why}", index + 1))?;
            if tokens.insert(hash, name).is_some() {
                return Err(format!("line {}: the token is listed twice", index + 1));
            }
        }
        Ok(Tokens(tokens))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the token of the file that `text` is. Takes the same time for every wrong one: what is looked
    /// up is a hash, of which a client can choose no part.
    pub(crate) fn find(&self, text: &str) -> Option<KnownToken> {
        let hash = hash_of(text)?;
        self.0.get(&hash).map(|name| KnownToken { name: name.clone(), hash })
    }

    /// Returns whether the file still has this token, by this name.
    pub(crate) fn contain(&self, token: &KnownToken) -> bool {
        self.0.get(&token.hash) == Some(&token.name)
    }
}

/// A token that is valid until the instance stops, by its hash.
pub(crate) struct StartToken(Hash);

impl StartToken {
    /// Makes a token. Also returns its text.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(crate) fn new() -> Result<(Self, String), PluginError> {
        let text = random_token()?;
        let hash = hash_of(&text).ok_or_else(|| PluginError::new("cannot make a token"))?;
        Ok((StartToken(hash), text))
    }

    pub(crate) fn is(&self, text: &str) -> bool {
        // as in `Tokens::find`: what is compared is a hash, of which a client can choose no part
        hash_of(text) == Some(self.0)
    }
}

/// A new token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// The token, which the client presents. It is stored nowhere.
    pub token: String,
    /// The line for `tokens_file`.
    pub line: String,
}

/// Makes a token.
///
/// # Errors
/// The name is no name of a token, or the system has no random numbers.
///
/// # Examples
/// ```
/// let made = elbus_http::make_token("panel")?;
/// assert!(made.token.starts_with("elbus_") && made.line.starts_with("panel sha256:"));
/// # Ok::<(), elbus_plugin_api::PluginError>(())
/// ```
pub fn make_token(name: &str) -> Result<NewToken, PluginError> {
    check_name(name).map_err(PluginError::new)?;
    let token = random_token()?;
    let hash = hash_of(&token).ok_or_else(|| PluginError::new("cannot make a token"))?;
    let line = format!("{name} {ALGORITHM}{}", HEXLOWER.encode(&hash));
    Ok(NewToken { token, line })
}

fn random_token() -> Result<String, PluginError> {
    let mut secret = [0; SECRET_BYTES];
    let filled = SystemRandom::new().fill(&mut secret);
    filled.map_err(|_| PluginError::new("cannot make a token: the system has no random numbers"))?;
    Ok(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&secret)))
}

/// Returns the hash of a token; `None` if the text has not the form of one.
fn hash_of(text: &str) -> Option<Hash> {
    let secret = text.strip_prefix(PREFIX)?;
    let decoded = BASE64URL_NOPAD.decode(secret.as_bytes()).ok()?;
    if decoded.len() != SECRET_BYTES {
        return None;
    }
    digest::digest(&digest::SHA256, text.as_bytes()).as_ref().try_into().ok()
}

fn parse_line(line: &str) -> Result<(String, Hash), String> {
    let (name, hash) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    check_name(name)?;
    let hash = hash.trim().strip_prefix(ALGORITHM).and_then(|text| HEXLOWER.decode(text.as_bytes()).ok());
    let hash = hash.and_then(|hash| hash.try_into().ok());
    let expected = "expected NAME sha256:HASH, as `elbusd --make-token NAME` prints it";
    Ok((name.to_owned(), hash.ok_or(expected)?))
}

fn check_name(name: &str) -> Result<(), String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.chars().all(is_part) {
        let shown: String = name.chars().take(MAX_NAME_BYTES).collect();
        return Err(format!(
            "{shown:?} is no name of a token: expected 1 to {MAX_NAME_BYTES} letters, digits, dots, hyphens, \
             underscores or @"
        ));
    }
    Ok(())
}

/// Reads the file. A user who can change it can connect under every token, so only its owner may change it,
/// and that is root or the user of the broker. It contains hashes, so others may read it.
fn read(path: &Path) -> Result<String, String> {
    let refuse = |error: io::Error| format!("cannot read {path:?}: {error}");
    // opening a FIFO would block until a writer opens it
    let file = File::options().read(true).custom_flags(NONBLOCK).open(path).map_err(refuse)?;
    let metadata = file.metadata().map_err(refuse)?;
    if !metadata.is_file() {
        return Err(format!("cannot read {path:?}: it must be a regular file"));
    }
    let mode = metadata.permissions().mode();
    if mode & 0o022 != 0 {
        let mode = mode & 0o7777;
        return Err(format!("{path:?} can be changed by other users (mode {mode:04o}); set mode 0640"));
    }
    let own = rustix::process::geteuid().as_raw();
    if ![0, own].contains(&metadata.uid()) {
        let uid = metadata.uid();
        return Err(format!("{path:?} belongs to uid {uid}; it must belong to root or to uid {own}"));
    }
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(refuse)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("{path:?} is longer than {MAX_FILE_BYTES} bytes"));
    }
    Ok(text)
}

const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::fs;

    fn write(folder: &Path, text: &str) -> std::path::PathBuf {
        let path = folder.join("tokens");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        path
    }

    #[test]
    fn a_token_is_found_by_its_hash_only() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (make_token("one").unwrap(), make_token("other@plant").unwrap());
        assert_eq!(one.token.len(), PREFIX.len() + 43);
        assert!(!one.line.contains(&one.token));
        let path = write(folder.path(), &format!("# a comment\n\n{}\n  {}  \n", one.line, other.line));
        let tokens = Tokens::read(&path).unwrap();
        assert_eq!((tokens.len(), tokens.find(&one.token).unwrap().name.as_str()), (2, "one"));
        assert_eq!(tokens.find(&other.token).unwrap().name, "other@plant");
        let hash = one.line.split_once(' ').unwrap().1;
        let mut changed = one.token.clone();
        changed.replace_range(10..11, if &changed[10..11] == "A" { "B" } else { "A" });
        for wrong in ["", "one", hash, PREFIX, &changed, &one.token[..20], &format!("{}A", one.token)] {
            assert_eq!(tokens.find(wrong), None, "{wrong}");
        }
        // a password that was hashed by hand is no token
        let weak = digest::digest(&digest::SHA256, b"secret");
        let path = write(folder.path(), &format!("weak sha256:{}", HEXLOWER.encode(weak.as_ref())));
        assert_eq!(Tokens::read(&path).unwrap().find("secret"), None);
        // a token is known by its name as well
        let known = tokens.find(&one.token).unwrap();
        let renamed = Tokens::parse(&one.line.replace("one", "two")).unwrap();
        assert!(tokens.contain(&known) && !renamed.contain(&known));
    }

    #[test]
    fn errors_name_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let line = make_token("a").unwrap().line;
        let long = format!("{} {}", "n".repeat(65), line.split_once(' ').unwrap().1);
        for (text, expected) in [
            ("a", "line 1: expected NAME sha256:HASH"),
            ("\n\na sha256:12", "line 3: expected NAME sha256:HASH"),
            ("a md5:0123", "line 1: expected NAME"),
            ("a/b sha256:00", "line 1: \"a/b\" is no name of a token"),
            (&long, "line 1: \"nnn"),
            (&format!("{line}\n{line}"), "line 2: the token is listed twice"),
        ] {
            let path = write(folder.path(), text);
            let error = Tokens::read(&path).unwrap_err().to_string();
            let place = format!("tokens_file: {path:?}, ");
            assert!(error.starts_with(&place) && error[place.len()..].starts_with(expected), "{error}");
        }
        assert!(make_token("").is_err() && make_token("a b").is_err());
    }

    #[test]
    fn a_file_that_others_can_change_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), "");
        for mode in [0o660, 0o602, 0o622] {
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let error = Tokens::read(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("(mode {mode:04o}); set mode 0640")), "{error}");
        }
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(Tokens::read(&path).unwrap().len(), 0);
        let long = write(folder.path(), &"#".repeat(MAX_FILE_BYTES as usize + 1));
        assert!(Tokens::read(&long).unwrap_err().to_string().ends_with("is longer than 1048576 bytes"));
        for path in [folder.path(), Path::new("/dev/zero")] {
            let error = Tokens::read(path).unwrap_err().to_string();
            assert!(error.ends_with("it must be a regular file"), "{error}");
        }
        if rustix::process::geteuid().is_root() {
            let path = write(folder.path(), "");
            std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
            let error = Tokens::read(&path).unwrap_err().to_string();
            assert!(error.ends_with("belongs to uid 12345; it must belong to root or to uid 0"), "{error}");
        }
    }
}
