//! A node that cannot start says why in one sentence, and ends with the code that says what kind of trouble it is.

use std::net::TcpListener;

use crate::support::{Encoding, Ended, Node};

fn refused(options: &[&str]) -> Ended {
    match Node::try_start(options) {
        Ok(_) => panic!("it starts with {options:?}"),
        Err(ended) => ended,
    }
}

#[test]
fn a_second_node_on_the_same_port_is_told_so() {
    let node = Node::open();
    let Err(ended) = Node::try_start_at(node.address.port(), &[]) else { panic!("two nodes share a port") };
    assert_eq!(ended.code, Some(1));
    assert!(ended.log.contains(&format!("address {} is in use", node.address)), "{}", ended.log);
    // The first one did not notice.
    for _ in 0..20 {
        node.connected(Encoding::Json).leave();
    }
}

#[test]
fn a_port_that_another_program_has_is_told() {
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = other.local_addr().expect("it has one").port();
    let Err(ended) = Node::try_start_at(port, &[]) else { panic!("it took the port") };
    assert_eq!(ended.code, Some(1));
    assert!(ended.log.contains("is in use"), "{}", ended.log);
}

#[test]
fn mistakes_in_options_are_told_all_at_once_with_code_2() {
    let ended = refused(&["--client.ping_interval=5s", "--client.pong_timeout=6s", "--client.channel_limit=many"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.log.contains("client.pong_timeout") && ended.log.contains("client.channel_limit"), "{}", ended.log);
    let ended = refused(&["--client.insecur"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.log.contains("--client.insecure"), "the nearest name: {}", ended.log);
}

#[test]
fn an_open_node_does_not_listen_on_all_addresses() {
    let ended = refused(&["--address=0.0.0.0"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.log.contains("0.0.0.0"), "{}", ended.log);
    let node = Node::open();
    assert!(node.address.ip().is_loopback());
    assert!(node.log().contains("open: nothing says who may connect"));
}

#[test]
fn a_node_alone_says_so_and_which_driver_it_has() {
    let node = Node::open();
    assert!(node.log().contains("this node runs alone"), "{}", node.log());
    let epoll = Node::start(&["--driver=epoll"]);
    assert!(epoll.log().contains("epoll"), "{}", epoll.log());
    epoll.connected(Encoding::Json).subscribe("room");
}
