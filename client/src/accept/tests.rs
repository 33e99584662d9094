use http::StatusCode;
use lightpost_intake::Problem;
use lightpost_queue::{Shortage, StoreError};

use super::*;

#[test]
fn a_refusal_is_a_problem_and_a_reply() {
    let path = || "/secret".to_owned();
    let full = StoreError::Full {
        path: path(),
        shortage: Some(Shortage {
            file_system: path(),
            free: 5000,
            wanted: 8 << 20,
        }),
    };
    let other = StoreError::Other {
        path: path(),
        cause: "/secret".into(),
    };
    let code = EnhancedCode::new;
    for (refusal, reply, status, waits) in [
        (
            Refusal::new(550, NO_ROUTE, "no route"),
            "550 5.1.2 no route",
            422,
            None,
        ),
        (
            Refusal::new(552, code(5, 3, 4), "large"),
            "552 5.3.4 large",
            413,
            None,
        ),
        (
            Refusal::from(BodyError::TooLarge(7)),
            "552 5.3.4 the mail exceeds the limit of 7 octets",
            413,
            None,
        ),
        (
            Refusal::from(full),
            "452 4.3.1 the disk is full (4.9 KiB free, 8.0 MiB wanted, 8.0 MiB short); the mail was not stored",
            507,
            Some(60),
        ),
        (
            Refusal::from(other),
            "451 4.3.0 the outbox cannot be written; the mail was not stored",
            503,
            Some(60),
        ),
    ] {
        assert_eq!(refusal.to_string(), reply);
        assert_eq!(refusal.is_permanent(), waits.is_none());
        let problem = Problem::from(refusal.clone());
        assert_eq!(problem.status, StatusCode::from_u16(status).unwrap());
        assert_eq!((problem.code, problem.detail), (Some(refusal.code), refusal.text));
        assert_eq!(problem.retry_after.map(|wait| wait.as_secs()), waits);
    }
}
