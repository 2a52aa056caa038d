//! The file of a store: opens it, moves a damaged one aside, reads all of it, and writes changes in
//! transactions. Decides nothing about values; blocks as long as the disk does.

use redb::{
    CommitError, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend, StorageError,
    TableDefinition, TableError, TransactionError, backends::FileBackend,
};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::topics::Value;

/// Sender and payload by topic.
const VALUES: TableDefinition<'_, &str, (&str, &[u8])> = TableDefinition::new("retained");
/// What every file of the embedded store begins with.
const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";
/// Damaged files that are kept; of more, the last one is replaced.
const MOST_DAMAGED: usize = 9;
/// Memory for pages of the file.
const CACHE_BYTES: usize = 16 << 20;

/// A change: the value of a topic as it is now, or `None` if it has none any more.
pub(crate) type Change = (Arc<str>, Option<Value>);

/// Why a file could not be used.
#[derive(Debug)]
pub(crate) enum FileError {
    /// The file is not a store, or its contents are damaged.
    Damaged(String),
    /// The disk or its folder; the file can be as it should.
    Unusable(String),
}

impl std::fmt::Display for FileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (FileError::Damaged(text) | FileError::Unusable(text)) = self;
        f.write_str(text)
    }
}

impl From<StorageError> for FileError {
    fn from(error: StorageError) -> Self {
        match &error {
            StorageError::Corrupted(_) => FileError::Damaged(error.to_string()),
            StorageError::Io(io)
                if matches!(io.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                FileError::Damaged(error.to_string())
            }
            _ => FileError::Unusable(error.to_string()),
        }
    }
}

impl From<DatabaseError> for FileError {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::Storage(error) => error.into(),
            DatabaseError::DatabaseAlreadyOpen => {
                FileError::Unusable("the file is in use by another instance or broker".to_owned())
            }
            DatabaseError::UpgradeRequired(_) => FileError::Damaged(error.to_string()),
            _ => FileError::Unusable(error.to_string()),
        }
    }
}

impl From<TransactionError> for FileError {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Storage(error) => error.into(),
            _ => FileError::Unusable(error.to_string()),
        }
    }
}

impl From<TableError> for FileError {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Storage(error) => error.into(),
            // a table of another program
            _ => FileError::Damaged(error.to_string()),
        }
    }
}

impl From<CommitError> for FileError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Storage(error) => error.into(),
            _ => FileError::Unusable(error.to_string()),
        }
    }
}

impl From<io::Error> for FileError {
    fn from(error: io::Error) -> Self {
        FileError::Unusable(error.to_string())
    }
}

/// Runs something of the embedded store, for which a damaged file can be a reason to panic.
fn guarded<R>(work: impl FnOnce() -> Result<R, FileError>) -> Result<R, FileError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(FileError::Damaged("the store has panicked".to_owned())))
}

/// An open file.
pub(crate) struct StoreFile {
    database: Database,
    /// Device and inode.
    identity: (u64, u64),
}

impl StoreFile {
    /// Opens or creates a file. `wrap` is what all reads and writes pass.
    pub(crate) fn open<B: StorageBackend>(
        path: &Path,
        wrap: impl FnOnce(FileBackend) -> B,
    ) -> Result<Self, FileError> {
        // values are for clients that are allowed to read them, so not for other users
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file: File = options.open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(FileError::Unusable("not a regular file".to_owned()));
        }
        if metadata.len() > 0 && !begins_as_store(&file)? {
            let text = "not a file of retained values, so it is left alone: delete it or set another path";
            return Err(FileError::Unusable(text.to_owned()));
        }
        let identity = (metadata.dev(), metadata.ino());
        guarded(|| {
            let backend = FileBackend::new(file)?;
            let database = Database::builder()
                .set_cache_size(CACHE_BYTES)
                .set_check_integrity_on_open(true)
                .create_with_backend(wrap(backend))?;
            let store = StoreFile { database, identity };
            // the table exists from now on
            store.write(|transaction| transaction.open_table(VALUES).map(drop).map_err(FileError::from))?;
            Ok(store)
        })
    }

    /// Fails if the file is no longer the one at its path: what is written to it then is lost.
    pub(crate) fn check_place(&self, path: &Path) -> Result<(), FileError> {
        let found = std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
        if found.is_ok_and(|found| found == self.identity) {
            return Ok(());
        }
        Err(FileError::Unusable("the file was removed or replaced while it was in use".to_owned()))
    }

    /// Passes all values to `row`: topic, sender and payload, in the order of topics.
    pub(crate) fn read(&self, mut row: impl FnMut(&str, &str, &[u8])) -> Result<(), FileError> {
        guarded(|| {
            let table = self.database.begin_read()?.open_table(VALUES)?;
            for entry in table.iter()? {
                let (topic, value) = entry?;
                let (sender, payload) = value.value();
                row(topic.value(), sender, payload);
            }
            Ok(())
        })
    }

    /// Writes changes; they are on the disk when it returns.
    pub(crate) fn apply(&self, changes: &[Change]) -> Result<(), FileError> {
        guarded(|| {
            self.write(|transaction| {
                let mut table = transaction.open_table(VALUES)?;
                for (topic, value) in changes {
                    match value {
                        Some(value) => {
                            table.insert(&**topic, (value.sender(), value.payload()))?;
                        }
                        None => _ = table.remove(&**topic)?,
                    }
                }
                Ok(())
            })
        })
    }

    /// Replaces all values: `next` returns some of them at a time, and none at the end.
    pub(crate) fn replace(&self, mut next: impl FnMut() -> Option<Vec<Change>>) -> Result<(), FileError> {
        guarded(|| {
            self.write(|transaction| {
                transaction.delete_table(VALUES)?;
                let mut table = transaction.open_table(VALUES)?;
                while let Some(changes) = next() {
                    for (topic, value) in &changes {
                        if let Some(value) = value {
                            table.insert(&**topic, (value.sender(), value.payload()))?;
                        }
                    }
                }
                Ok(())
            })
        })
    }

    fn write(
        &self,
        work: impl FnOnce(&redb::WriteTransaction) -> Result<(), FileError>,
    ) -> Result<(), FileError> {
        let mut transaction = self.database.begin_write()?;
        // a broker that was killed starts without reading the whole file first
        transaction.set_quick_repair(true);
        work(&transaction)?;
        transaction.commit()?;
        Ok(())
    }
}

/// Returns whether a file begins like those of the embedded store, or with zeroes as after a crash of the
/// machine.
fn begins_as_store(file: &File) -> io::Result<bool> {
    let mut start = [0; MAGIC.len()];
    match file.read_exact_at(&mut start, 0) {
        Ok(()) => Ok(start == MAGIC || start == [0; MAGIC.len()]),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Renames a damaged file, so that a new one can be created; returns its new path. Earlier ones are kept.
pub(crate) fn move_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = |number: usize| {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".damaged");
        if number > 1 {
            aside.push(format!(".{number}"));
        }
        PathBuf::from(aside)
    };
    let is_free = |path: &PathBuf| std::fs::symlink_metadata(path).is_err();
    let aside = (1..=MOST_DAMAGED).map(aside).find(is_free).unwrap_or_else(|| aside(MOST_DAMAGED));
    std::fs::rename(path, &aside)?;
    Ok(aside)
}
