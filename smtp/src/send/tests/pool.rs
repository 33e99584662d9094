use super::*;
use crate::Pool;

const MAIL: &str = "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 250 done\n";

async fn deliver(pool: &Pool) -> String {
    result(pool.deliver(&envelope(1), &facts(BODY.len()), body(BODY)).await)
}

#[tokio::test]
async fn sessions_are_reused() {
    let server = Server::start(script(&format!("{HELLO}{PIPELINING}{MAIL}{MAIL}"))).await;
    let pool = Pool::new(server.target.clone(), Clock::system(), 2);
    assert_eq!(deliver(&pool).await, "+250");
    assert_eq!(deliver(&pool).await, "+250");
    server.done().await;
}

#[tokio::test]
async fn one_too_many_is_closed() {
    let quit = "C: QUIT\nS: 221 bye\n";
    let text = format!("{HELLO}{PIPELINING}{MAIL}{quit}NEXT\n{HELLO}{PIPELINING}{MAIL}{quit}");
    let server = Server::start(script(&text)).await;
    let pool = Pool::new(server.target.clone(), Clock::system(), 0);
    assert_eq!(deliver(&pool).await, "+250");
    assert_eq!(deliver(&pool).await, "+250");
    server.done().await;
}

/// An idle session that the server ended is found out, at the latest by its answer to MAIL; the mail goes on a new one.
#[tokio::test]
async fn stale_sessions_are_replaced() {
    for end in [
        "",
        "S: 421 idle too long\n",
        "C: MAIL\n",
        "C: MAIL\nS: 421 enough mails\n",
        "C: MAIL\nS: 421 a\nHOLD\n",
    ] {
        let text = format!("{HELLO}{PIPELINING}{MAIL}{end}NEXT\n{HELLO}{PIPELINING}{MAIL}");
        let server = Server::start(script(&text)).await;
        let pool = Pool::new(server.target.clone(), Clock::system(), 1);
        assert_eq!(deliver(&pool).await, "+250", "{end}");
        assert_eq!(deliver(&pool).await, "+250", "{end}");
        server.done().await;
    }
}

/// What the server took a position on is not tried again.
#[tokio::test]
async fn only_dead_sessions_are_tried_again() {
    let refused = "C: MAIL\nC: RCPT\nC: DATA\nS: 550 no\nS: 503 no\nS: 503 no\n";
    let cut = "C: MAIL\nC: RCPT\nC: DATA\nS: 250 ok\n";
    for (end, expected) in [(refused, "-550"), (cut, "lost RCPT")] {
        let server = Server::start(script(&format!("{HELLO}{PIPELINING}{MAIL}{end}"))).await;
        let pool = Pool::new(server.target.clone(), Clock::system(), 1);
        assert_eq!(deliver(&pool).await, "+250");
        assert_eq!(deliver(&pool).await, expected);
        server.done().await;
    }
    // A new session is tried once.
    let server = Server::start(script(&format!("{HELLO}{PIPELINING}C: MAIL\nS: 421 no"))).await;
    let pool = Pool::new(server.target.clone(), Clock::system(), 1);
    assert_eq!(deliver(&pool).await, "-421");
    server.done().await;
}

#[tokio::test]
async fn idle_sessions_age() {
    let text = format!("{HELLO}{PIPELINING}{MAIL}HOLD\nNEXT\n{HELLO}{PIPELINING}{MAIL}");
    let server = Server::start(script(&text)).await;
    let pool = Pool::new(server.target.clone(), Clock::system(), 1);
    assert_eq!(deliver(&pool).await, "+250");
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    tokio::time::resume();
    assert_eq!(deliver(&pool).await, "+250");
    server.done().await;
}
