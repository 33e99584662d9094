//! What is asked for each dispatch must not cost more because more waits.

use sqlx::{AssertSqlSafe, Row};
use tempfile::TempDir;

use super::super::{carried, claim, notice, open, operate, read, settle, tx, usage, view};

async fn plan(statement: &str) -> Vec<String> {
    let folder = TempDir::new().unwrap();
    let (mut connection, _) = open::open(&folder.path().join("queue.db")).await.unwrap();
    sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")))
        .fetch_all(&mut connection)
        .await
        .unwrap()
        .iter()
        .map(|row| row.get::<String, _>("detail"))
        .collect()
}

#[tokio::test]
async fn no_statement_of_the_dispatch_scans_a_table() {
    let statements = [
        carried::BY_ID,
        carried::BY_CUSTODY,
        carried::MESSAGE,
        carried::RECIPIENTS,
        claim::FRONT,
        claim::DUE,
        claim::MESSAGES,
        claim::EXCHANGES,
        read::DUE,
        read::NEXT_DUE,
        read::NEXT_DUE_AFTER,
        notice::LATE,
        notice::NEXT,
        notice::TOLD,
        read::CHUNK,
        read::CHUNK_AT,
        operate::DONE,
        settle::RESUME,
        tx::LOAD,
        usage::USED,
    ];
    for statement in statements {
        for step in plan(statement).await {
            let table = step
                .strip_prefix("SCAN ")
                .map(|rest| rest.split(' ').next().unwrap());
            // Recursive steps and lists of parameters; nothing stored.
            let small = [
                "pair",
                "ranks",
                "j",
                "(subquery-1)",
                "(subquery-5)",
                "CONSTANT",
                "3",
            ];
            assert!(
                table.is_none_or(|table| small.contains(&table)),
                "{statement}: {step}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_rare_is_listed_without_looking_at_the_rest() {
    let listing = format!(
        "SELECT m.sender FROM message AS m WHERE m.id > ?1{} ORDER BY m.id LIMIT ?5",
        view::RARE
    );
    let steps = plan(&listing).await;
    for wanted in [
        "m USING INTEGER PRIMARY KEY (rowid=?)",
        "r USING COVERING INDEX recipient_rare (status=?)",
    ] {
        assert!(
            steps.iter().any(|step| step.contains(wanted)),
            "{wanted} not in {steps:#?}"
        );
    }
}

#[tokio::test]
async fn a_name_leads_to_its_message_without_looking_at_others() {
    let listing = format!(
        "SELECT m.sender FROM message AS m WHERE m.id > ?1{} ORDER BY m.id LIMIT ?5",
        view::KNOWN_AS
    );
    let steps = plan(&listing).await;
    for wanted in [
        "m USING INTEGER PRIMARY KEY (rowid=?)",
        "message USING COVERING INDEX sqlite_autoindex_message_1 (id=?)",
        "exchange USING PRIMARY KEY (id=?)",
        "message USING COVERING INDEX message_origin (origin_id=?)",
        "message USING COVERING INDEX message_upstream (upstream=?)",
    ] {
        assert!(
            steps.iter().any(|step| step.contains(wanted)),
            "{wanted} not in {steps:#?}"
        );
    }
}

#[tokio::test]
async fn the_next_pair_is_one_step_away() {
    let steps = plan(read::NEXT_DUE).await;
    for wanted in [
        "n USING COVERING INDEX recipient_due (destination=? AND rank>?)",
        "(destination>?)",
    ] {
        assert!(
            steps.iter().any(|step| step.contains(wanted)),
            "{wanted} not in {steps:#?}"
        );
    }
}

#[tokio::test]
async fn what_is_due_first_is_found_without_sorting() {
    let steps = plan(claim::FRONT).await;
    let inner = "SEARCH r USING INDEX recipient_due (destination=? AND rank=? AND due<?)";
    let outer = steps.iter().rposition(|step| step == "SCAN ranks").unwrap();
    assert_eq!(
        steps.get(outer + 1).map(String::as_str),
        Some(inner),
        "{steps:#?}"
    );
    assert!(
        !steps.iter().any(|step| step.contains("TEMP B-TREE")),
        "{steps:#?}"
    );
}
