//! Users and groups by name or number. Reads `/etc/passwd` and `/etc/group` and nothing else: what only a
//! directory service knows must be given as a number.

use serde::{Deserialize, Serialize};
use std::{fmt, fs::File, io::Read};

use crate::plugin_error::PluginError;

const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";
/// Largest size of these files.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// A user or a group, as configurations name it: `owner = "bus"`, `owner = 972`.
///
/// # Examples
/// ```
/// use elbus_plugin_api::os::UserOrGroup;
///
/// assert_eq!(UserOrGroup::Number(972).user_id("owner"), Ok(972));
/// assert_eq!(UserOrGroup::Name("root".into()).user_id("owner"), Ok(0));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a name or a number")]
pub enum UserOrGroup {
    /// By number.
    Number(u32),
    /// By name, or by number as text.
    Name(String),
}

/// The members of a group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GroupMembers {
    /// Number of the group, which is the primary group of its users.
    pub gid: u32,
    /// Users who have it in addition to their primary group.
    pub uids: Vec<u32>,
}

impl UserOrGroup {
    /// Returns the number of a user; `key` is the key that an error is about. Reads a file.
    ///
    /// # Errors
    /// No such user, or the file cannot be read.
    pub fn user_id(&self, key: &str) -> Result<u32, PluginError> {
        self.number(key, USERS)
    }

    /// Returns the number of a group, as [`user_id`](Self::user_id).
    ///
    /// # Errors
    /// No such group, or the file cannot be read.
    pub fn group_id(&self, key: &str) -> Result<u32, PluginError> {
        self.number(key, GROUPS)
    }

    /// Returns the group and its members. Reads two files.
    ///
    /// # Errors
    /// No such group, or a file cannot be read. Members that are not users of this machine are ignored.
    pub fn group_members(&self, key: &str) -> Result<GroupMembers, PluginError> {
        let gid = self.group_id(key)?;
        // a group given by number can be missing in the file
        let members = read(key, GROUPS).map(|text| members_of(&text, gid)).unwrap_or_default();
        let users = if members.is_empty() { String::new() } else { read(key, USERS)? };
        Ok(GroupMembers { gid, uids: members.iter().filter_map(|name| number_of(&users, name)).collect() })
    }

    fn number(&self, key: &str, file: &str) -> Result<u32, PluginError> {
        let name = match self {
            UserOrGroup::Number(number) => return Ok(*number),
            UserOrGroup::Name(name) => name,
        };
        if let Ok(number) = name.parse() {
            return Ok(number);
        }
        let kind = if file == USERS { "user" } else { "group" };
        number_of(&read(key, file)?, name).ok_or_else(|| {
            PluginError::of_key(key, format!("no {kind} {name:?} in {file} (a numeric id also works)"))
        })
    }
}

impl fmt::Display for UserOrGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UserOrGroup::Number(number) => number.fmt(f),
            UserOrGroup::Name(name) => f.write_str(name),
        }
    }
}

/// Returns the users of this machine, number and name. Reads a file.
///
/// # Errors
/// The file cannot be read; `key` is the key that the error is about.
pub fn user_names(key: &str) -> Result<Vec<(u32, String)>, PluginError> {
    let text = read(key, USERS)?;
    let users = text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some((fields.nth(1)?.parse().ok()?, name.to_owned()))
    });
    Ok(users.collect())
}

fn read(key: &str, file: &str) -> Result<String, PluginError> {
    let mut text = String::new();
    File::open(file)
        .and_then(|opened| opened.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| PluginError::of_key(key, format!("cannot read {file}: {error}")))?;
    // the last number of a truncated file could be another one
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(PluginError::of_key(key, format!("{file} exceeds {MAX_FILE_BYTES} bytes")));
    }
    Ok(text)
}

/// Finds a number in lines `name:password:number`.
fn number_of(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// Finds the members in lines `name:password:number:member,member`.
fn members_of(text: &str, gid: u32) -> Vec<String> {
    let parse = |line: &str| {
        let mut fields = line.split(':').skip(2);
        let found = fields.next()?.parse() == Ok(gid);
        found.then(|| fields.next().map(str::to_owned))?
    };
    let members = text.lines().find_map(parse).unwrap_or_default();
    members.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_too_long_is_refused_rather_than_cut() {
        let error = read("user", "/dev/zero").unwrap_err();
        assert_eq!(error.to_string(), "user: /dev/zero exceeds 16777216 bytes");
        assert!(read("user", USERS).is_ok());
    }

    #[test]
    fn users_and_groups_are_found_by_name_or_number() {
        let file = "root:x:0:0:root:/root:/bin/sh\nbroken\nbus:x:972:\n";
        assert_eq!((number_of(file, "root"), number_of(file, "bus")), (Some(0), Some(972)));
        assert_eq!((number_of(file, "broken"), number_of(file, "")), (None, None));
        assert_eq!(UserOrGroup::Name("33".into()).user_id("owner"), Ok(33));
        assert_eq!(UserOrGroup::Number(7).group_id("owner"), Ok(7));
        let error = UserOrGroup::Name("no such one".into()).user_id("owner").unwrap_err();
        assert_eq!(
            error.to_string(),
            "owner: no user \"no such one\" in /etc/passwd (a numeric id also works)"
        );
    }

    #[test]
    fn members_of_a_group_are_listed() {
        let file = "wheel:x:10:root,bus\nempty:x:11:\nbroken\n:x:no:a\n";
        assert_eq!(members_of(file, 10), ["root", "bus"]);
        assert_eq!(members_of(file, 11), Vec::<String>::new());
        assert_eq!(members_of(file, 12), Vec::<String>::new());
        let members = UserOrGroup::Number(4_000_000_000).group_members("group").unwrap();
        assert_eq!(members, GroupMembers { gid: 4_000_000_000, uids: vec![] });
        assert!(user_names("user").unwrap().contains(&(0, "root".to_owned())));
    }
}
