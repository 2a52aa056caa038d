//! What the kernel says of the process of a client, beyond its credentials. Reads a small file of it and nothing else.

use std::{fs::File, io::Read};

/// More of such a file is not read.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// The unit of systemd a process belongs to. `None` where there is none, or the process is gone.
pub(super) fn unit_of(pid: i32) -> Option<String> {
    if pid <= 0 {
        return None;
    }
    let mut text = String::new();
    File::open(format!("/proc/{pid}/cgroup")).ok()?.take(MAX_FILE_BYTES).read_to_string(&mut text).ok()?;
    unit_in(&text)
}

/// From lines `number:controllers:/path`: the innermost unit of the unified hierarchy, or of systemd's own.
fn unit_in(cgroups: &str) -> Option<String> {
    let paths = cgroups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        ["", "name=systemd"].contains(&controllers).then_some(path)
    });
    let is_unit = |part: &&str| [".service", ".scope"].iter().any(|end| part.ends_with(end));
    paths.filter_map(|path| path.rsplit('/').find(is_unit)).map(str::to_owned).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_unit() {
        for (cgroups, unit) in [
            ("0::/system.slice/plc.service\n", Some("plc.service")),
            ("0::/system.slice/plc.service/sub\n", Some("plc.service")),
            ("0::/user.slice/user@1.service/app.slice/a.scope\n", Some("a.scope")),
            ("12:cpu:/x.service\n1:name=systemd:/y.service\n0::/\n", Some("y.service")),
            ("0::/init\n", None),
            ("", None),
        ] {
            assert_eq!(unit_in(cgroups).as_deref(), unit, "{cgroups}");
        }
        assert_eq!(unit_of(0), None);
        assert_eq!(unit_of(i32::MAX), None);
    }
}
