//! A look at a store that somebody else may be serving from.
//!
//! Owns the opening for reading. Must never change anything, not even the file's own schema.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{BUSY, SqliteStore, failed, migrations};
use crate::error::ControlError;

impl SqliteStore {
    /// Opens the file for reading alone. One of another release is not looked into.
    pub(crate) fn look(path: &Path) -> Result<Self, ControlError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection.busy_timeout(BUSY).map_err(failed)?;
        connection.pragma_update(None, "trusted_schema", false).map_err(failed)?;
        migrations::check(&connection)?;
        Ok(Self { connection, begin: TransactionBehavior::Deferred })
    }
}
