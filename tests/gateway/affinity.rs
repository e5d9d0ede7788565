//! What a node asks of the system: workers on cores of their own, within what it was given, and all the files it may have.

use std::fs;

use crate::support::{Encoding, Node};

/// `Cpus_allowed_list` of each worker's thread.
fn cpus(node: &Node) -> Vec<String> {
    let mut lists = Vec::new();
    for task in fs::read_dir(format!("/proc/{}/task", node.pid())).expect("it runs") {
        let task = task.expect("it runs").path();
        if fs::read_to_string(task.join("comm")).expect("it runs").starts_with("worker-") {
            let status = fs::read_to_string(task.join("status")).expect("it runs");
            let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            lists.push(list.expect("every thread has it").trim().to_owned());
        }
    }
    lists
}

#[test]
fn each_worker_keeps_to_one_of_the_allowed_cores() {
    let status = fs::read_to_string("/proc/self/status").expect("it is readable");
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("we have it").trim();
    let cores = std::thread::available_parallelism().expect("it is known").get();
    let node = Node::start(&["--node.pin=true", "--workers=0"]);
    let mut pinned = cpus(&node);
    pinned.sort();
    pinned.dedup();
    assert_eq!(pinned.len(), cores, "a core each of {allowed}");
    assert!(pinned.iter().all(|list| list.parse::<usize>().is_ok()), "{pinned:?}");
    // More workers than cores share them.
    let node = Node::start(&["--node.pin=true", "--workers=5"]);
    assert_eq!(cpus(&node).len(), 5);
    node.connected(Encoding::Json).subscribe("room");
    let node = Node::start(&["--node.pin=false", "--workers=2"]);
    assert_eq!(cpus(&node), [allowed, allowed]);
}

#[test]
fn the_limit_of_open_files_is_raised_to_what_is_allowed() {
    let node = Node::open();
    let limits = fs::read_to_string(format!("/proc/{}/limits", node.pid())).expect("it runs");
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("it is listed");
    let numbers: Vec<&str> = files.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers[0], numbers[1], "{files}");
}
