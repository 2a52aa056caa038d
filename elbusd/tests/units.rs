//! Access rules by the systemd unit of a client's process, over real sockets. Needs to create control groups,
//! as root usually can; otherwise the test is skipped with a message.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::{
    path::{Path, PathBuf},
    process::Command,
};
use support::{
    daemon::{BOTH, Daemon},
    plugin_source,
};

/// The address to which the child process connects, and the name under which it registers.
const CLIENT: &str = "ELBUS_TEST_CLIENT";

/// A control group in each hierarchy that determines units. Removed when dropped.
struct Group(Vec<PathBuf>);

impl Group {
    /// Creates the group below the root of the hierarchies, or returns why it cannot.
    fn make(path: &str) -> Result<Self, String> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").map_err(|error| error.to_string())?;
        let mut group = Group(Vec::new());
        for line in mounts.lines() {
            let fields: Vec<_> = line.split(' ').collect();
            let [_, place, kind, options, ..] = fields[..] else { continue };
            let tells_units = kind == "cgroup2" || (kind == "cgroup" && options.contains("name=systemd"));
            if tells_units {
                let folder = Path::new(place).join(path);
                std::fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
                group.0.push(folder);
            }
        }
        if group.0.is_empty() {
            Err("no hierarchy of control groups is mounted".to_owned())
        } else {
            Ok(group)
        }
    }

    /// Returns the code that a client in this group receives when it registers.
    fn connect(&self, daemon: &Daemon, name: &str) -> String {
        let enter = "for group; do echo $$ > \"$group/cgroup.procs\" || exit 9; done; exec \"$PROGRAM\" --exact \
                     client_in_another_process --nocapture";
        let mut command = Command::new("sh");
        command.args(["-c", enter, "sh"]).args(&self.0).env("PROGRAM", std::env::current_exe().unwrap());
        command.current_dir(daemon.path(".")).env(CLIENT, format!("{} {name}", daemon.address()));
        let output = command.output().unwrap();
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{stdout} {}", String::from_utf8_lossy(&output.stderr));
        stdout
            .lines()
            .find_map(|line| line.split_once("answer: "))
            .map(|(_, answer)| answer.to_owned())
            .unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for folder in self.0.iter().rev() {
            // its processes have ended
            std::fs::remove_dir(folder).unwrap();
        }
    }
}

/// Not a test: run by the process that connects from within the group.
#[test]
fn client_in_another_process() {
    let Ok(asked) = std::env::var(CLIENT) else { return };
    let (address, name) = asked.rsplit_once(' ').unwrap();
    let answer = match elbus_client::blocking::Client::builder(name).connect(address) {
        Ok(_) => "registered".to_owned(),
        Err(error) => error.to_string(),
    };
    println!("answer: {answer}");
}

#[test]
fn rules_restrict_names_to_the_processes_of_a_unit() {
    let unit = format!("elbus-test-{}.service", std::process::id());
    let container = format!("elbus-test-{}.scope", std::process::id());
    let made = Group::make(&unit).and_then(|group| Ok((group, Group::make(&container)?)));
    let (group, other) = match made {
        Ok(made) => made,
        Err(why) => return eprintln!("skipped: cannot create a control group: {why}"),
    };
    // a unit can create groups within its own
    let within = Group::make(&format!("{container}/{unit}")).unwrap();
    for code in BOTH {
        let plugin = |name: &str| plugin_source(code, name);
        let daemon = Daemon::start_config(&format!(
            "[[plugin]]\nname = \"local\"\n{}\nconfig = {{ path = \"bus.sock\", timeout_seconds = 600.0 }}\n\
             [[plugin]]\nname = \"access\"\n{}\n[plugin.config]\n\
             [[plugin.config.client]]\nname = \"plc\"\nwho = [{{ unit = \"{unit}\" }}]\n",
            plugin("unix"),
            plugin("acl"),
        ));
        assert_eq!(group.connect(&daemon, "plc"), "registered");
        for denied in [&other, &within] {
            let answer = denied.connect(&daemon, "plc");
            assert!(answer.contains("denied"), "{answer}");
        }
        daemon.wait_for_log("client does not match `who` of [[client]] \"plc\" (broker.toml:11)");
    }
    drop(within);
}
