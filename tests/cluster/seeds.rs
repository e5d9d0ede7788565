//! Seeds that are names: what a name stands for is looked up again and again.

use crate::harness::isolated::{Own, isolated, run};
use crate::harness::{PATIENCE, Plan, Scratch, eventually, path};

#[test]
fn a_seed_whose_name_gets_another_address_is_found_there() {
    if !isolated("seeds::a_seed_whose_name_gets_another_address_is_found_there", Own::Mounts) {
        return;
    }
    let scratch = Scratch::make();
    let hosts = scratch.0.join("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    run("mount", &["--bind", path(&hosts), "/etc/hosts"]);
    let stands_for = |address: &str| std::fs::write(&hosts, format!("127.0.0.1 localhost\n{address} skein.test\n"));

    let mut cluster = Plan::nodes(2).flags(&["--mesh.join_timeout=1s"]).prepare();
    let port = cluster.nodes[0].mesh.port();
    cluster.nodes[0].seeds.clear();
    cluster.nodes[1].seeds = vec![format!("skein.test:{port}")];
    cluster.nodes.iter_mut().for_each(|node| node.start());
    // At first nobody has the name, then it stands for an address where nobody is.
    eventually(PATIENCE, "the node serves alone", || cluster.nodes[1].status().is_some_and(|status| status.ready));
    assert!(cluster.nodes[1].status().unwrap().members.is_empty());
    assert!(cluster.nodes[1].log_text().contains("cannot be looked up"), "it says why");
    stands_for("127.0.0.99").unwrap();
    eventually(PATIENCE, "the name is known", || cluster.nodes[1].log_text().contains("known again"));
    assert!(cluster.nodes[1].status().unwrap().members.is_empty());
    stands_for("127.0.0.1").unwrap();
    let took = cluster.together();
    eprintln!("found {took:?} after the name had the right address");
}
