//! The ION agent when things go wrong: relays and helpers killed, nodes absent and locked, disks full. Real ION, as in `ion`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use lightpost_tests::{
    Site,
    full_disk::SmallDisk,
    ion::{self, Node, Relay, last, with},
    wait,
};
use serde_json::Value;

const RELAY: &str = env!("CARGO_BIN_EXE_ion-relay");
const PATIENCE: Duration = Duration::from_secs(120);

fn down(told: &[Value]) -> bool {
    last(told, "status") == Some(&Value::from("down"))
}

fn down_because(told: &[Value], why: &str) -> bool {
    down(told) && last(told, "why").unwrap().as_str().unwrap().contains(why)
}

/// The numbers under a key, for payloads each whole.
fn numbers(told: &[Value], key: &'static str) -> BTreeSet<u64> {
    with(told, key)
        .map(|line| {
            assert_ne!(line["sound"], false, "{line}");
            line[key].as_u64().unwrap()
        })
        .collect()
}

#[test]
fn relays_killed_fifty_times_lose_nothing_and_the_nodes_stay_sound() {
    if !ion::installed() {
        return;
    }
    let site = Site::new();
    let nodes = Node::pair(&site);
    let start = |index: usize| {
        let node: &Node = &nodes[index];
        let relay = Relay::start(node, 25, &site.path(node.name), RELAY);
        relay.wait_up();
        relay
    };
    let (mut sent, mut got) = (BTreeSet::new(), BTreeSet::new());
    let mut moon = start(1);
    for round in 0..50_u64 {
        let mut earth = start(0);
        earth.tell(&format!("flood ipn:2.25 4096 1000000 8 {}", round * 1_000_000));
        // Another moment each time.
        let enough = usize::try_from(20 + round * 7 % 90).unwrap();
        earth.wait("the flood", PATIENCE, |told| {
            with(told, "flooded").count() >= enough
        });
        earth.kill();
        sent.extend(numbers(&earth.told(), "flooded"));
        if round % 5 == 4 {
            moon.kill();
            got.extend(numbers(&moon.told(), "got"));
            moon = start(1);
        }
    }
    let missing = |told: &[Value]| {
        let now = numbers(told, "got");
        sent.iter()
            .filter(|number| !got.contains(*number) && !now.contains(*number))
            .count()
    };
    moon.wait("all that was taken into custody", PATIENCE, |told| {
        missing(told) == 0
    });
    println!(
        "{} bundles were taken into custody by relays that were killed; all came",
        sent.len()
    );
    // The node is not locked: ION's own programs and a new relay get through.
    for node in &nodes {
        node.feed("bpadmin", &[], "l plan\nq\n");
    }
    let mut earth = start(0);
    earth.tell("send ipn:2.25 4096 normal 77");
    moon.wait("one more", PATIENCE, |told| numbers(told, "got").contains(&77));
}

/// The one helper on a node.
fn helper(node: &Node) -> u32 {
    wait::until_some("one helper", Duration::from_secs(60), || {
        match node.processes("ion-agent")[..] {
            [one] => Some(one),
            _ => None,
        }
    })
}

/// Whether the process was still there.
fn signalled(id: u32, name: &str) -> bool {
    let status = Command::new("/bin/kill").args([name, &id.to_string()]).status();
    status.unwrap().success()
}

/// Whether all threads of a stopped process sleep in a wait, and so none is inside a transaction.
fn waits(id: u32) -> bool {
    // futex, poll, epoll_wait, epoll_pwait, clock_nanosleep.
    let waits = ["202", "7", "232", "281", "230"];
    let tasks = fs::read_dir(format!("/proc/{id}/task")).unwrap().flatten();
    tasks.into_iter().all(|task| {
        let call = fs::read_to_string(task.path().join("syscall")).unwrap_or_default();
        waits.contains(&call.split_whitespace().next().unwrap_or_default())
    })
}

#[test]
fn a_helper_that_crashes_is_started_again() {
    if !ion::installed() {
        return;
    }
    let site = Site::new();
    let nodes = Node::pair(&site);
    let mut relays = [&nodes[0], &nodes[1]].map(|node| Relay::start(node, 25, &site.path(node.name), RELAY));
    relays.iter().for_each(Relay::wait_up);
    for (round, name) in [(1, "-SEGV"), (2, "-ABRT")] {
        let id = helper(&nodes[0]);
        // Where ION would be locked no program can help, so the crash is put between two calls of ION.
        wait::until("a moment between calls", Duration::from_secs(60), || {
            // The signal may need a moment, so the process can be gone at any step after it.
            if !signalled(id, "-STOP") {
                return true;
            }
            if waits(id) {
                signalled(id, name);
            }
            signalled(id, "-CONT");
            !nodes[0].processes("ion-agent").contains(&id)
        });
        let told = relays[0].wait("the new helper", PATIENCE, |told| {
            with(told, "status").filter(|line| line["status"] == "up").count() > round
        });
        assert!(with(&told, "why").any(|line| line["why"].as_str().unwrap().contains("signal: ")));
        relays[0].tell(&format!("send ipn:2.25 4096 normal {round}"));
        relays[1].wait("a payload", PATIENCE, |told| {
            numbers(told, "got").contains(&(round as u64))
        });
        assert_ne!(helper(&nodes[0]), id);
    }
}

#[test]
fn a_node_that_is_absent_is_told_and_found_when_it_comes() {
    if !ion::installed() {
        return;
    }
    let site = Site::new();
    let hosts = site.write(
        "hosts",
        format!("{0} earth.example\n{0} moon.example\n", site.ip()),
    );
    let node = Node::host(&site, "earth", &hosts);
    let mut relay = Relay::start(&node, 25, &site.path("earth"), RELAY);
    let told = relay.wait("down", PATIENCE, |told| down_because(told, "no ION node"));
    assert!(
        last(&told, "remedy")
            .unwrap()
            .as_str()
            .unwrap()
            .contains("ION_NODE_LIST_DIR")
    );
    relay.tell("send ipn:1.26 4096 normal 1");
    let told = relay.wait("a refusal", PATIENCE, |told| last(told, "failed").is_some());
    assert_eq!(last(&told, "kind"), Some(&Value::from("Down")));
    node.install(|name, text| match name {
        "bpadmin.rc" => text.replace("a endpoint ipn:1.25 q\n", ""),
        _ => text,
    });
    node.start();
    let told = relay.wait("another reason", PATIENCE, |told| {
        down_because(told, "does not open ipn:1.25")
    });
    assert!(
        last(&told, "remedy")
            .unwrap()
            .as_str()
            .unwrap()
            .contains("a endpoint ipn:1.25 q")
    );
    node.feed("bpadmin", &[], "a endpoint ipn:1.25 q\nq\n");
    relay.wait_up();
    // To itself, which needs no neighbour.
    relay.tell("send ipn:1.25 4096 normal 2");
    relay.wait("the payload", PATIENCE, |told| numbers(told, "got").contains(&2));
}

#[test]
fn missing_libraries_are_told() {
    if !ion::installed() {
        return;
    }
    let site = Site::new();
    let hosts = site.write("hosts", "");
    let node = Node::host(&site, "earth", &hosts);
    // The loader's own list of libraries, and where ION's are.
    let hidden = node
        .command("/bin/sh")
        .args([
            "-c",
            "mount --bind /dev/null /etc/ld.so.cache && mount -t tmpfs tmpfs /usr/local/lib",
        ])
        .status();
    assert!(hidden.unwrap().success());
    let relay = Relay::start(&node, 25, &site.path("earth"), RELAY);
    let told = relay.wait("down", PATIENCE, |told| {
        down_because(told, "libraries cannot be loaded")
    });
    assert!(
        last(&told, "why")
            .unwrap()
            .as_str()
            .unwrap()
            .contains("libici.so.0")
    );
    assert!(
        last(&told, "remedy")
            .unwrap()
            .as_str()
            .unwrap()
            .contains("LD_LIBRARY_PATH")
    );
}

/// Holds a node's lock until its standard input is closed.
fn lock(node: &Node) -> Child {
    let script = "
import ctypes, sys
ion = ctypes.CDLL('libici.so.0', mode=ctypes.RTLD_GLOBAL)
assert ion.ionAttach() == 0
ion.getIonsdr.restype = ctypes.c_void_p
sdr = ctypes.c_void_p(ion.getIonsdr())
assert ion.sdr_begin_xn(sdr) == 1
print('locked', flush=True)
sys.stdin.read()
ion.sdr_exit_xn(sdr)
";
    let python = ["/usr/bin/python3", "/usr/local/bin/python3"];
    let python = python
        .iter()
        .find(|path| std::path::Path::new(path).exists())
        .unwrap();
    let mut child = node
        .command(python)
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "locked\n");
    child
}

fn unlock(mut child: Child) {
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_locked_node_is_told_and_nothing_hangs() {
    if !ion::installed() {
        return;
    }
    let site = Site::new();
    let nodes = Node::pair(&site);
    let locker = lock(&nodes[0]);
    let mut relay = Relay::start(&nodes[0], 25, &site.path("earth"), RELAY);
    let told = relay.wait("down", PATIENCE, |told| down_because(told, "does not answer"));
    assert!(
        last(&told, "remedy")
            .unwrap()
            .as_str()
            .unwrap()
            .contains("ionunlock")
    );
    unlock(locker);
    relay.wait_up();
    relay.tell("send ipn:1.25 4096 normal 1");
    relay.wait("the payload", PATIENCE, |told| numbers(told, "got").contains(&1));

    let locker = lock(&nodes[0]);
    let first = helper(&nodes[0]);
    relay.tell("send ipn:1.25 4096 normal 2");
    let told = relay.wait("a failure", PATIENCE, |told| numbers(told, "failed").contains(&2));
    assert_eq!(last(&told, "kind"), Some(&Value::from("Down")));
    relay.wait("down", PATIENCE, |told| down_because(told, "does not answer"));
    // The helper that hangs is asked to end before there is another.
    let second = wait::until_some("another helper", PATIENCE, || {
        let helpers = nodes[0].processes("ion-agent");
        assert!(helpers.len() <= 1, "{helpers:?}");
        helpers.first().copied().filter(|id| *id != first)
    });
    unlock(locker);
    relay.wait_up();
    relay.tell("send ipn:1.25 4096 normal 3");
    let told = relay.wait("the payload", PATIENCE, |told| numbers(told, "got").contains(&3));
    assert!(
        !numbers(&told, "got").contains(&2),
        "what was refused is not sent later"
    );
    assert_eq!(helper(&nodes[0]), second);
    relay.close();
}

#[test]
fn a_full_disk_holds_deliveries_up_and_loses_none() {
    if !ion::installed() {
        return;
    }
    let site = Site::new();
    let disk = SmallDisk::mount(&site, "disk", "24m");
    let nodes = Node::pair(&site);
    let mut earth = Relay::start(&nodes[0], 25, &site.path("earth"), RELAY);
    let moon = Relay::start(&nodes[1], 25, &disk.folder.join("moon"), RELAY);
    earth.wait_up();
    moon.wait_up();
    // Full behind the room that is reserved beforehand, and full in the middle of a large payload.
    for (round, octets) in [(0, 3_000_000), (1, 8_000_000)] {
        match round {
            0 => disk.fill(),
            _ => disk.take(15 << 20),
        }
        earth.tell(&format!("send ipn:2.25 {octets} normal {round}"));
        let told = moon.wait("down", PATIENCE, |told| down_because(told, "cannot be kept"));
        assert!(
            last(&told, "remedy")
                .unwrap()
                .as_str()
                .unwrap()
                .contains("make room")
        );
        assert!(!numbers(&told, "got").contains(&round));
        disk.make_room();
        moon.wait("the payload", PATIENCE, |told| {
            numbers(told, "got").contains(&round)
        });
        moon.wait_up();
    }
}
