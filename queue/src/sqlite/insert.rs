//! Many rows in few statements, and few statements in one step.
//!
//! A step costs 10 to 20 µs on its way through sqlx's thread whatever it does, so rows of one table go together in one statement,
//! and statements that need no answer go together in one text. There is one text for each number of rows up to [`LARGEST`], all
//! of them prepared once and kept.

use sqlx::{
    AssertSqlSafe, Encode, Sqlite, SqliteConnection, Type,
    query::Query,
    sqlite::{SqliteArguments, SqliteRow},
};

/// The most rows in one statement.
pub(super) const LARGEST: usize = 32;
/// The most statements of so many rows in one step: there is one text for each number of them.
pub(super) const STATEMENTS: usize = 8;

/// A table and its columns in the order in which they are bound.
pub(super) struct Table {
    pub(super) into: &'static str,
    pub(super) columns: usize,
    pub(super) suffix: &'static str,
}

/// A statement around rows of values, whose columns are `column1` and so on.
pub(super) struct Around {
    pub(super) before: &'static str,
    pub(super) columns: usize,
    pub(super) behind: &'static str,
}

/// Statements that are run one after the other in one step; the first that fails ends it.
#[derive(Default)]
pub(super) struct Script {
    text: String,
    arguments: SqliteArguments,
    error: Option<sqlx::Error>,
}

impl Script {
    /// Adds a statement whose parameters, all of them plain `?`, are [added](Script::add) next.
    pub(super) fn statement(&mut self, text: &str) -> &mut Self {
        if !self.text.is_empty() {
            self.text.push(';');
        }
        self.text.push_str(text);
        self
    }

    /// Adds a parameter.
    pub(super) fn add<'t, T: Encode<'t, Sqlite> + Type<Sqlite>>(&mut self, value: T) -> &mut Self {
        if let Err(error) = sqlx::Arguments::add(&mut self.arguments, value) {
            self.error = Some(sqlx::Error::Encode(error));
        }
        self
    }

    /// Adds the insertion of rows, each bound by `bind`; of more than [`LARGEST`] only for what [`insert`] is not.
    pub(super) fn rows<T>(&mut self, table: &Table, rows: &[T], bind: impl Fn(&mut Self, &T)) -> &mut Self {
        if !rows.is_empty() {
            let values = self.places(table.columns, rows.len());
            self.statement(&format!("INSERT INTO {} {values} {}", table.into, table.suffix));
            rows.iter().for_each(|row| bind(self, row));
        }
        self
    }

    /// Adds a statement around rows, each bound by `bind`; of at most [`LARGEST`].
    pub(super) fn values<T>(
        &mut self,
        around: &Around,
        rows: &[T],
        bind: impl Fn(&mut Self, &T),
    ) -> &mut Self {
        if !rows.is_empty() {
            let values = self.places(around.columns, rows.len());
            self.statement(&format!("{}{values}{}", around.before, around.behind));
            rows.iter().for_each(|row| bind(self, row));
        }
        self
    }

    /// Makes room for rows, and gives their parameters.
    fn places(&mut self, columns: usize, rows: usize) -> String {
        sqlx::Arguments::reserve(&mut self.arguments, columns * rows, 0);
        let row = format!(",({})", "?,".repeat(columns).trim_end_matches(','));
        format!("VALUES {}", row.repeat(rows).trim_start_matches(','))
    }

    /// Runs what was added.
    pub(super) async fn run(self, connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        if self.text.is_empty() {
            return Ok(());
        }
        self.query()?.execute(connection).await.map(drop)
    }

    /// Runs what was added; the rows that it gives.
    pub(super) async fn fetch(
        self,
        connection: &mut SqliteConnection,
    ) -> Result<Vec<SqliteRow>, sqlx::Error> {
        self.query()?.fetch_all(connection).await
    }

    fn query(self) -> Result<Query<'static, Sqlite, SqliteArguments>, sqlx::Error> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(sqlx::query_with(AssertSqlSafe(self.text), self.arguments)),
        }
    }
}

/// Inserts any number of rows, each bound by `bind`.
pub(super) async fn insert<T>(
    connection: &mut SqliteConnection,
    table: &Table,
    rows: &[T],
    bind: impl Fn(&mut Script, &T),
) -> Result<(), sqlx::Error> {
    // Whole groups many at a time, so that there are few texts.
    let (full, rest) = rows.split_at(rows.len() - rows.len() % LARGEST);
    for statements in full.chunks(LARGEST * STATEMENTS) {
        let mut script = Script::default();
        for group in statements.chunks(LARGEST) {
            script.rows(table, group, &bind);
        }
        script.run(connection).await?;
    }
    let mut script = Script::default();
    script.rows(table, rest, bind);
    script.run(connection).await
}
