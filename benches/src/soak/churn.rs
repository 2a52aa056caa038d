//! What goes on beside the steady traffic: clients that come and go, that are cut off in the middle of a frame, that never
//! read, and reloads of the configuration.

use elbus_client::{Client, Error, Qos};
use elbus_protocol::handshake::{encode_client_greeting, encode_client_name};
use std::{
    fmt, fs,
    io::Write,
    net::TcpStream,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::task::JoinHandle;

use super::{Chance, End, Plan, fixture::House};
use crate::Failure;

/// Tasks that come and go.
const CHURN: u64 = 4;
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub(super) struct Counts {
    came: AtomicU64,
    cut_off: AtomicU64,
    stuck: AtomicU64,
    reloads: AtomicU64,
    /// Whether the broker can do that.
    has_reload: bool,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |count: &AtomicU64| count.load(Relaxed);
        write!(
            f,
            "{} clients came and went, {} were cut off in the middle of something, {} never read, ",
            of(&self.came),
            of(&self.cut_off),
            of(&self.stuck)
        )?;
        match self.has_reload {
            true => write!(f, "{} reloads of the configuration", of(&self.reloads)),
            false => f.write_str("no reloads: this broker has no config.reload"),
        }
    }
}

pub(super) struct Unrest {
    tasks: Vec<JoinHandle<Result<(), Failure>>>,
    counts: Arc<Counts>,
}

impl Unrest {
    pub(super) async fn begin(plan: &Plan, house: &House, end: &End) -> Result<Self, Failure> {
        let (client, _frames) = Client::connect(&*house.address(0), "soak.watch").await?;
        let methods = client.call(".broker", "method.list", "").await?;
        // msgpack holds texts as they are
        let has_reload = methods.windows(13).any(|bytes| bytes == b"config.reload");
        let counts = Arc::new(Counts { has_reload, ..Counts::default() });
        let mut tasks = vec![];
        for task in 0..CHURN {
            let addresses = [house.address(0), house.address(1)];
            let chance = Chance::new(plan.seed, task);
            tasks.push(tokio::spawn(churn(task, addresses, chance, counts.clone(), end.clone())));
        }
        if has_reload && !plan.reload_every.is_zero() {
            let texts = [house.config_with(true), house.config_with(false)];
            let file = house.folder.join("broker.toml");
            tasks.push(tokio::spawn(reload(
                client,
                file,
                texts,
                plan.reload_every,
                counts.clone(),
                end.clone(),
            )));
        }
        Ok(Unrest { tasks, counts })
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.tasks
            .iter()
            .any(JoinHandle::is_finished)
            .then(|| "what goes on beside has ended too early".into())
    }

    pub(super) async fn finish(self) -> Result<Arc<Counts>, Failure> {
        for task in self.tasks {
            task.await??;
        }
        Ok(self.counts)
    }
}

async fn churn(
    task: u64,
    addresses: [String; 2],
    mut chance: Chance,
    counts: Arc<Counts>,
    end: End,
) -> Result<(), Failure> {
    let mut number = 0u64;
    while !end.has_come() {
        number += 1;
        // names come again, at once or later
        let name = format!("churn.{task}.{}", number % 7);
        let address = &addresses[chance.below(2) as usize];
        let done = match chance.below(20) {
            0 => stuck(&name, address, &mut chance, &counts).await,
            1..=6 => cut_off(&name, address, &mut chance, &counts),
            _ => come_and_go(&name, address, &mut chance, &counts).await,
        };
        if let Err(failure) = done {
            eprintln!("elbus-soak: {name}: {failure}");
            return Err(failure);
        }
        tokio::time::sleep(Duration::from_millis(chance.below(20))).await;
    }
    Ok(())
}

/// Registers, subscribes, sends to itself, and leaves in an orderly way or not.
async fn come_and_go(name: &str, address: &str, chance: &mut Chance, counts: &Counts) -> Result<(), Failure> {
    let (client, mut frames) = loop {
        match Client::builder(name).timeout(PATIENCE).connect(address).await {
            // that of one that has just left
            Err(Error::NameTaken { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
            result => break result?,
        }
    };
    let filters: Vec<String> = (0..chance.below(30)).map(|n| format!("churn/{name}/{n}/#")).collect();
    if !filters.is_empty() {
        client.add_filters(filters).await?;
    }
    let bytes = chance.below(5000) as usize;
    client.send(name, vec![7; bytes], Qos::PROCESSED).await?;
    let arrived = async {
        while let Some(frame) = frames.next().await {
            if frame.sender() == name {
                return frame.payload().len() == bytes;
            }
        }
        false
    };
    if !tokio::time::timeout(PATIENCE, arrived).await? {
        return Err("what it sent to itself did not come".into());
    }
    if chance.below(2) == 0 {
        client.close().await;
    }
    counts.came.fetch_add(1, Relaxed);
    Ok(())
}

/// A connection without anybody who reads it.
fn open(address: &str) -> std::io::Result<Box<dyn Write + Send>> {
    Ok(if address.starts_with('/') {
        Box::new(UnixStream::connect(address)?)
    } else {
        Box::new(TcpStream::connect(address)?)
    })
}

fn handshake(name: &str) -> Result<Vec<u8>, Failure> {
    let name = encode_client_name(name).map_err(|error| error.to_string())?;
    Ok([&encode_client_greeting()[..], &name].concat())
}

/// Ends in the middle of the handshake or of a frame.
fn cut_off(name: &str, address: &str, chance: &mut Chance, counts: &Counts) -> Result<(), Failure> {
    let mut bytes = handshake(name)?;
    // 5000 bytes to itself, of which some come
    bytes.extend([7, 0, 0, 0, 0x12, 0x88, 0x13, 0, 0]);
    bytes.extend(std::iter::repeat_n(b'x', 4000));
    // the broker may have closed it: the name may be that of one that is there
    let _ = open(address)?.write_all(&bytes[..chance.below(bytes.len() as u64) as usize]);
    counts.cut_off.fetch_add(1, Relaxed);
    Ok(())
}

/// Is sent more than its queue holds, and reads nothing of it until it ends.
async fn stuck(name: &str, address: &str, chance: &mut Chance, counts: &Counts) -> Result<(), Failure> {
    let mut stream = open(address)?;
    stream.write_all(&handshake(name)?)?;
    let (client, _frames) =
        Client::builder(&format!("{name}.sender")).timeout(PATIENCE).connect(address).await?;
    let sending = tokio::spawn(async move {
        for _ in 0..40 {
            // held back until the stuck one is gone, and the answer is what became of it
            let _ =
                client.send(&client.name().replace(".sender", ""), vec![7; 100_000], Qos::PROCESSED).await;
        }
    });
    tokio::time::sleep(Duration::from_millis(chance.below(2000))).await;
    drop(stream);
    sending.await?;
    counts.stuck.fetch_add(1, Relaxed);
    Ok(())
}

async fn reload(
    client: Client,
    file: PathBuf,
    texts: [String; 2],
    every: Duration,
    counts: Arc<Counts>,
    end: End,
) -> Result<(), Failure> {
    for text in texts.iter().cycle() {
        let mut waited = Duration::ZERO;
        while waited < every && !end.has_come() {
            let step = Duration::from_millis(100).min(every);
            tokio::time::sleep(step).await;
            waited += step;
        }
        if end.has_come() {
            break;
        }
        fs::write(&file, text)?;
        if let Err(error) = client.call(".broker", "config.reload", "").await {
            eprintln!("elbus-soak: config.reload: {error}");
            return Err(error.into());
        }
        counts.reloads.fetch_add(1, Relaxed);
    }
    Ok(())
}
