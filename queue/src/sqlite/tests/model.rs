//! Any sequence of operations against a model that is simple enough to be right.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use tempfile::TempDir;

use super::store;
use crate::{
    Disposition, Exchanged, Operation, RecipientId, Status, WaitReason,
    contract::{Shared, at, audit, awaiting, claim, exchange, id, put, settlement, simple},
};

#[derive(Clone, Debug)]
enum Step {
    Put(u8),
    Claim(u8),
    Begin,
    Settle(u8),
    Operate(u8, u8),
    Recover,
    Pass(u8),
    Purge,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_u8..3).prop_map(Step::Put),
        3 => (1_u8..4).prop_map(Step::Claim),
        2 => Just(Step::Begin),
        3 => (0_u8..6).prop_map(Step::Settle),
        2 => (0_u8..4, any::<u8>()).prop_map(|(operation, message)| Step::Operate(operation, message)),
        1 => Just(Step::Recover),
        2 => (1_u8..100).prop_map(Step::Pass),
        1 => Just(Step::Purge),
    ]
}

/// One recipient per message: number, status, due.
#[derive(Default)]
struct Model {
    now: u64,
    next: u128,
    rows: BTreeMap<u128, (Status, Option<u64>)>,
    claimed: Vec<crate::ClaimedMessage>,
}

impl Model {
    fn number(&self, message: &crate::ClaimedMessage) -> u128 {
        (0..self.next).find(|number| id(*number) == message.id).unwrap()
    }

    /// Sets the row of the message claimed longest ago.
    fn set(&mut self, number: u128, status: Status, due: Option<u64>) {
        self.rows.insert(number, (status, due));
    }

    async fn step(&mut self, store: &Shared, step: Step) {
        let now = at(self.now);
        match step {
            Step::Put(count) => {
                for _ in 0..count {
                    let mut message = simple(self.next);
                    message.recipients[0].due = now;
                    put(store, vec![message]).await;
                    self.set(self.next, Status::Queued, Some(self.now));
                    self.next += 1;
                }
            }
            Step::Claim(limit) => {
                let mut due: Vec<_> = self
                    .rows
                    .iter()
                    .filter_map(|(number, (_, due))| {
                        due.filter(|due| *due <= self.now).map(|due| (due, *number))
                    })
                    .collect();
                due.sort_unstable();
                let got = claim(store, "w", now, limit.into()).await;
                assert_eq!(got.len(), due.len().min(limit.into()));
                for message in &got {
                    let number = self.number(message);
                    self.set(number, Status::Leased, Some(self.now + 60));
                }
                self.claimed.extend(got);
            }
            Step::Begin | Step::Settle(_) if self.claimed.is_empty() => {}
            Step::Begin => {
                let message = &self.claimed[0];
                let number = self.number(message);
                let begun = store
                    .begin_exchanges(vec![exchange(1000 + number, message, at(self.now + 50))], now)
                    .await;
                let done = self
                    .rows
                    .get(&number)
                    .is_none_or(|row| row.0 as u8 >= Status::Delivered as u8);
                assert_eq!(begun.is_err(), done);
                if !done {
                    self.set(number, Status::Awaiting, Some(self.now + 50));
                }
            }
            Step::Settle(kind) => self.settle(store, kind).await,
            Step::Operate(operation, message) => self.operate(store, operation, message).await,
            Step::Recover => {
                let leased: Vec<_> = self
                    .rows
                    .iter()
                    .filter(|row| row.1.0 == Status::Leased)
                    .map(|row| *row.0)
                    .collect();
                assert_eq!(store.recover("w", now).await.unwrap(), leased.len() as u64);
                leased
                    .into_iter()
                    .for_each(|number| self.set(number, Status::Queued, Some(self.now)));
            }
            Step::Pass(seconds) => self.now += u64::from(seconds),
            Step::Purge => {
                let before = self.rows.len();
                self.rows.retain(|_, row| (row.0 as u8) < Status::Delivered as u8);
                let purged = store.purge(at(1_000_000), now).await.unwrap();
                assert_eq!(purged, (before - self.rows.len()) as u64);
            }
        }
    }

    async fn settle(&mut self, store: &Shared, kind: u8) {
        let message = self.claimed.remove(0);
        let number = self.number(&message);
        let recipient: RecipientId = message.recipients[0].id;
        let later = self.now + 30;
        let retry = Disposition::Retry {
            due: at(later),
            reason: WaitReason::Busy,
            counted: true,
            exchange: Exchanged::Closed,
        };
        let (disposition, status, due) = match kind {
            0 => (Disposition::Delivered, Status::Delivered, None),
            1 => (Disposition::Expired, Status::Expired, None),
            2 => (Disposition::Held("x".to_owned()), Status::Held, None),
            3 => (awaiting(at(later)), Status::Awaiting, Some(later)),
            _ => (retry, Status::Queued, Some(later)),
        };
        store
            .settle(vec![settlement(recipient, disposition, at(self.now))], Vec::new())
            .await
            .unwrap();
        let Some((before, _)) = self.rows.get(&number) else {
            return;
        };
        let fits = match before {
            Status::Leased | Status::Awaiting => true,
            Status::Queued => kind < 3,
            Status::Held => kind < 2,
            _ => false,
        };
        if fits {
            self.set(number, status, due);
        }
    }

    async fn operate(&mut self, store: &Shared, operation: u8, message: u8) {
        let number = u128::from(message) % (self.next + 1);
        let (operation, fitting, status) = match operation {
            0 => (Operation::Retry, vec![Status::Queued], Status::Queued),
            1 => (Operation::Hold, vec![Status::Queued], Status::Held),
            2 => (Operation::Release, vec![Status::Held], Status::Queued),
            _ => (
                Operation::Cancel,
                vec![Status::Queued, Status::Held],
                Status::Cancelled,
            ),
        };
        let wanted = self
            .rows
            .get(&number)
            .map(|row| u64::from(fitting.contains(&row.0)));
        assert_eq!(
            store
                .operate(id(number), operation, at(self.now), "x")
                .await
                .unwrap(),
            wanted
        );
        if wanted == Some(1) {
            self.set(number, status, (status == Status::Queued).then_some(self.now));
        }
    }

    async fn compare(&self, store: &Shared) {
        for (number, (status, due)) in &self.rows {
            let seen = store.message(id(*number)).await.unwrap().unwrap();
            let recipient = &seen.recipients[0];
            assert_eq!(
                (recipient.status, recipient.due),
                (*status, due.map(at)),
                "{number}"
            );
        }
        let next = self.rows.values().filter_map(|row| row.1).min();
        assert_eq!(store.next_due().await.unwrap(), next.map(at));
        let later = self
            .rows
            .values()
            .filter_map(|row| row.1)
            .filter(|due| *due > self.now)
            .min();
        assert_eq!(store.next_due_after(at(self.now)).await.unwrap(), later.map(at));
        audit(store).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_is_as_in_the_model(steps in prop::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = TempDir::new().unwrap();
            let store: Shared = Arc::clone(&store(&folder).await) as Shared;
            let mut model = Model::default();
            for step in steps {
                model.step(&store, step).await;
            }
            model.compare(&store).await;
        });
    }
}
