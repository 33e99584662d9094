//! Many rows in few statements.
//!
//! A statement costs 10 to 20 µs on its way through sqlx's thread whatever it does, so rows of one table go together. The
//! statements come in sizes that are powers of two: seven texts per table, all of them prepared once and kept.

use sqlx::{AssertSqlSafe, Encode, Sqlite, SqliteConnection, Type, sqlite::SqliteArguments};

/// The most rows in one statement.
const LARGEST: usize = 64;

/// A table and its columns in the order in which they are bound.
pub(super) struct Table {
    pub(super) into: &'static str,
    pub(super) columns: usize,
    pub(super) suffix: &'static str,
}

/// Collects one statement's values.
#[derive(Default)]
pub(super) struct Values {
    arguments: SqliteArguments,
    error: Option<sqlx::Error>,
}

impl Values {
    pub(super) fn add<'t, T: Encode<'t, Sqlite> + Type<Sqlite>>(&mut self, value: T) -> &mut Self {
        if let Err(error) = sqlx::Arguments::add(&mut self.arguments, value) {
            self.error = Some(sqlx::Error::Encode(error));
        }
        self
    }

    fn finish(self) -> Result<SqliteArguments, sqlx::Error> {
        self.error.map_or(Ok(self.arguments), Err)
    }
}

/// Inserts rows, each bound by `bind`.
pub(super) async fn insert<T>(
    connection: &mut SqliteConnection,
    table: &Table,
    mut rows: &[T],
    bind: impl Fn(&mut Values, &T),
) -> Result<(), sqlx::Error> {
    while !rows.is_empty() {
        let size = if rows.len() >= LARGEST {
            LARGEST
        } else {
            1 << rows.len().ilog2()
        };
        let (now, later) = rows.split_at(size);
        let mut values = Values::default();
        now.iter().for_each(|row| bind(&mut values, row));
        sqlx::query_with(AssertSqlSafe(text(table, size)), values.finish()?)
            .execute(&mut *connection)
            .await?;
        rows = later;
    }
    Ok(())
}

fn text(table: &Table, rows: usize) -> String {
    let row = format!("({})", vec!["?"; table.columns].join(","));
    format!(
        "INSERT INTO {} VALUES {} {}",
        table.into,
        vec![row; rows].join(","),
        table.suffix
    )
}
