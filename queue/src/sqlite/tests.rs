//! The contract, and what is particular to SQLite.

mod faults;
mod held;
mod inspect;
mod memory;
mod model;
mod plans;

use std::{path::Path, sync::Arc};

use lightpost_clock::Clock;
use tempfile::TempDir;

use super::SqliteStore;
use crate::contract;

async fn store(folder: &TempDir) -> Arc<SqliteStore> {
    let path = folder.path().join("queue.db");
    Arc::new(
        SqliteStore::open(&path, Clock::runtime(contract::at(0)))
            .await
            .unwrap(),
    )
}

async fn reopen(path: &Path) -> Arc<SqliteStore> {
    Arc::new(
        SqliteStore::open(path, Clock::runtime(contract::at(0)))
            .await
            .unwrap(),
    )
}

macro_rules! contract {
    ($($check:ident)*) => {
        mod keeps_the_contract {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $check() {
                    let folder = TempDir::new().unwrap();
                    contract::$check(store(&folder).await).await;
                }
            )*
        }
    };
}

contract! {
    mail_comes_back_as_it_went_in
    the_same_request_is_stored_once
    concurrent_repeats_are_stored_once
    an_allowance_is_not_exceeded
    a_large_body_is_read_from_any_octet
    a_body_belongs_to_one_message
    a_bad_command_harms_no_other
    highest_priority_then_longest_due
    due_names_each_destination_once
    no_two_claims_get_the_same_recipient
    a_lease_ends
    what_awaits_comes_back_with_its_exchange
    what_awaits_is_resumed_with_its_exchange
    each_recipient_has_its_own_outcome
    the_first_final_outcome_counts
    a_closed_exchange_is_not_repeated
    a_late_reply_after_failover_still_counts
    what_a_carrier_holds_is_awaited_over_a_restart
    notifications_are_stored_with_their_cause
    what_is_late_is_told_once
    what_is_done_is_not_late
    who_was_told_is_kept_with_the_notice
    operations_fit_some_statuses
    changes_wake_the_dispatcher
    what_becomes_due_sooner_wakes_the_dispatcher
    listings_filter_and_go_on
    what_happens_is_counted
    every_name_leads_to_its_messages
    done_messages_and_old_keys_go
    a_closed_store_refuses
}
