//! What ingestion on Earth and the gateway have in common: problem documents, request fields, reading and spooling bodies,
//! taking Batch SMTP objects apart, notifications, operator routes.

pub mod auth;
pub mod drain;
pub mod fields;
pub mod loops;
pub mod notify;
pub mod operator;
pub mod problem;
pub mod read;
pub mod sha256;
pub mod signed;
pub mod spool;
pub mod stored;
pub mod transactions;

pub use auth::{TokenError, Tokens};
pub use drain::drained;
pub use fields::{Digests, Encoding};
pub use notify::{Original, Reporter};
pub use problem::{Place, Problem};
pub use read::{BodyReader, ReadDigest, ReadError, ReadLimits};
pub use sha256::Sha256;
pub use spool::{Spool, SpoolError};
pub use stored::StoredBody;
pub use transactions::{BadRecipient, Batch, BatchError, BatchSettings, Transaction, receive};
