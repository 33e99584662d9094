use crate::ways::{Rules, Way, Ways};

use super::*;

/// Answers as it is told, and counts.
struct Told {
    outcome: Box<dyn Fn() -> Outcome + Send + Sync>,
    asked: Mutex<usize>,
    pends: bool,
}

impl Told {
    fn new(outcome: impl Fn() -> Outcome + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            outcome: Box::new(outcome),
            asked: Mutex::default(),
            pends: false,
        })
    }

    fn asked(&self) -> usize {
        *self.asked.lock().unwrap()
    }
}

#[async_trait::async_trait]
impl Transport for Told {
    async fn send(&self, _: Exchange, _: jiff::Timestamp) -> Outcome {
        *self.asked.lock().unwrap() += 1;
        if self.pends {
            std::future::pending::<()>().await;
        }
        (self.outcome)()
    }
}

const BOTH: &str = "https://gw1.moon.example/in#ipn:2.25";

fn rules(order: &[Way]) -> Rules {
    Rules {
        order: order.to_vec(),
        above: Some(1000),
        after: Duration::from_secs(3600),
        bundle: Options::default(),
    }
}

fn over(quic: &Arc<Told>, bundle: &Arc<Told>, rules: Rules, clock: Clock) -> Ways {
    Ways::new(quic.clone(), bundle.clone(), [("moon".to_owned(), rules)], clock)
}

fn custody() -> Outcome {
    Outcome::InCustody {
        until: jiff::Timestamp::MAX,
        custody: "ipn:1.26/1/1".into(),
        tried: None,
    }
}

fn unreachable() -> Outcome {
    Outcome::Failed(Failure::Unreachable {
        gateway: "gw".into(),
        cause: "refused".into(),
    })
}

fn accepted() -> Outcome {
    Outcome::Replied(Reply {
        exchange: Ulid::nil(),
        status: StatusCode::ACCEPTED,
        headers: HeaderMap::new(),
        body: Bytes::new(),
    })
}

#[tokio::test]
async fn the_first_way_that_works_is_taken() {
    use Way::{Bundle, Quic};
    let (quic, bundle) = (Told::new(accepted), Told::new(custody));
    let ways = over(&quic, &bundle, rules(&[Quic, Bundle]), Clock::system());
    assert!(matches!(
        ways.send(exchange(BOTH), soon(60)).await,
        Outcome::Replied(_)
    ));
    assert_eq!((quic.asked(), bundle.asked()), (1, 0));
    // Large mail takes bundles.
    let mut large = exchange(BOTH);
    large.octets = 1001;
    assert!(matches!(
        ways.send(large, soon(60)).await,
        Outcome::InCustody { .. }
    ));
    assert_eq!((quic.asked(), bundle.asked()), (1, 1));
    // One way only.
    assert!(matches!(
        ways.send(exchange("ipn:2.25"), soon(60)).await,
        Outcome::InCustody { .. }
    ));
    let web = exchange("https://gw1.moon.example/in");
    assert!(matches!(ways.send(web, soon(60)).await, Outcome::Replied(_)));
    assert_eq!((quic.asked(), bundle.asked()), (2, 2));

    let ways = over(&quic, &bundle, rules(&[Bundle, Quic]), Clock::system());
    assert!(matches!(
        ways.send(exchange(BOTH), soon(60)).await,
        Outcome::InCustody { .. }
    ));
}

#[tokio::test]
async fn a_node_that_is_down_costs_no_mail() {
    use Way::{Bundle, Quic};
    let (quic, bundle) = (Told::new(accepted), Told::new(unreachable));
    let ways = over(&quic, &bundle, rules(&[Bundle, Quic]), Clock::system());
    assert!(matches!(
        ways.send(exchange(BOTH), soon(60)).await,
        Outcome::Replied(_)
    ));
    assert_eq!((quic.asked(), bundle.asked()), (1, 1));
}

#[tokio::test]
async fn that_a_request_may_have_arrived_is_not_forgotten() {
    use Way::{Bundle, Quic};
    let no_reply = || {
        Outcome::Failed(Failure::NoReply {
            gateway: "gw".into(),
            waited: Duration::ZERO,
        })
    };
    let (quic, bundle) = (Told::new(no_reply), Told::new(unreachable));
    let ways = over(&quic, &bundle, rules(&[Quic, Bundle]), Clock::system());
    let outcome = ways.send(exchange(BOTH), soon(60)).await;
    assert!(
        matches!(outcome, Outcome::Failed(Failure::NoReply { .. })),
        "{outcome:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_waiting_for_quic_takes_is_not_taken_from_the_bundles_time() {
    let clock = Clock::runtime("2030-01-01T00:00:00Z".parse().unwrap());
    let quic = Arc::new(Told {
        outcome: Box::new(accepted),
        asked: Mutex::default(),
        pends: true,
    });
    let node = Arc::new(Node::default());
    let bundle = BundleTransport::new(
        node.agent("ipn:1.26"),
        [("moon".to_owned(), Options::default())],
        clock.clone(),
    );
    let rules = [("moon".to_owned(), rules(&[Way::Quic, Way::Bundle]))];
    let ways = Ways::new(quic, Arc::new(bundle), rules, clock.clone());
    // Both wait equally long, as they do when nothing else is configured.
    let hour = Duration::from_secs(3600);
    let outcome = ways.send(exchange(BOTH), add(clock.now(), hour)).await;
    let Outcome::InCustody { until, tried, .. } = outcome else {
        panic!("{outcome:?}");
    };
    assert_eq!(until, add(clock.now(), hour));
    let tried = tried.expect("what became of QUIC");
    assert!(
        tried.contains("gw1.moon.example has not answered within"),
        "{tried}"
    );
}

#[tokio::test(start_paused = true)]
async fn silence_over_quic_brings_bundles_and_is_remembered_for_a_while() {
    let clock = Clock::runtime("2030-01-01T00:00:00Z".parse().unwrap());
    let quic = Arc::new(Told {
        outcome: Box::new(accepted),
        asked: Mutex::default(),
        pends: true,
    });
    let bundle = Told::new(custody);
    let ways = over(&quic, &bundle, rules(&[Way::Quic, Way::Bundle]), clock.clone());
    let far = add(clock.now(), Duration::from_secs(86_400));
    let begun = clock.now();
    assert!(matches!(
        ways.send(exchange(BOTH), far).await,
        Outcome::InCustody { .. }
    ));
    assert_eq!(clock.now(), add(begun, Duration::from_secs(3600)));
    // The next one does not wait.
    assert!(matches!(
        ways.send(exchange(BOTH), far).await,
        Outcome::InCustody { .. }
    ));
    assert_eq!((quic.asked(), bundle.asked()), (1, 2));
    assert_eq!(clock.now(), add(begun, Duration::from_secs(3600)));
    clock.sleep(Duration::from_secs(3601)).await;
    assert!(matches!(
        ways.send(exchange(BOTH), far).await,
        Outcome::InCustody { .. }
    ));
    assert_eq!(quic.asked(), 2, "asked again, once");
}

#[tokio::test]
async fn what_bundles_brought_no_answer_to_may_go_over_quic() {
    let (quic, bundle) = (Told::new(accepted), Told::new(custody));
    let mut rules = rules(&[Way::Bundle, Way::Quic]);
    rules.bundle.no_reply = NoReply::Other;
    let ways = over(&quic, &bundle, rules, Clock::system());
    let mut again = exchange(BOTH);
    again.held_before = true;
    assert!(matches!(ways.send(again, soon(60)).await, Outcome::Replied(_)));
    assert_eq!((quic.asked(), bundle.asked()), (1, 0));
}
